"""What a delivered model tells of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.card import read_settings, write_card
from selftrain.config import PromptConfig
from selftrain.errors import ModelError
from selftrain.recipe import load_config


def test_settings_come_back_and_the_card_names_prompt_digest_and_data(tmp_path: Path) -> None:
    config = load_config("smoke", ["prompt.template=Q {question} A", "sampling.max_new_tokens=77"])
    write_card(tmp_path, config, digest="d1gest", style="angle")
    assert read_settings(tmp_path) == (config.prompt, 77)
    card = (tmp_path / "README.md").read_text()
    for part in ("Q {question} A", "d1gest", "arithmetic", "<<6*7=42>>"):
        assert part in card


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


def test_a_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    base = tmp_path / "my-base"
    base.mkdir()
    write_card(tmp_path, load_config("smoke", [f"model={base}"]), digest="d1gest", style="angle")
    card = (tmp_path / "README.md").read_text()
    assert "from `my-base`" in card and str(tmp_path) not in card
