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
from selftrain.verify.extract import after_mark, last_boxed
from selftrain.verify.formats import BOXED, answer_format, formats_text
from selftrain.verify.numeric import MARK, parse_number

FORMULA = "formula"
FREE = "text with a number"
MAX_FORMULA_CHARS = 200
SHOWN_CHARS = 60
NUMBER = "number"
_READABLE = {NUMBER: "numeric", "letter": "choice", FORMULA: "symbolic"}
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
        places[writing(text)].append(f"{place} ({_shown(text)})")
    counts = {_name(key): len(found) for key, found in sorted(places.items(), key=lambda item: -len(item[1]))}
    marks = {mark for mark, _ in places}
    kinds = {kind for _, kind in places}
    if len(marks) > 1 or (len(kinds) > 1 and _reads(kinds) is None):
        rare = min(places, key=lambda key: len(places[key]))
        raise DataError(
            f"{len(places)} ways of writing answers in one file: {formats_text(counts)}; the first {_name(rare)} "
            f"stands at {places[rare][0]}.",
            _way_out(marks, kinds),
        )
    found = _of_one_writing(marks.pop(), kinds, counts)
    if found.verify != "symbolic":
        return found
    first = next(found[0] for key, found in places.items() if key[1] == FORMULA)
    return dataclasses.replace(found, reason=f"{found.reason}; the first formula stands at {first}")


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
    short = 0 < len(text) <= MAX_FORMULA_CHARS and "\n" not in text
    return short and re.search(r"[A-Za-z]{3}", plain) is None and not _has_unit(text)


def _has_unit(text: str) -> bool:
    """Whether a text is a number and a unit of two letters or more, such as "24 km/h"."""
    number, _, unit = text.strip().rpartition(" ")
    return parse_number(number) is not None and re.match(r"(?!pi\b)[A-Za-z]{2}", unit) is not None


def _shown(text: str) -> str:
    """What stands in the place of the answer, cut."""
    return repr((after_mark(text) or last_boxed(text) or text).strip()[:SHOWN_CHARS])


def _name(key: tuple[str, str]) -> str:
    mark, kind = key
    return BOXED if mark == BOXED else f"{kind} after {mark}" if mark else kind


def _of_one_writing(mark: str, kinds: set[str], counts: Mapping[str, int]) -> Proposal:
    verify = _reads(kinds)
    if verify is not None:
        return Proposal(verify, False, counts, f"answers are written as: {formats_text(counts)}")
    if kinds == {FREE} and not mark:
        reason = f"answers are written as: {formats_text(counts)}; the last number of each is its answer"
        return Proposal("numeric", True, counts, reason)
    raise DataError(f"answers that no verifier reads: {formats_text(counts)}.", _way_out({mark}, kinds))


def _reads(kinds: set[str]) -> str | None:
    """The built-in verifier that reads answers of all these kinds."""
    if FORMULA in kinds:
        return "symbolic" if kinds <= _READABLE.keys() else None
    return _READABLE.get(min(kinds)) if len(kinds) == 1 else None


def _way_out(marks: set[str], kinds: set[str]) -> str:
    """What to do about answers of several writings, or of one that no verifier reads."""
    verify = _reads(kinds)
    if verify is not None:
        return f"Write them all one way, or name the verifier that reads them all: --verify {verify}."
    if kinds <= {NUMBER, FREE}:
        last = " If the last number of each is its answer: --field worked=COLUMN." if marks == {""} else ""
        return f"Write the numbers alone, without units or words (24, not 24 apples).{last}"
    return (
        "Write them all as numbers, as letters or as formulas. A verifier of your own may read others: --verify "
        "MODULE:FUNCTION."
    )
