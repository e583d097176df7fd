"""Which models of a study must not be compared, and why, from the run folders alone.

    why_not(Side(run_a, model_a), Side(run_b, model_b), "svamp")     # "" or "other test rows (300 against 200)"

Compared are models of one base that learned from the same problems and answered the same test rows. The baselines
st-matched and sft-matched claim the budget of the arm that they stand beside: as many samples, as many optimiser steps.
Against an arm that had another budget the claim is false, and the figures are not set against each other.
"""

from __future__ import annotations

import dataclasses
import re

from selftrain.report.account import data_facts
from selftrain.report.accuracy import Model
from selftrain.report.files import RunFiles

LEARNED_FROM = ("train", "unlabelled")


@dataclasses.dataclass(frozen=True)
class Side:
    """A model of a run."""

    run: RunFiles
    model: Model


def why_not(ours: Side, theirs: Side, test_set: str) -> str:
    """Why two models cannot be compared on a test set; empty where they can."""
    if ours.run is not theirs.run:
        rows, other_rows = (_questions(side.run, test_set) for side in (ours, theirs))
        if rows != other_rows:
            return f"other test rows ({len(rows):,} against {len(other_rows):,})"
        if ours.run.config.model != theirs.run.config.model:
            return f"another base model ({ours.run.config.model} against {theirs.run.config.model})"
        if _learned_from(ours.run) != _learned_from(theirs.run):
            return "other training data"
    return _other_budget(ours, theirs) or _other_budget(theirs, ours)


def samples_drawn(side: Side) -> int:
    """Completions that were sampled for training, up to this model."""
    found = re.match(r"(baseline-[^/]+/)?(\d+)-iteration", side.model.at)
    if found is None:
        return 0
    prefix, last = found[1] or "", int(found[2])
    stages = [f"{prefix}{n}-iteration/sample-for-{kind}" for n in range(1, last + 1) for kind in ("pairs", "labels")]
    if side.model.kind == "sampler":
        stages.pop()
    return sum(int(side.run.figures(stage).get("completions", 0)) for stage in stages)


def sft_steps(side: Side) -> int:
    """Optimiser steps of the SFT that made this model; 0 where none did."""
    return int(side.run.figures(f"{side.model.at}/sft").get("steps", 0))


def _questions(run: RunFiles, test_set: str) -> dict[str, str]:
    return {problem.id: problem.question for problem in run.problems(f"test-{test_set}")}


def _learned_from(run: RunFiles) -> list[object]:
    facts = data_facts(run)
    return [facts.get(role, {}).get("rows_sha256") for role in LEARNED_FROM]


def _other_budget(matched: Side, other: Side) -> str:
    """Whether `matched` claims a budget that it does not share with `other`, a model of a run's own method."""
    if other.model.kind != "iteration":
        return ""
    if matched.model.at.startswith("baseline-st-matched/"):
        what, budgets = "samples", (samples_drawn(matched), samples_drawn(other))
    elif matched.model.at.startswith("baseline-sft-matched/"):
        what, budgets = "optimiser steps", (sft_steps(matched), sft_steps(other))
    else:
        return ""
    return "" if budgets[0] == budgets[1] else f"other budget ({budgets[0]:,} {what} against {budgets[1]:,})"
