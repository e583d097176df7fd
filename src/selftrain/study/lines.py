"""Accuracy by iteration and against FLOPs: the models of an arm in the order in which they were made.

    lines_of(study, "svamp", runs, there, groups, 0.95, "google/flan-t5-base")
      -> [{"arm": "dpo-st", "points": [{"iteration": 0, "mean": {...}, "flops": 3.1e14, "runs": [...]}, ...]}, ...]

The warm-up model is iteration 0 of every arm that loops; an arm that does not is one point without an iteration.
FLOPs are those of all training and sampling that a model was made by, its warm-up included, evaluations left out, a
mean over the seeds. A stage that runs share was needed by each of them, so it counts in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.config import RunConfig
from selftrain.evidence import mean_over_seeds
from selftrain.report.accuracy import models_of
from selftrain.report.files import RunFiles
from selftrain.study.answers import Answer, answer_of, figures_of
from selftrain.study.comparable import flops_behind
from selftrain.study.spec import DELIVERED, Study, StudyArm, StudyRun

Json = dict[str, Any]


def lines_of(
    study: Study,
    test_set: str,
    runs: Sequence[StudyRun],
    there: Mapping[Path, RunFiles],
    groups: Mapping[str, str],
    confidence: float,
    base: str,
) -> list[Json]:
    """Each arm's models that have answered a test set, JSON-ready; `paper` is its figure for that base model, in %."""
    lines = []
    for name, arm in study.arms.items():
        own = study.runs_behind(name, runs)
        told = study.paper.get(base, {}).get(name, {}).get(test_set)
        points = []
        for iteration, key in model_keys(arm, own[0].config):
            answers = [answer_of(run, there.get(run.folder), key, test_set) for run in own]
            if found := [one for one in answers if one.verdicts]:
                paper = paper_figure(told, iteration)
                points.append({"iteration": iteration, "paper": paper, **_point(found, groups, confidence)})
        lines.append({"arm": name, "points": points})
    return lines


def model_keys(arm: StudyArm, config: RunConfig) -> list[tuple[int | None, str]]:
    """(iteration, model) of an arm's loop, from the warm-up model on; its one model where it does not loop."""
    kind, at = ("iteration", "") if arm.model == DELIVERED else ("baseline", f"baseline-{arm.model}/")
    loop = [
        model.key
        for model in models_of(config)
        if model.kind == kind and model.at.startswith(at) and model.at.endswith("-iteration")
    ]
    return [*enumerate(["warm-up", *loop])] if loop else [(None, arm.model)]


def paper_figure(told: float | list[float] | None, iteration: int | None = None) -> float | None:
    """The paper's accuracy, in %, of an iteration; None: of the arm's last model.

    >>> paper_figure([18.1, 24.6], 0), paper_figure([18.1, 24.6]), paper_figure(24.6), paper_figure(24.6, 1)
    (18.1, 24.6, 24.6, None)
    """
    if isinstance(told, list):
        last = len(told) - 1 if iteration is None else iteration
        return told[last] if last < len(told) else None
    return told if iteration is None else None


def _point(found: Sequence[Answer], groups: Mapping[str, str], confidence: float) -> Json:
    flops = [flops_behind(one.side) for one in found if one.side is not None]
    known = [one for one in flops if one is not None]
    return {
        "mean": figures_of(mean_over_seeds([one.verdicts or {} for one in found], groups, confidence)),
        "flops": sum(known) / len(known) if len(known) == len(flops) else None,
        "runs": [{"run": one.run.title, "stage": one.stage} for one in found],
    }
