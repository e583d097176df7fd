"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if not os.environ.get("CUDA_VISIBLE_DEVICES") and not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: its kernels run without a GPU


@pytest.fixture(scope="session")
def device() -> str:
    """Where the engine's tests decode: $SELFTRAIN_TEST_DEVICE, else cpu."""
    return os.environ.get("SELFTRAIN_TEST_DEVICE") or "cpu"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with gsm8k, svamp and asdiv: $SELFTRAIN_DATA, else shared/data beside the repository; or skip."""
    folder = Path(os.environ.get("SELFTRAIN_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(
            f"needs the public files of GSM8K, SVAMP and ASDiv, no part of the repository; no folder {folder} "
            "(set SELFTRAIN_DATA)"
        )
    return folder
