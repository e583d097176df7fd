"""How a delivered model says that it is to be asked. Its card: tests/report/test_card.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.card import read_settings, write_settings
from selftrain.config import PromptConfig
from selftrain.errors import ModelError
from selftrain.recipe import load_config


def test_settings_come_back(tmp_path: Path) -> None:
    config = load_config("smoke", ["prompt.template=Q {question} A", "sampling.max_new_tokens=77"])
    write_settings(tmp_path, config, style="angle")
    assert read_settings(tmp_path) == (config.prompt, 77)


def test_a_model_from_elsewhere_gets_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == (PromptConfig(), 300)


@pytest.mark.parametrize("content", ['{"prompt": {"template": "no slot"}}', '{"max_new_tokens": "many"}', "[]"])
def test_settings_that_we_did_not_write_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "selftrain.json").write_text(content)
    if content == "[]":  # an empty list says nothing, like no file
        assert read_settings(tmp_path) == (PromptConfig(), 300)
        return
    with pytest.raises(ModelError, match="not settings that selftrain wrote"):
        read_settings(tmp_path)
