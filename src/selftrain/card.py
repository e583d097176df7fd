"""How a delivered model is asked: `selftrain.json`, which lies beside its weights. Its card: report/card.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftrain.config import PromptConfig, RunConfig
from selftrain.errors import ModelError
from selftrain.stagefolder import read_json, write_json

SETTINGS = "selftrain.json"
CARD_FILE = "README.md"
DEFAULT_MAX_NEW_TOKENS = 300


def write_settings(folder: Path, config: RunConfig, style: str) -> None:
    """Write how the model is asked, and how it writes calculations ("angle" or "bracket"), into its folder."""
    prompt = config.prompt.model_dump()
    write_json(
        folder / SETTINGS, {"prompt": prompt, "max_new_tokens": config.sampling.max_new_tokens, "annotation": style}
    )


def read_settings(folder: Path) -> tuple[PromptConfig, int]:
    """How to ask the model in a folder: prompt settings and the most tokens of an answer; defaults where none are told.

    Raises:
        ModelError: a selftrain.json that selftrain did not write.
    """
    saved: dict[str, Any] = read_json(folder / SETTINGS) or {}
    try:
        prompt = PromptConfig.model_validate(saved.get("prompt", {}))
        return prompt, int(saved.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS))
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / SETTINGS}: not settings that selftrain wrote ({error}).") from error
