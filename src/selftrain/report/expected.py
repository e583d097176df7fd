"""The stages that a configuration asks for, in the order in which they run.

    list(expected_stages(config))
    stages_beyond(config, "1-iteration/pair")      # what `selftrain run --until 1-iteration/pair` does not begin

An iteration without pairs, one whose DPO the guard turned down at once, or a patient run has fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

from selftrain.config import RunConfig
from selftrain.errors import ConfigError, nearest
from selftrain.judged import BROUGHT
from selftrain.report.accuracy import Model, models_of


def expected_stages(config: RunConfig) -> Iterator[str]:
    """Every stage of a run of this configuration."""
    sets = [spec.label for spec in config.data.test]
    models = models_of(config)
    yield "data"
    if config.data.samples is not None:
        yield BROUGHT
    for model in models:
        if model.kind != "baseline":
            yield from _stages_of(model, config)
    if sets and config.evaluation.without_calculator_rows:
        yield from (f"{place}/evaluate-without-calculator/{sets[0]}" for place in ("0-base", "final"))
    for model in models:
        if model.kind == "baseline":
            yield from _stages_of(model, config)


def _stages_of(model: Model, config: RunConfig) -> Iterator[str]:
    """What makes a model, its evaluations, and its validation where one decides something."""
    sets = [spec.label for spec in config.data.test]
    made_by: tuple[str, ...] = ("sample-for-labels", "select", "sft")
    if model.kind == "sampler":
        made_by = ("sample-for-pairs", "pair", "dpo")
    elif model.kind == "warm-up":
        made_by = ("select",) if config.warmup_model is not None else ("select", "sft")
    elif model.key == "sft-matched":
        made_by = ("sft",)
    elif model.kind == "base":
        made_by = ()
    folder = model.at.removesuffix("/sampler")
    yield from (f"{folder}/{kind}" for kind in made_by)
    yield from (model.stage(name) for name in (sets[:1] if model.kind in ("base", "sampler") else sets))
    if config.data.validation is not None and folder.endswith("-iteration"):
        compared = ("start/", "sampler/") if model.kind == "sampler" else ("",)
        yield from (f"{folder}/{place}validate" for place in compared)


def stages_beyond(config: RunConfig, until: str) -> frozenset[str]:
    """The stages after `until`: a stage, or a folder of stages as far as these follow each other.

    Raises:
        ConfigError: no stage of that name, with those that there are.
    """
    stages = list(expected_stages(config))
    wanted = until.rstrip("/")
    named = [stage == wanted or stage.startswith(f"{wanted}/") for stage in stages]
    if not any(named):
        close = nearest(wanted, stages)
        raise ConfigError(
            f"--until: this run has no stage {until!r}; stages: {', '.join(stages)}.",
            f"Did you mean {close!r}?" if close else None,
        )
    first = named.index(True)
    last = named.index(False, first) if False in named[first:] else len(stages)
    return frozenset(stages[last:])
