"""What an arm's model answered on a test set, read from the folder of its run.

    found = answer_of(run, files, "delivered", "svamp")
    found.verdicts, found.stage, found.side

Used by collect.py and by what counts further things of the same answers (lines.py, steps.py, speed.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from selftrain.evidence import OverSeeds
from selftrain.judged import right_by_problem
from selftrain.records import Completion
from selftrain.report.accuracy import Model, delivered_model, models_of
from selftrain.report.files import RunFiles
from selftrain.study.comparable import Side
from selftrain.study.spec import DELIVERED, WITHOUT, StudyRun

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What an arm's model answered on a test set at one seed; `side` and `verdicts` are None where it has not."""

    run: StudyRun
    side: Side | None = None
    stage: str | None = None
    completions: Sequence[Completion] = ()
    verdicts: dict[str, bool] | None = None


def answer_of(run: StudyRun, files: RunFiles | None, key: str, test_set: str) -> Answer:
    """The answers of a run's model, `key` as an arm names it."""
    model = _model(files, key) if files is not None and test_set in files.test_sets else None
    if files is None or model is None:
        return Answer(run)
    stage = f"final/evaluate-without-calculator/{test_set}" if key == WITHOUT else model.stage(test_set)
    completions = files.evaluation(stage) or []
    verdicts = right_by_problem(completions, model.extraction) if completions else None
    return Answer(run, Side(files, model), stage, completions, verdicts)


def _model(files: RunFiles, key: str) -> Model | None:
    models = models_of(files.config)
    if key in (DELIVERED, WITHOUT):
        return delivered_model(files, models)
    return next((model for model in models if model.key == key), None)


def figures_of(found: OverSeeds) -> Json:
    """A mean over seeds, JSON-ready."""
    return {
        "value": found.value, "low": found.low, "high": found.high, "rows": found.num, "by_seed": list(found.by_seed),
        "seed_error": found.seed_error,
    }  # fmt: skip
