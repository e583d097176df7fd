"""Completions to read: the same problem answered by two models, and where the calculator wrote.

    samples_to_read(run, "first", before, after)   # [{"change": "wrong to right", "question": ..., ...}, ...]

First come problems that the delivered model answers rightly and the warm-up model wrongly, and the other way
round; then, where there are too few, problems on which the two agree. Which ones is decided by a hash of their
ids, so nobody picks. Texts are pieces (text, forced): forced is what the calculator wrote, namely the result and
the closing of an annotation that could be computed. Long texts are cut after `MAX_CHARS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from selftrain.calculator.annotation import Style, find
from selftrain.calculator.expression import canonical
from selftrain.records import Completion, Problem
from selftrain.report.files import RunFiles
from selftrain.seeding import derive_seed

PER_CHANGE, IN_ALL = 6, 12
MAX_CHARS = 3000
CHANGES = ("wrong to right", "right to wrong", "wrong both times", "right both times")

Piece = tuple[str, bool]


def samples_to_read(run: RunFiles, test_set: str, before: str | None, after: str | None) -> list[dict[str, Any]]:
    """At most `IN_ALL` problems of a test set with what the models of two stages wrote.

    Args:
        before: evaluation stage of the first model; None or unfinished: nothing to show.
        after: of the second model; None or unfinished: the first alone is shown.
    """
    first = (run.evaluation(before) if before else None) or []
    second = (run.evaluation(after) if after else None) or []
    return choose(run.problems(f"test-{test_set}"), first, second)


def choose(
    problems: Sequence[Problem], before: Sequence[Completion], after: Sequence[Completion]
) -> list[dict[str, Any]]:
    """At most `IN_ALL` of the problems that both models answered; all that the first did where `after` is empty."""
    first, second = ({c.problem_id: c for c in completions} for completions in (before, after))
    common = [p for p in problems if p.id in first and (not second or p.id in second)]
    common.sort(key=lambda problem: derive_seed("samples to read", problem.id))
    rows = [_row(problem, first[problem.id], second.get(problem.id)) for problem in common]
    chosen: list[dict[str, Any]] = []
    for change in CHANGES:
        room = IN_ALL - len(chosen)
        if "both" in change:
            room = min(room, max(0, PER_CHANGE - len(chosen)))
        chosen += [row for row in rows if row["change"] == change][: min(PER_CHANGE, room)]
    return chosen


def _row(problem: Problem, before: Completion, after: Completion | None) -> dict[str, Any]:
    was, now = _is_right(before), _is_right(after or before)
    names = {(False, True): CHANGES[0], (True, False): CHANGES[1], (False, False): CHANGES[2], (True, True): CHANGES[3]}
    return {
        "problem_id": problem.id,
        "question": problem.question[:MAX_CHARS],
        "answer": problem.answer,
        "change": names[was, now],
        "before": _side(before),
        "after": None if after is None else _side(after),
    }


def _side(completion: Completion) -> dict[str, Any]:
    return {
        "pieces": marked(completion),
        "right": _is_right(completion),
        "found": None if completion.strict is None else completion.strict.extracted,
        "calls": completion.calls,
        "cut": completion.stop == "length" or len(completion.text) > MAX_CHARS,
    }


def _is_right(completion: Completion) -> bool:
    return completion.strict is not None and completion.strict.outcome == "right"


def marked(completion: Completion) -> list[Piece]:
    """The text in pieces, those that the calculator wrote marked.

    >>> marked(Completion("q", 0, (), "6*7=<<6*7=42>>42", "eos", forced=((4, 7),)))
    [('6*7=<<6*7=', False), ('42>>', True), ('42', False)]
    """
    text = completion.text[:MAX_CHARS]
    pieces: list[Piece] = []
    position = 0
    for start, end in _forced_spans(text) if completion.forced else []:
        pieces += [(text[position:start], False), (text[start:end], True)]
        position = end
    pieces.append((text[position:], False))
    return [piece for piece in pieces if piece[0]]


def _forced_spans(text: str) -> Sequence[tuple[int, int]]:
    """From the result to the end of each annotation that holds what the calculator writes."""
    styles: tuple[Style, Literal["bracket"]] = ("angle", "bracket")
    spans = []
    for style in styles:
        for annotation in find(text, style):
            value = annotation.value
            if value is not None and canonical(value) == annotation.result:
                start = text.index("=", annotation.start) + 1
                spans.append((start, annotation.end))
    return sorted(spans)
