r"""Mathematics: is the expression that a text ends in equal to the gold answer? By math-verify (extra `math`).

    strict_expression("so \boxed{\frac{1}{2}}")          -> "\frac{1}{2}"
    flexible_expression("The answer is $0.5$.")          -> "0.5"
    verdicts(problem, text, Fraction(0))                 -> (Verdict("right", ...), Verdict("right", ...))

strict    What stands after the last `####`, on one line, to the end of the text; without a `####` the last `\boxed{}`.
flexible  The strict answer if there is one; else the first line after the last `####`; else what follows the last
          "answer is" ("answer:"): a number, or what stands in dollars, `\( \)` or `\[ \]`; else the last thing that
          stands so; else the last number (`numeric.flexible_answer`).

Finding the answer is done here, with bounds on characters. Comparing it is done by math-verify in a process of its own
(`worker`), since computer algebra can hang: one that gives no answer within `LIMIT_S` is killed, and the verdict is
`timeout`, which is neither right nor wrong; so it is where that process ends by itself, with that as its reason.
Leaves out: several answers, units, words.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from fractions import Fraction

from selftrain.errors import ConfigError
from selftrain.records import NO_GOLD, Problem, Verdict
from selftrain.verify.extract import MAX_ANSWER_CHARS, after_mark, answer_lines, last_boxed, marked_line, own_part
from selftrain.verify.killable import BrokeOff, Killable
from selftrain.verify.numeric import MARK, flexible_answer

LIMIT_S = 5.0
PACKAGE = "math_verify"

_MATHS = re.compile(
    r"(?<![\\$])\$(?=[^\s$])(?P<dollar>[^$\n]{1,500}?)(?<=[^\s\\])\$(?![0-9$])"
    r"|\$\$(?P<display>[^$]{1,500})\$\$"
    r"|\\\((?P<round>[^\n]{1,500}?)\\\)"
    r"|\\\[(?P<square>.{1,500}?)\\\]",
    re.DOTALL,
)


def strict_expression(text: str) -> str | None:
    r"""What stands after the last `####`, or without one in the last `\boxed{}`; None where that is no answer.

    >>> strict_expression("#### $x^2$"), strict_expression("\\boxed{3}, so"), strict_expression("#### 3\nNext")
    ('x^2', '3', None)
    """
    marked = after_mark(text)
    if marked is None:
        return _tidied(last_boxed(text))
    return None if "\n" in marked else _tidied(marked)


def flexible_expression(text: str) -> str | None:
    r"""What a free text gives as its answer; see the module's rules.

    >>> flexible_expression("Hence $y=2$, and the answer is \\(x\\)."), flexible_expression("It costs $5 or $6.")
    ('x', '6')
    """
    strict = strict_expression(text)
    if strict is not None:
        return strict
    tail = own_part(text)
    marked = _tidied(marked_line(tail))
    if marked is not None:
        return marked
    for line in answer_lines(tail):
        found = _of_line(line)
        if found is not None:
            return found
    written = [expression for match in _MATHS.finditer(tail) if (expression := _inside(match)) is not None]
    return written[-1] if written else flexible_answer(tail)


def verdicts(problem: Problem, text: str, tolerance: Fraction) -> tuple[Verdict, Verdict]:
    """The strict and the flexible verdict of one text; asks the worker once where both found the same."""
    strict, flexible = strict_expression(text), flexible_expression(text)
    first = _verdict(problem, strict, _why_none(text))
    return first, first if strict == flexible else _verdict(problem, flexible, "no expression found")


def check_installed() -> None:
    """Refuse where math-verify is missing, or its process cannot be waited for.

    Raises:
        ConfigError: how it is installed, or what to take instead.
    """
    if os.name == "nt":
        raise ConfigError(
            "verify: symbolic does not run on Windows.", "Take numeric or choice, or a verifier of your own."
        )
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(
            "verify: symbolic needs the package `math-verify`, which is not installed.", "pip install 'selftrain[math]'"
        )


@functools.cache
def worker() -> Killable:
    """This process's worker."""
    return Killable([sys.executable, "-m", "selftrain.verify.worker", str(LIMIT_S)], LIMIT_S)


def _verdict(problem: Problem, found: str | None, why_none: str) -> Verdict:
    gold = _tidied(problem.answer)
    if gold is None:
        return Verdict("unparsed", found, "no gold answer of bearable length", source=NO_GOLD)
    if found is None:
        return Verdict("unparsed", None, why_none)
    try:
        answer = worker().ask({"gold": gold, "text": found})
    except BrokeOff:
        return Verdict("timeout", None, "not compared: the process that compares ended")
    if answer is None:
        return Verdict("timeout", None, f"not compared within {LIMIT_S:g} s")
    match answer["outcome"]:
        case "right":
            return Verdict("right", found)
        case "wrong":
            return Verdict("wrong", found, f"expected {gold}")
        case "no gold":
            return Verdict("unparsed", found, "the gold answer cannot be read as mathematics", source=NO_GOLD)
        case _:
            return Verdict("unparsed", found, "cannot be read as mathematics")


def _why_none(text: str) -> str:
    if MARK in text:
        return f"what follows {MARK} is not an expression of bearable length on one line"
    return f"no {MARK} and no \\boxed{{}}"


def _tidied(text: str | None) -> str | None:
    """An answer without box, dollars and full stop around it; None where nothing, or too much, is left."""
    if text is None or len(text) > MAX_ANSWER_CHARS:
        return None
    boxed = last_boxed(text)
    plain = (text if boxed is None else boxed).replace("\\$", "").replace("$", "")
    for sign in ("\\(", "\\)", "\\[", "\\]"):
        plain = plain.replace(sign, "")
    return plain.strip().removesuffix(".").strip() or None


def _of_line(line: str) -> str | None:
    """The first number or expression of a line."""
    match = _MATHS.search(line)
    if match is None:
        return flexible_answer(line)
    return flexible_answer(line[: match.start()]) or _inside(match)


def _inside(match: re.Match[str]) -> str | None:
    return _tidied(next(part for part in match.groups() if part is not None))
