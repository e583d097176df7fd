"""The card of a delivered model, its `README.md`: how to run it, how good it is, what it was made from.

    write_card(Path("runs/quickstart/model"), results)       # as results.json has them

Written where a model is delivered, from what is known by then, and again when the run ends. It travels with the model,
so it names no file and no folder that lies elsewhere. Names from the configuration and the data are escaped: no page
that shows the card turns them into markup, and the front matter takes nothing of them but a hub name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain import __version__, durable
from selftrain.card import CARD_FILE, SETTINGS
from selftrain.config import RunConfig
from selftrain.data.licences import NOT_KNOWN, licence_of
from selftrain.identity import identity
from selftrain.models import config_is_encoder_decoder
from selftrain.report.markdown import escaped, lineage_lines
from selftrain.report.wording import count, interval, percent, shown, visible
from selftrain.stagefolder import digest_of, read_json
from selftrain.userpath import user_path
from selftrain.weights import SMOLLM2, SMOLLM2_REPO

Json = Mapping[str, Any]
USES = {"train": "trained on", "unlabelled": "sampled and trained on", "validation": "decisions of the run"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")

SNIPPET = """\
from pathlib import Path

import torch
from transformers import {auto}, AutoTokenizer

from selftrain import CalculatorLogitsProcessor
from selftrain.card import read_settings
from selftrain.prompts import Codec

folder = "THIS_FOLDER"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto}.from_pretrained(folder)
prompt, max_new_tokens = read_settings(Path(folder))
codec = Codec.build(tokenizer, prompt, encoder_decoder={encoder_decoder})
ids = torch.tensor([codec.prompt("A box holds 7 pens. How many pens are in 6 boxes?")])
calculator = CalculatorLogitsProcessor(tokenizer, prompt_tokens={before}, style=codec.style)
out = model.generate(
    ids, attention_mask=torch.ones_like(ids), logits_processor=[calculator], do_sample=False,
    max_new_tokens=max_new_tokens, eos_token_id=codec.eos_id, pad_token_id=codec.eos_id,
)
print(codec.text(out[0, {before}:].tolist()))"""


def write_card(folder: Path, results: Json, digest: str | None = None) -> None:
    """Write the card into a delivered model's folder, whole or not at all; nothing where there is no such model.

    Args:
        results: as `collect` gives them, of a finished run or not.
        digest: of the model's weights; default: of those that the run has delivered.
    """
    digest = digest or (results["run"]["delivered"] or {}).get("digest")
    settings = read_json(folder / SETTINGS)
    if digest is None or not isinstance(settings, dict):
        return
    trust = bool(results["run"]["config"]["compute"]["trust_remote_code"])
    text = card_text(results, digest, settings.get("annotation", "angle"), config_is_encoder_decoder(folder, trust))
    durable.write(folder / CARD_FILE, text.encode("utf-8", errors="replace"))


def card_text(results: Json, digest: str, style: str, encoder_decoder: bool) -> str:
    """The card of the model with these weights."""
    config = RunConfig.model_validate(results["run"]["config"])
    base = _named(config.model)
    lines = [
        *_front_matter(config.model, encoder_decoder),
        f"# {escaped(config.name)}",
        "",
        f"Trained by selftrain {__version__} from {base}, method `{config.method}`, seed {config.seed}.",
        "",
        *_how_to_run(config, style, encoder_decoder),
        *_figures(results),
        *_data(results, config),
        *_lineage(results, config, digest),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(model: str, encoder_decoder: bool) -> Iterator[str]:
    base = {SMOLLM2: SMOLLM2_REPO}.get(model, model)
    yield "---"
    if _HUB_NAME.fullmatch(base) and not user_path(model).is_dir():
        yield f"base_model: {json.dumps(base)}"
    yield "library_name: transformers"
    yield f"pipeline_tag: {'text2text-generation' if encoder_decoder else 'text-generation'}"
    yield "tags: [selftrain, math, calculator]"
    yield "---"


def _named(model: str) -> str:
    """A model's name as others may read it: of a local folder the last part, since cards travel and folders do not."""
    folder = user_path(model)
    is_path = folder.is_dir() or folder.is_absolute() or model.startswith(".")
    return escaped(folder.resolve().name if is_path else model)


def _how_to_run(config: RunConfig, style: str, encoder_decoder: bool) -> Iterator[str]:
    annotation = "<<6*7=42>>" if style == "angle" else "[ 6 * 7 = 42 ]"
    within = "" if config.prompt.chat_template is None else ", as the user's message of its chat template"
    yield from ("## How to run it", "", f"It answers this prompt{within}:", "")
    yield from (f"    {line}" for line in visible(config.prompt.template).split("\n"))
    yield from (
        "",
        f"and writes calculations as `{annotation}`. **The result inside must be computed for it while it decodes**:",
        "without the calculator it is much worse. With selftrain:",
        "",
        '    selftrain ask THIS_FOLDER "your question"',
        "    selftrain evaluate THIS_FOLDER --data problems.jsonl",
        "",
        "or, in Python, with the calculator in transformers' own `generate`:",
        "",
        "```python",
    )
    auto, before = ("Seq2SeqLM", "1") if encoder_decoder else ("CausalLM", "ids.shape[1]")
    yield SNIPPET.format(auto=f"AutoModelFor{auto}", encoder_decoder=encoder_decoder, before=before)
    yield from ("```", "")


def _figures(results: Json) -> Iterator[str]:
    yield from ("## How good it is", "")
    rows = [(found, row) for found in results["test_sets"] for row in found["models"] if row["accuracy"] is not None]
    if not results["run"]["finished"]:
        yield from ("The run had not come to its end when this was written: the figures are those so far.", "")
    if not rows:
        yield from ("It was not tested.", "")
        return
    yield from (escaped(results["headline"]["sentence"]), "")
    yield "| test set | model | right, % | interval | problems |"
    yield "|---|---|--:|--:|--:|"
    for found, row in rows:
        yield (
            f"| {escaped(found['name'])} | {escaped(shown(row))} | {percent(row['accuracy'])} "
            f"| {interval(row['accuracy'])} ({100 * found['confidence']:g} %) | {count(row['accuracy']['rows'])} |"
        )
    yield ""
    for found in results["test_sets"]:
        for row in found["without_calculator"]:
            yield (
                f"- {escaped(found['name'])}, {escaped(shown(row))}, the same {row['rows']} problems: "
                f"{percent(row['with'])} % with the calculator, {percent(row['without'])} % without."
            )
    yield from ("", "Greedy answers. On problems unlike these nothing is known of it.", "")


def _data(results: Json, config: RunConfig) -> Iterator[str]:
    yield from ("## Data and licences", "")
    yield "| set | used for | source | problems | licence of the source | SHA-256 of the problems |"
    yield "|---|---|---|--:|---|---|"
    for name, found in results["data"].items():
        source = str(found["source"])
        if not found["rows"]:
            continue
        yield (
            f"| {escaped(name)} | {USES.get(name, 'test')} | {_source(source)} | {count(found['rows'])} "
            f"| {licence_of(source)} | `{str(found['rows_sha256'])[:64]}` |"
        )
    if brought := results.get("brought"):
        yield (
            f"| answers made elsewhere | trained on | a file | {count(brought['rows'])} | {NOT_KNOWN} "
            f"| `{str(brought['sha256'])[:64]}` |"
        )
    bases = [_named(config.model), *([_named(config.warmup_model)] if config.warmup_model else [])]
    yield from (
        "",
        "Licences as the sets' authors state them; a file is taken to be a copy of the set that it was named after.",
        f"They apply to what is derived from the problems. The weights come from {' and '.join(bases)}:",
        "its licence applies to this model too.",
        "",
    )


def _source(source: str) -> str:
    return "a file" if source == "file" else escaped(source)


def _lineage(results: Json, config: RunConfig, digest: str) -> Iterator[str]:
    yield from ("## Lineage", "")
    yield "| | SHA-256 |"
    yield "|---|---|"
    yield f"| weights of the base model | `{results['run']['weights']}` |"
    yield f"| configuration | `{digest_of(identity(config))}` |"
    yield f"| weights of this model | `{digest}` |"
    yield from (
        "",
        "Weights: over the safetensors files. Problems: in the table above. How the weights came about:",
        "",
    )
    yield from lineage_lines(results["lineage"])
