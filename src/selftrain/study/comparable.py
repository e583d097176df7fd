"""Which models of a study must not be compared, and why, from the run folders alone.

    why_not(Side(run_a, model_a), Side(run_b, model_b), "svamp")     # "" or "other test rows (300 against 200)"

Compared are models of one base that learned from the same problems and answered the same test rows. The baselines
st-matched and sft-matched claim the budget of the arm that they stand beside: as many samples, as many optimiser steps.
Against an arm that had another budget the claim is false, and the figures are not set against each other.
"""

from __future__ import annotations

import dataclasses
import re

from selftrain.report.account import cost_results, data_facts
from selftrain.report.accuracy import Model
from selftrain.report.files import RunFiles

LEARNED_FROM = ("train", "unlabelled")
MADE_BY = ("sample-for-pairs", "dpo", "sample-for-labels", "sft")  # an iteration's model, in order


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


def stages_behind(model: Model) -> list[str]:
    """The stages that trained and sampled for a model, whichever of them its method has; its own is the last.

    >>> stages_behind(Model("sampler-1", "", "sampler", "1-iteration/sampler"))
    ['0-warmup/sft', '1-iteration/sample-for-pairs', '1-iteration/dpo']
    """
    found = re.match(r"(baseline-[^/]+/)?(\d+)-iteration", model.at)
    if found is None:
        return [f"{model.at}/sft"]
    at = [f"{found[1] or ''}{number}-iteration" for number in range(1, int(found[2]) + 1)]
    stages = ["0-warmup/sft", *(f"{folder}/{kind}" for folder in at for kind in MADE_BY)]
    return stages[:-2] if model.kind == "sampler" else stages


def samples_drawn(side: Side) -> int:
    """Completions that were sampled for training, up to this model."""
    return sum(int(side.run.figures(stage).get("completions", 0)) for stage in stages_behind(side.model))


def flops_behind(side: Side) -> int | None:
    """FLOPs of all training and sampling up to this model (cost.py); None where those of a stage are not known."""
    costs = {row["stage"]: row["flops"] for row in cost_results(side.run)["stages"]}
    found = [costs[stage] for stage in stages_behind(side.model) if stage in costs]
    return None if None in found else sum(found)


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
