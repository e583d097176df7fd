r"""Numeric answers: find the number that a text ends in, compare it exactly with the gold answer.

    strict_answer("6*7=<<6*7=42>>42\n#### $42.00")   -> "42"
    flexible_answer("So she pays **$29.00** in all.") -> "29"
    verify(problem, text, mode="strict")             -> Verdict(outcome="right", extracted="42")

Two extractors, reported side by side; tests/golden/answer_vectors.json lists what each makes of which text.

strict    What stands after the last `####`, to the end of the text, must be one number: sign, currency sign,
          commas, `a/b`, `%` and a full stop at the end are allowed, words are not. Labels are judged by it.
flexible  For any model's free text: the strict answer if there is one; else the number after the last `####`,
          in the last `\boxed{}`, after the last "answer is" (or "answer:"), else the last number. Numbers in
          annotations (`<<...>>`, `[ ...=... ]`) don't count, nor does what follows a line "Question:", where a
          base model goes on with a question of its own.

A percent sign is dropped (`50%` is 50). Only the digits 0-9 count. Everything is bounded by counts: characters
looked at, digits of a number. Where a text has a strict answer, the flexible answer is the same.

Leaves out: numbers in words, powers, scientific writing, decimal commas. Departs from the paper's code, which
takes the number after the last `#` in floats and ignores what follows it: here a text that goes on after its
answer isn't strictly parsed, so it is not imitated, and values are exact fractions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from selftrain.records import NO_GOLD, Problem, Verdict

Mode = Literal["strict", "flexible"]

MARK = "####"
MAX_CHARS = 20_000  # flexible looks at the end of a longer text
MAX_ANSWER_CHARS = 200  # after `####`, in a box, after "answer is"
MAX_DIGITS = 100

_CURRENCY = "[$£€¥₹]"
_PLAIN = r"(?:[0-9]++(?:,[0-9]++)*+(?:\.[0-9]*+)?+|\.[0-9]++)"
_ALONE = re.compile(
    rf"(?P<sign>[-+]?) ?(?:{_CURRENCY} ?)?(?P<inner>[-+]?) ?(?:(?P<whole>[0-9]++) (?=[0-9]++ ?/))?"
    rf"(?P<above>{_PLAIN})(?: ?/ ?(?P<below>{_PLAIN}))? ?(?:%|{_CURRENCY})?\.?"
)
_IN_TEXT = re.compile(
    r"(?:(?<![A-Za-z_\d])(?:(?P<whole>[0-9]{1,9}) (?=[0-9]{1,9} ?/ ?[0-9]))?"
    r"(?P<above>[0-9]{1,3}(?:,[0-9]{2,3}){0,20},[0-9]{3}(?![0-9])(?:\.[0-9]++)?+|[0-9]++(?:\.[0-9]++)?+)"
    r"|(?<![A-Za-z_\d.])(?P<point>\.[0-9]++))"
    r"(?: ?/ ?(?P<below>[0-9]++(?:\.[0-9]++)?+))?"
    r"(?!\d|[eE][-+]?[0-9]|(?:st|nd|rd|th)\b)"
)
_DASHES = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-") | {"\u00a0": " ", "\u202f": " "}
)
_ANNOTATION = re.compile(r"<<[^<>\n]{0,200}(?:>>|\Z)|(?<!\\)\[[^\[\]=\n]{0,200}=[^\[\]\n]{0,200}(?:\]|\Z)")
_LATEX = re.compile(r"\\[dt]?frac ?\{ ?([0-9.]{1,30}) ?\} ?\{ ?([0-9.]{1,30}) ?\}")
NEXT_QUESTION = re.compile(r"\n[ \t#*]{0,10}(?:question|problem|q)[ \t#*0-9]{0,10}:", re.IGNORECASE)
_ANSWER = re.compile(r"\banswer\b(?:[^\n0-9=:]{0,40}?\b(?P<is>is|are)\b:?|[^\n0-9A-Za-z]{0,10}?[:=])", re.IGNORECASE)
_MINUS = re.compile(rf"(?P<left>(?:.*[^ ])?)(?P<gap> *)-(?P<space> ?)(?:{_CURRENCY} ?)?\Z", re.DOTALL)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|\Z)")
_GOES_ON = re.compile(r"%?[^\S\n]{0,5}[-+*/×÷^x=][^\S\n]{0,5}[$(]?[0-9]")


def strict_answer(text: str) -> str | None:
    """The number that is all that stands after the last `####`, in canonical writing.

    >>> strict_answer("#### 1,234"), strict_answer("#### 29 dollars"), strict_answer("29")
    ('1234', None, None)
    """
    return _written(_strict(text))


def flexible_answer(text: str) -> str | None:
    """The number that a free text gives as its answer, in canonical writing; see the module's rules.

    >>> flexible_answer("Each pays $29.00."), flexible_answer("9 - 4 = <<9-4=5>>5 apples"), flexible_answer("none")
    ('29', '5', None)
    """
    return _written(_flexible(text))


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number and nothing else; None for any other text.

    >>> parse_number(" -$1,234.50 "), parse_number("3/4"), parse_number("1 1/2"), parse_number("5 apples")
    (Fraction(-2469, 2), Fraction(3, 4), Fraction(3, 2), None)
    """
    text = text.strip()
    if len(text) > MAX_ANSWER_CHARS:
        return None
    match = _ALONE.fullmatch(" ".join(text.translate(_DASHES).split()))
    if match is None or (match["sign"] and match["inner"]):
        return None
    value = _value(match["whole"], match["above"], match["below"])
    return -value if value is not None and "-" in (match["sign"], match["inner"]) else value


def states(text: str, answer: str) -> bool:
    """Whether any number of a text is the answer, annotations aside; True where the answer is not a number."""
    gold = parse_number(answer)
    return gold is None or gold in _numbers(_plain(text))


def verify(problem: Problem, text: str, *, mode: Mode = "strict", tolerance: Fraction = Fraction(0)) -> Verdict:
    """Judge one text by the problem's gold answer.

    Args:
        problem: its `answer` must be one number, else the outcome is unparsed and the verdict's source `NO_GOLD`.
        text: what a model (or the data) wrote.
        mode: the extractor.
        tolerance: a difference below it is right too. Labels: 0; evaluation in the paper's code: 1e-4.
    """
    found = _strict(text) if mode == "strict" else _flexible(text)
    return _verdict(problem.answer, found, _why_none(text, mode), tolerance)


def verdicts(problem: Problem, text: str, tolerance: Fraction) -> tuple[Verdict, Verdict]:
    """The strict and the flexible verdict of one text."""
    strict = verify(problem, text, mode="strict", tolerance=tolerance)
    return strict, verify(problem, text, mode="flexible", tolerance=tolerance)


def _verdict(answer: str | None, found: Fraction | None, why_none: str, tolerance: Fraction) -> Verdict:
    gold = None if answer is None else parse_number(answer)
    extracted = _written(found)
    if gold is None:
        reason = "no gold answer" if answer is None else "the gold answer is not a number"
        return Verdict("unparsed", extracted, reason, source=NO_GOLD)
    if found is None:
        return Verdict("unparsed", None, why_none)
    if found == gold or abs(found - gold) < tolerance:
        return Verdict("right", extracted)
    return Verdict("wrong", extracted, f"expected {_written(gold)}")


def _why_none(text: str, mode: Mode) -> str:
    if mode == "flexible":
        return "no number found"
    return "what follows #### is not a number" if MARK in text else "no ####"


def _strict(text: str) -> Fraction | None:
    start = text.rfind(MARK)
    return None if start < 0 else parse_number(text[start + len(MARK) :])


def _flexible(text: str) -> Fraction | None:
    strict = _strict(text)
    if strict is not None:
        return strict
    plain = _plain(text)
    question = NEXT_QUESTION.search(plain)
    if question is not None:
        found = _from_free_text(plain[: question.start()])
        if found is not None:
            return found
    return _from_free_text(plain)


def _plain(text: str) -> str:
    """The end of a text: one kind of dash and space, no annotations, LaTeX's fractions and commas in plain writing."""
    text = _ANNOTATION.sub("", text[-MAX_CHARS:].translate(_DASHES))
    for written, plain in (("\\$", "$"), ("\\%", "%"), ("{,}", ","), ("\\,", ""), ("\\!", "")):
        text = text.replace(written, plain)
    return _LATEX.sub(r"\1/\2", text)


def _from_free_text(text: str) -> Fraction | None:
    for find in (_after_mark, _boxed, _after_answer):
        found = find(text)
        if found is not None:
            return found
    return next(_numbers(text, last_first=True), None)


def _after_mark(text: str) -> Fraction | None:
    start = text.rfind(MARK)
    return None if start < 0 else _result(_sentence(text, start + len(MARK)))


def _boxed(text: str) -> Fraction | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    inside = text[start + len("\\boxed{") :][:MAX_ANSWER_CHARS]
    depth = 1
    for position, sign in enumerate(inside):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return _result(inside[:position])
    return _result(inside)


def _after_answer(text: str) -> Fraction | None:
    """After the last "answer is" or "answer:" that leads to a number; reasoning after "answer:" is passed over."""
    for match in reversed(list(_ANSWER.finditer(text))):
        sentence = _sentence(text, match.end())
        number = _IN_TEXT.search(sentence)
        if number is None:
            continue
        if (
            re.search("[A-Za-z0-9]", sentence[: number.start()]) is None
            and _GOES_ON.match(sentence, number.end()) is None
        ):
            return next(_numbers(sentence), None)
        if match["is"]:
            return _result(sentence, last_first=True)
    return None


def _sentence(text: str, start: int) -> str:
    """What stands from `start` to the end of the sentence or line, bounded; white space before it is passed over."""
    rest = text[start : start + MAX_ANSWER_CHARS].lstrip()
    end = _SENTENCE_END.search(rest)
    return rest if end is None else rest[: end.start()]


def _result(text: str, *, last_first: bool = False) -> Fraction | None:
    """The first number after the last `=`; without one the first (or the last) of all."""
    after = next(_numbers(text[text.rfind("=") + 1 :]), None) if "=" in text else None
    return after if after is not None else next(_numbers(text, last_first=last_first), None)


def _numbers(text: str, *, last_first: bool = False) -> Iterator[Fraction]:
    """The readable numbers of a text with their signs."""
    matches = _IN_TEXT.finditer(text)
    for match in reversed(list(matches)) if last_first else matches:
        value = _value(match["whole"], match["above"] or match["point"], match["below"])
        if value is not None:
            yield -value if _is_negative(text, match.start()) else value


def _is_negative(text: str, start: int) -> bool:
    """Whether the number at `start` has a minus sign, and not a hyphen, a bullet or a subtraction before it."""
    minus = _MINUS.search(text[max(0, start - 30) : start])
    if minus is None:
        return False
    left = minus["left"]
    if left[-1:].isdigit() or left.endswith((")", "%")):
        return False  # a subtraction
    if not minus["space"]:
        return bool(minus["gap"]) or not left[-1:].isalpha()
    return not left or left[-1] in "=:#({" or left.endswith((" is", " equals"))


def _value(whole: str | None, above: str, below: str | None) -> Fraction | None:
    """`above`, `above/below` or `whole above/below`; None without a value or beyond the bound, read or written."""
    if sum(map(len, (whole or "", above, below or ""))) > MAX_DIGITS:
        return None
    value = _decimal(above)
    if below is not None:
        divisor = _decimal(below)
        if divisor == 0:
            return None
        value /= divisor
    if whole is not None:
        if not 0 < value < 1:
            return None
        value += int(whole)
    return value if len(str(_written(value))) <= MAX_DIGITS else None


def _decimal(digits: str) -> Fraction:
    integer, _, part = digits.replace(",", "").partition(".")
    return Fraction(int(f"{integer}{part}"), 10 ** len(part))


def _written(value: Fraction | None) -> str | None:
    """An integer, else the exact decimal, else `a/b`: nothing is rounded, so equal texts are equal values.

    What is written is within the bound on what is read, so that it can be read again.
    """
    if value is None:
        return None
    num_places = _num_places(value.denominator)
    if num_places is not None:
        digits = f"{abs(value.numerator) * 10**num_places // value.denominator:0{num_places + 1}d}"
        split = len(digits) - num_places
        text = f"{digits[:split]}.{digits[split:]}" if num_places else digits
        if len(text) <= MAX_DIGITS:
            return f"-{text}" if value < 0 else text
    return f"{value.numerator}/{value.denominator}"


def _num_places(below: int) -> int | None:
    """Decimals of 1/below; None where they don't end (or not within the bound on digits)."""
    twos = (below & -below).bit_length() - 1
    below >>= twos
    fives = 0
    while below % 5 == 0:
        below, fives = below // 5, fives + 1
    num_places = max(twos, fives)
    return num_places if below == 1 and num_places <= MAX_DIGITS else None
