"""The two random models, for tests that go over both."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.models import LanguageModel, load_model
from selftrain.toy import make_toy


@pytest.fixture(scope="module", params=["random-llama", "random-t5"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, device: str) -> LanguageModel:
    folder: Path = tmp_path_factory.mktemp(request.param)
    make_toy(request.param, folder, seed=5)
    return load_model(folder, digest="toy", device=device)
