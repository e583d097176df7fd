"""Right answers with a wrong step: the answer was judged right, and an annotation before it is not what it says.

    wrong_steps(completions)        -> StepCount(right=71, wrong_step=4)

A step is wrong where its expression can be computed and the result beside it is another number; rounding to two
decimals or more is none. With the calculator on there is next to none: what could be computed was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from selftrain.calculator.annotation import Annotation, find, value_of
from selftrain.judged import STRICT, is_right
from selftrain.records import Completion

LEAST_DECIMALS = 2


@dataclasses.dataclass(frozen=True)
class StepCount:
    """Answers that are right, and of them those with a wrong step."""

    right: int
    wrong_step: int


def wrong_steps(completions: Iterable[Completion], extraction: str = STRICT) -> StepCount:
    """Count the right answers, and those with a wrong step."""
    texts = [completion.text for completion in completions if is_right(completion, extraction)]
    return StepCount(len(texts), sum(any(map(is_wrong, find(text, "angle"))) for text in texts))


def is_wrong(step: Annotation) -> bool:
    """Whether an annotation's result is another number than its expression's value.

    >>> [is_wrong(step) for step in find("<<48/2=25>> <<10/3=3.33>> <<x+1=2>>", "angle")]
    [True, False, False]
    """
    value, result = step.value, value_of(step.result)
    if value is None or result is None:
        return False
    decimals = len(step.result.partition(".")[2])
    rounded = round(value, decimals) if decimals >= LEAST_DECIMALS else value
    return result not in (value, rounded)
