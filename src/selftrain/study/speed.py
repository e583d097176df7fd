"""How fast the models of a study answered: tokens and answers a second of the stage that evaluated each.

    speed_of([answers of an arm])      -> {"tokens": 812.0, "answers": 9.1, "runs": [...]}

Seconds are a stage's wall time, loading the model included, so test sets should be large enough that it says little.
Tokens count those that the calculator wrote. Of use where the arms differ in how they decode (`sampling.slots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftrain.study.answers import Answer

Json = dict[str, Any]


def speed_of(answers: Sequence[Answer]) -> Json | None:
    """Means over the seeds; None where nothing is timed yet."""
    found = [speed for answer in answers if (speed := _speed(answer)) is not None]
    if not found:
        return None
    return {
        "tokens": sum(one["tokens"] for one in found) / len(found),
        "answers": sum(one["answers"] for one in found) / len(found),
        "runs": [{"run": one["run"], "stage": one["stage"]} for one in found],
    }


def _speed(answer: Answer) -> Json | None:
    if answer.side is None or answer.stage is None or not answer.side.run.is_done(answer.stage):
        return None
    seconds = float(answer.side.run.manifests[answer.stage]["seconds"])
    if seconds <= 0:
        return None
    tokens = sum(len(completion.token_ids) for completion in answer.completions)
    return {
        "run": answer.run.title, "stage": answer.stage, "tokens": tokens / seconds,
        "answers": len(answer.completions) / seconds,
    }  # fmt: skip
