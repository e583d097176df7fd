"""What a delivered model carries beside its weights: how to ask it (`selftrain.json`) and a card (`README.md`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftrain import __version__
from selftrain.config import PromptConfig, RunConfig
from selftrain.errors import ModelError
from selftrain.stagefolder import read_json, write_json
from selftrain.userpath import user_path

SETTINGS = "selftrain.json"
CARD_FILE = "README.md"
DEFAULT_MAX_NEW_TOKENS = 300

CARD = """\
---
library_name: transformers
tags: [selftrain, math, calculator]
---
# {name}

Trained by selftrain {version} from `{model}` with method `{method}` (recipe `{name}`, seed {seed}).
Weights (SHA-256 over the safetensors files): `{digest}`.

It answers this prompt:

    {template}

and writes calculations as {annotation}. **The result inside must be computed for it while it decodes**: without the
calculator it is much worse. With it:

    selftrain ask THIS_FOLDER "your question"
    selftrain evaluate THIS_FOLDER --data problems.jsonl

Accuracy, intervals and what it was trained on: `results.json` and `report.html` of its run folder. Training data, by
source: {sources}. Their licences apply to what is derived from them.
"""


def write_card(folder: Path, config: RunConfig, digest: str, style: str) -> None:
    """Write both files into a model's folder."""
    write_json(
        folder / SETTINGS, {"prompt": config.prompt.model_dump(), "max_new_tokens": config.sampling.max_new_tokens}
    )
    specs = [config.data.train, *([config.data.unlabelled] if config.data.unlabelled else [])]
    sources = [*(spec.source for spec in specs), *(["samples made elsewhere"] if config.data.samples else [])]
    text = CARD.format(
        name=config.name,
        version=__version__,
        model=_public_name(config.model),
        method=config.method,
        seed=config.seed,
        digest=digest,
        template=config.prompt.template.replace("\n", "\n    "),
        annotation="`<<6*7=42>>`" if style == "angle" else "`[ 6 * 7 = 42 ]`",
        sources=", ".join(dict.fromkeys(sources)),
    )
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def _public_name(model: str) -> str:
    """A model's name as others may read it: of a local folder the last part, since cards travel and folders do not."""
    folder = user_path(model)
    return folder.resolve().name if folder.is_dir() else model


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
