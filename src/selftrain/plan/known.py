"""What selftrain knows of the models and sets of its recipes without fetching them: shapes and sizes, from known.json.

    counts = completed(count(config), config)        # with the shape and the sets that are known, and notes that say so
    shape = known_shape("Qwen/Qwen3-0.6B-Base")      # a transformers config; None for a model of no recipe
    sets = known_sets(config)                        # SetCounts; None where one of them is not known

Shapes are those of the config.json that each model's owner published (fields that change neither memory nor FLOPs are
left out). Sizes of sets are rows, mean and longest question, and mean rationale, the last three in pieces as counts.py
counts them. GSM8K's training rows, ASDiv and SVAMP were counted in the real files. GSM8K's test set (1,319 rows) is
taken to be as long as the paper's validation set, MultiArith (600 rows) as SVAMP: both have 31.8 words a question
(Kojima et al. 2022, table 7). Rows that a limit on tokens would leave out are counted.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

from selftrain.config import DataSpec, RunConfig
from selftrain.plan.counts import PIECES, Counts, SetCount, SetCounts


class Size(NamedTuple):
    """Of a set: rows; pieces of a mean question, of the longest, and of a mean rationale with its end (0: none)."""

    rows: int
    question: float
    longest: int
    rationale: float


def completed(counts: Counts, config: RunConfig) -> Counts:
    """With what is known of what is not here, and a note on each."""
    model, sets, notes = counts.model, counts.sets, list(counts.notes)
    if model is None:
        model = known_shape(config.model)
        notes.append(
            "parameters, FLOPs, time and memory are unknown" if model is None else
            f"parameters, FLOPs, memory and disk are counted from the shape of {config.model} that selftrain brings"
        )  # fmt: skip
    if sets is None:
        sets = known_sets(config)
        if sets is not None:
            notes.append("rows and mean lengths of the sets are those that selftrain brings: about right, never exact")
    return Counts(sets, model, tuple(notes))


def known_shape(model: str) -> Any | None:
    """The transformers config of a recipe's model, of the fields that count."""
    from transformers import AutoConfig

    fields = _known()["models"].get(model)
    return None if fields is None else AutoConfig.for_model(**fields)


def known_sets(config: RunConfig) -> SetCounts | None:
    """The sets of a run by their known sizes; None where one of them is not known, or only parts of it are taken."""
    data = config.data
    specs = [data.train, data.unlabelled, data.validation, *data.test]
    sizes = [Size(0, 0.0, 0, 0.0) if spec is None else _size(spec) for spec in specs]
    template = len(PIECES.findall(config.prompt.template.replace("{question}", " ")))
    counted = [None if size is None else _counted(size, template) for size in sizes]
    known = [one for one in counted if one is not None]
    if len(known) < len(counted):
        return None
    train, unlabelled, validation, *tests = known
    named = {spec.label: found for spec, found in zip(data.test, tests, strict=True)}
    return SetCounts(train, unlabelled, validation, named, 0.0)


def _size(spec: DataSpec) -> Size | None:
    """Of what a spec takes."""
    if spec.groups or spec.group_split or spec.max_tokens or spec.max_prompt_tokens or spec.params:
        return None
    name = f"{spec.source} {spec.split}" if spec.split else spec.source
    if spec.source == "gsm8k" and not spec.split:
        name = "gsm8k train"
    if spec.source == "asdiv" and spec.rationales:
        name = "asdiv with formulas"
    found = _known()["sets"].get(name)
    if found is None:
        return None
    size = Size(*found)
    rows = max(0, size.rows - spec.skip)
    return size._replace(
        rows=rows if spec.take is None else min(rows, spec.take), rationale=size.rationale if spec.rationales else 0.0
    )


def _counted(size: Size, template: int) -> SetCount:
    """As many rows as it has, all of mean length but for the longest question."""
    if not size.rows:
        return SetCount()
    prompts = (template + size.longest, *[template + round(size.question)] * (size.rows - 1))
    return SetCount(prompts, (round(size.rationale),) * size.rows, prompts)


@functools.cache
def _known() -> dict[str, dict[str, Any]]:
    text = resources.files("selftrain.plan").joinpath("known.json").read_text("utf-8")
    return dict(json.loads(text))
