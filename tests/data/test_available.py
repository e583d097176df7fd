"""What cannot be read is refused before any weights are fetched."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from selftrain.config import DataConfig, DataSpec
from selftrain.data.available import check_available
from selftrain.errors import ConfigError, DataError


def config(spec: DataSpec) -> DataConfig:
    return DataConfig(train=DataSpec(source="arithmetic"), test=[spec])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"selftrain\[gym\]"):
        check_available(config(DataSpec(source="reasoning_gym:gsm_symbolic")))


def test_a_missing_file_and_an_unknown_source_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.jsonl"):
        check_available(config(DataSpec(source="file", path=str(tmp_path / "nowhere.jsonl"))))
    with pytest.raises(DataError, match="Did you mean 'svamp'"):
        check_available(config(DataSpec(source="svmp")))


def test_an_unknown_verifier_is_named() -> None:
    with pytest.raises(ConfigError, match="(?s)No verifier is called 'numerical'.*Did you mean 'numeric'"):
        check_available(config(DataSpec(source="arithmetic", name="other", verify="numerical")))
    with pytest.raises(ConfigError, match="there is no module 'no_such_checks'"):
        check_available(config(DataSpec(source="arithmetic", name="other", verify="no_such_checks:f")))


def test_what_is_there_passes() -> None:
    check_available(config(DataSpec(source="arithmetic", name="other")))
