"""Loading, saving and the head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selftrain.errors import ModelError
from selftrain.models import LanguageModel, load_model, save_model
from selftrain.toy import make_toy
from selftrain.weights import weights_digest


@pytest.fixture(scope="module", params=["random-llama", "random-t5"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    make_toy(request.param, folder)
    return load_model(folder, digest="toy")


def test_saved_weights_come_back(toy: LanguageModel, tmp_path: Path) -> None:
    digest = save_model(toy, tmp_path / "saved")
    assert digest == weights_digest(tmp_path / "saved")
    again = load_model(tmp_path / "saved", digest=digest)
    for name, value in toy.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name


def test_a_tokenizer_without_end_token_is_refused(toy: LanguageModel, tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"eos_token"', '"was_eos_token"'))
    with pytest.raises(ModelError, match="no end token"):
        load_model(tmp_path, digest="x")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer could be loaded"):
        load_model(tmp_path, digest="x")


def test_more_tokens_than_embedding_rows_is_refused_with_both_numbers(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path)
    model = load_model(tmp_path, digest="x")
    model.tokenizer.add_tokens([f"new{number}" for number in range(500)])
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer has \d+ tokens, the embedding only \d+ rows"):
        load_model(tmp_path, digest="x")
