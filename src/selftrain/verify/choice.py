r"""Options: is the letter that a text ends in the gold letter, A to Z?

    strict_choice("So it is the second.\n#### (B)")   -> "B"
    flexible_choice("The answer is B, not C.")         -> "B"

strict    What stands after the last `####`, to the end of the text, is one option: a letter alone or in brackets, or
          with `)`, `.` or `:` after it, and then perhaps the option's text on the same line ("B) 42 pens").
flexible  The strict answer if there is one; else an option that begins the line after the last `####`, the last
          `\boxed{}`, or what follows the last "answer is" ("answer:"); else the last letter that stands alone: in
          brackets, or a capital that is neither part of an equation nor a word ("A pen", "I think").

"A and C" is no answer. Lower case counts where the letter is alone or in brackets.
tests/golden/choice_vectors.json lists what is made of which text. Leaves out: options named by their text, several
right options, and how many options a question has.
"""

from __future__ import annotations

import re
from fractions import Fraction

from selftrain.records import NO_GOLD, Problem, Verdict
from selftrain.verify.extract import MAX_ANSWER_CHARS, after_mark, answer_lines, last_boxed, marked_line, own_part
from selftrain.verify.numeric import MARK

_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]{0,200})\}")
_SIGNS = str.maketrans("", "", "*$`")
_NAME = r"(?:(?i:option|choice)\s)?"
_BRACKETED = r"\(([A-Za-z])\)|\[([A-Za-z])\]"
_WHOLE = re.compile(rf"{_NAME}(?:(?:{_BRACKETED})[.:]?(?:[ \t].*)?|([A-Za-z])(?:[).:](?:[ \t].*)?)?)")
_OPENING = re.compile(rf"{_NAME}(?:{_BRACKETED}|([A-Z])(?![A-Za-z0-9_'\u2019-]))")
_ANOTHER = re.compile(
    r"[).\]]?(?:,?\s{0,3}(?:and|or|&|/)\s{0,3}[(\[]?[A-HJ-Z](?![A-Za-z0-9_'\u2019])"
    r"|,\s{0,3}[(\[]?[A-Z][)\]]?\s{0,3}(?:[.,;]|and\b|or\b|\Z))"
)
_STANDING = re.compile(
    rf"{_BRACKETED}|(?<![A-Za-z0-9_'\u2019\\-])(?<![=+*/^])(?<![=+*/^] )([A-Z])(?![A-Za-z0-9_'\u2019-])(?! ?[=+*/^<>])"
)
_WORD_FOLLOWS = re.compile(r"[ \t]+(?!is\b|because\b|since\b)[a-z]")


def strict_choice(text: str) -> str | None:
    """The option that is all that stands after the last `####`, as a capital.

    >>> strict_choice("#### (b)"), strict_choice("#### B) 42 pens"), strict_choice("#### B or C"), strict_choice("B")
    ('B', 'B', None, None)
    """
    marked = after_mark(text)
    return None if marked is None else parse_choice(marked)


def flexible_choice(text: str) -> str | None:
    """The option that a free text gives as its answer, as a capital; see the module's rules.

    >>> flexible_choice("The answer is (C)."), flexible_choice("I take B"), flexible_choice("I think so")
    ('C', 'B', None)
    """
    strict = strict_choice(text)
    if strict is not None:
        return strict
    tail = own_part(text)
    for line in (marked_line(tail), last_boxed(tail), *answer_lines(tail)):
        found = _opening(line) if line else None
        if found is not None:
            return found or None
    return _last_standing(tail)


def parse_choice(text: str) -> str | None:
    """The capital of a text that is one option and nothing else; None for any other text.

    >>> parse_choice("B."), parse_choice("**(b)**"), parse_choice("D: none"), parse_choice("Bob"), parse_choice("7")
    ('B', 'B', 'D', None, None)
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    plain = _plain(text).strip()
    match = _WHOLE.fullmatch(plain)
    if match is None or _ANOTHER.match(plain, match.end(match.lastindex or 0)) is not None:
        return None
    return _letter(match)


def verdicts(problem: Problem, text: str, tolerance: Fraction) -> tuple[Verdict, Verdict]:
    """The strict and the flexible verdict of one text."""
    gold = None if problem.answer is None else parse_choice(problem.answer)
    no_mark = f"what follows {MARK} is not an option" if MARK in text else f"no {MARK}"
    strict = _verdict(problem, gold, strict_choice(text), no_mark)
    return strict, _verdict(problem, gold, flexible_choice(text), "no option found")


def _verdict(problem: Problem, gold: str | None, found: str | None, why_none: str) -> Verdict:
    if gold is None:
        reason = "no gold answer" if problem.answer is None else "the gold answer is not a letter"
        return Verdict("unparsed", found, reason, source=NO_GOLD)
    if found is None:
        return Verdict("unparsed", None, why_none)
    return Verdict("right", found) if found == gold else Verdict("wrong", found, f"expected {gold}")


def _opening(line: str) -> str | None:
    """The option that a line begins with; an empty text where another one is joined to it."""
    plain = _plain(line).strip()
    match = _WHOLE.fullmatch(plain) or _OPENING.match(plain)
    if match is None:
        return None
    return "" if _ANOTHER.match(plain, match.end(match.lastindex or 0)) is not None else _letter(match)


def _last_standing(text: str) -> str | None:
    """The last letter that stands for an option."""
    plain, found = _plain(text), None
    for match in _STANDING.finditer(plain):
        is_word = match[3] in ("A", "I") and _WORD_FOLLOWS.match(plain, match.end()) is not None
        found = found if is_word else _letter(match)
    return found


def _letter(match: re.Match[str]) -> str:
    return (match[1] or match[2] or match[3]).upper()


def _plain(text: str) -> str:
    """A text without the signs that only set it off: LaTeX's fonts, stars, dollars, backticks."""
    return _WRAPPED.sub(r"\1", text).translate(_SIGNS)
