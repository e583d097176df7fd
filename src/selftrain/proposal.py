r"""Which verifier fits a file's answers, by how they are written; two writings in one file are refused.

    propose([("line 1", "2+2=4\n#### 4"), ("line 2", "2+3=5\n#### 5")])
    # Proposal(verify="numeric", last_number=False, counts={"number after ####": 2}, ...)

Writings that one verifier reads go together: numbers, letters and formulas are all mathematics where at least one
formula is among them. Leaves out: whether the verifier accepts each answer (`data.gold` proves that).
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping

from selftrain.errors import DataError
from selftrain.verify.extract import after_mark
from selftrain.verify.formats import BOXED, answer_format, formats_text
from selftrain.verify.numeric import MARK

FORMULA = "formula"
FREE = "text with a number"
MAX_FORMULA_CHARS = 200
VERIFIERS = "numeric, choice, symbolic, or your own MODULE:FUNCTION"
_READABLE = {"number": "numeric", "letter": "choice", FORMULA: "symbolic"}
_COMMAND = re.compile(r"\\(?:text|mathrm|mbox)\{[^{}]*\}|\\[A-Za-z]+")


@dataclasses.dataclass(frozen=True)
class Proposal:
    """The verifier, whether answers are the last number of a text, writing -> rows, and the reason in words."""

    verify: str
    last_number: bool
    counts: Mapping[str, int]
    reason: str


def propose(answers: Iterable[tuple[str, str]]) -> Proposal:
    """The verifier for answers, each with the place that it stands at.

    Raises:
        DataError: answers of two writings that no one verifier reads, or of one that none does.
    """
    places: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for place, text in answers:
        places[writing(text)].append(place)
    counts = {_name(key): len(found) for key, found in sorted(places.items(), key=lambda item: -len(item[1]))}
    marks = {mark for mark, _ in places}
    kinds = {kind for _, kind in places}
    if len(marks) > 1 or (len(kinds) > 1 and not (FORMULA in kinds and kinds <= _READABLE.keys())):
        rare = min(places, key=lambda key: len(places[key]))
        raise DataError(
            f"{len(places)} ways of writing answers in one file: {formats_text(counts)}; the first {_name(rare)} "
            f"stands at {places[rare][0]}.",
            f"Write them all one way, or split the file; if one verifier does read them all, name it: --verify "
            f"({VERIFIERS}).",
        )
    return _of_one_writing(marks.pop(), kinds, counts)


def writing(text: str) -> tuple[str, str]:
    r"""The mark before an answer ("####", "\boxed" or none), and what the answer is.

    >>> writing("2+2=4\n#### 4"), writing("(B)"), writing("\\frac{1}{2}"), writing("So \\boxed{7}.")
    (('####', 'number'), ('', 'letter'), ('', 'formula'), ('\\boxed', 'formula'))
    """
    marked = after_mark(text)
    answer = text.strip() if marked is None else marked
    kind = answer_format(answer)
    if marked is None and kind == BOXED:
        return BOXED, FORMULA
    if kind not in _READABLE and _is_formula(answer):
        kind = FORMULA
    return MARK if marked is not None else "", kind


def _is_formula(text: str) -> bool:
    """Whether a short text holds no word: no three letters in a row but in commands."""
    plain = _COMMAND.sub(" ", text)
    return 0 < len(text) <= MAX_FORMULA_CHARS and "\n" not in text and re.search(r"[A-Za-z]{3}", plain) is None


def _name(key: tuple[str, str]) -> str:
    mark, kind = key
    return BOXED if mark == BOXED else f"{kind} after {mark}" if mark else kind


def _of_one_writing(mark: str, kinds: set[str], counts: Mapping[str, int]) -> Proposal:
    if kinds <= _READABLE.keys():
        verify = "symbolic" if FORMULA in kinds else _READABLE[min(kinds)]
        return Proposal(verify, False, counts, f"answers are written as: {formats_text(counts)}")
    if kinds == {FREE} and not mark:
        reason = f"answers are written as: {formats_text(counts)}; the last number of each is its answer"
        return Proposal("numeric", True, counts, reason)
    raise DataError(
        f"answers that no verifier reads: {formats_text(counts)}.",
        f"Answers must be numbers, letters or formulas. If one verifier does read them, name it: --verify "
        f"({VERIFIERS}).",
    )
