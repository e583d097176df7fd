"""Verifiers: is the answer in a text right? Each problem names its own; any text gets a `Verdict`.

    judge(problem, completions)          # with `strict` and `flexible` filled in
    verdicts(problem, text)              # the strict and the flexible verdict of one text

    numeric          numbers, by two extractors: strict (after `####`) and flexible (any model's free text)
    choice           options, A to Z
    symbolic         mathematics, by math-verify (extra `math`) in a process that is killed when it hangs
    MODULE:FUNCTION  your own, which alone may raise; see `custom`

None of it imports torch, and math-verify is imported by `symbolic`'s process alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from fractions import Fraction

from selftrain.errors import ConfigError, nearest
from selftrain.records import Completion, Problem, Verdict
from selftrain.verify import choice, custom, numeric, symbolic

Verifier = Callable[[Problem, str, Fraction], tuple[Verdict, Verdict]]

BUILT_IN: dict[str, Verifier] = {
    "numeric": numeric.verdicts,
    "choice": choice.verdicts,
    "symbolic": symbolic.verdicts,
}
_EXPECTED = {
    "numeric": "Answers must be numbers",
    "choice": "Answers must be letters, A to Z",
    "symbolic": "Answers must be expressions that math-verify can read",
}


@functools.cache
def open_verifier(name: str) -> Verifier:
    """The verifier of that name.

    Raises:
        ConfigError: there is none, its package is missing, or its module cannot be imported.
    """
    if name == "symbolic":
        symbolic.check_installed()
    if name in BUILT_IN:
        return BUILT_IN[name]
    if ":" in name:
        return custom.load(name)
    close = nearest(name, BUILT_IN)
    raise ConfigError(
        f"No verifier is called {name!r}; verifiers: {', '.join(BUILT_IN)}, or MODULE:FUNCTION.",
        f"Did you mean {close!r}?" if close else None,
    )


def expected_answers(name: str) -> str:
    """What a verifier's gold answers must be, for hints."""
    return _EXPECTED.get(name, f"Answers must be accepted by {name}")


def verdicts(problem: Problem, text: str, tolerance: Fraction = Fraction(0)) -> tuple[Verdict, Verdict]:
    """The strict and the flexible verdict of one text, by the verifier that the problem names.

    Args:
        problem: its `answer` is the gold; where it is of no use to the verifier, the verdicts' source is `NO_GOLD`.
        text: what a model (or the data) wrote.
        tolerance: `numeric`: a difference below it is right too.
    """
    return open_verifier(problem.verify)(problem, text, tolerance)


def judge(problem: Problem, completions: Sequence[Completion], tolerance: Fraction = Fraction(0)) -> list[Completion]:
    """All completions of one problem with `strict` and `flexible` filled in, in the given order."""
    judged = []
    for completion in completions:
        strict, flexible = verdicts(problem, completion.text, tolerance)
        judged.append(dataclasses.replace(completion, strict=strict, flexible=flexible))
    return judged
