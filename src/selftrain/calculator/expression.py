"""Exact arithmetic on untrusted text: what stands in an annotation before its `=`.

    evaluate("48/2")            -> Fraction(24, 1)
    evaluate("1,530 * 20%")     -> Fraction(306, 1)
    canonical(Fraction(3, 200)) -> "0.015"

Grammar: `+ - * / //`, parentheses, unary signs, decimals (`3.5`, `.5`, `5.`), thousands commas (`1,000`), and
`n%` for n/100. ASCII only, no names, no powers, no modulo, no currency. The parser is our own: nothing is
ever executed. `evaluate` is total: any other text raises `ExpressionError`, and it is bounded by counts
(characters, digits, operations, depth, bits), so it returns at once whatever the text.

Departs from the paper's tool, which computes in floats and rounds to 2 decimals (6 of GSM8K's results come
out wrong there): here every value is a `Fraction`, and `canonical` is the one way to write it.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from selftrain.errors import SelftrainError

MAX_CHARS = 200
MAX_DIGITS = 30
MAX_OPERATIONS = 50
MAX_DEPTH = 20
MAX_BITS = 256
MAX_DECIMALS = 6
ROUNDED_DECIMALS = 2

_TOKEN = re.compile(
    r"(?P<number>(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?![0-9.,])|(?P<sign>//|[-+*/()%])"
)


class ExpressionError(SelftrainError, ValueError):
    """A text that is no expression of this grammar, or one beyond its bounds; says why in a few words."""


def evaluate(text: str) -> Fraction:
    """The exact value of an expression.

    Raises:
        ExpressionError: not an expression, too long or too large, or a division by zero.

    >>> evaluate("30/2000"), evaluate("560//10"), evaluate("-(2+3) * 50%")
    (Fraction(3, 200), Fraction(56, 1), Fraction(-5, 2))
    """
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"longer than {MAX_CHARS} characters")
    parser = _Parser(_tokens(text))
    value = parser.sum(0)
    if parser.peek() is not None:
        raise ExpressionError(f"unexpected {parser.peek()!r}")
    return value


def canonical(value: Fraction) -> str:
    """The one writing of a value, near the paper's.

    An integer has no point; a decimal of at most 6 places is written out, shortest; anything else is
    rounded half-even to 2 places first. So `canonical` of what it wrote is the same text again.

    >>> canonical(Fraction(48, 2)), canonical(Fraction(30, 2000)), canonical(Fraction(2, 3))
    ('24', '0.015', '0.67')
    """
    scaled = value * 10**MAX_DECIMALS
    if scaled.denominator != 1:
        scaled = round(value, ROUNDED_DECIMALS) * 10**MAX_DECIMALS
    whole, part = divmod(abs(scaled.numerator), 10**MAX_DECIMALS)
    digits = f"{whole}.{part:0{MAX_DECIMALS}d}".rstrip("0").rstrip(".")
    return f"-{digits}" if scaled < 0 else digits


def _tokens(text: str) -> list[str]:
    """Numbers and signs in order; spaces and tabs between them are skipped."""
    tokens: list[str] = []
    position = 0
    while position < len(text):
        if text[position] in " \t":
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"unexpected {text[position]!r} at {position}")
        tokens.append(match.group())
        position = match.end()
    return tokens


def _number(token: str) -> Fraction:
    whole, _, part = token.replace(",", "").partition(".")
    if len(whole) + len(part) > MAX_DIGITS:
        raise ExpressionError(f"a number of more than {MAX_DIGITS} digits")
    return Fraction(int(f"{whole}{part}"), 10 ** len(part))


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator in ("/", "//") and right == 0:
        raise ExpressionError("division by zero")
    if operator == "+":
        value = left + right
    elif operator == "-":
        value = left - right
    elif operator == "*":
        value = left * right
    else:
        value = left / right if operator == "/" else Fraction(left // right)
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ExpressionError(f"a value of more than {MAX_BITS} bits")
    return value


@dataclasses.dataclass
class _Parser:
    """Recursive descent, one method a level of precedence; `depth` counts parentheses and signs."""

    tokens: list[str]
    position: int = 0
    num_operations: int = 0

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self, *wanted: str) -> str | None:
        """The next token if it is one of `wanted`, and a step past it."""
        token = self.peek()
        if token not in wanted:
            return None
        self.position += 1
        return token

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while operator := self.take("+", "-"):
            value = self.combine(operator, value, self.product(depth))
        return value

    def product(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while operator := self.take("*", "/", "//"):
            value = self.combine(operator, value, self.signed(depth))
        return value

    def combine(self, operator: str, left: Fraction, right: Fraction) -> Fraction:
        self.num_operations += 1
        if self.num_operations > MAX_OPERATIONS:
            raise ExpressionError(f"more than {MAX_OPERATIONS} operations")
        return _apply(operator, left, right)

    def signed(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}")
        if sign := self.take("+", "-"):
            value = self.signed(depth + 1)
            return -value if sign == "-" else value
        value = self.operand(depth)
        return _apply("/", value, Fraction(100)) if self.take("%") else value

    def operand(self, depth: int) -> Fraction:
        if self.take("("):
            value = self.sum(depth + 1)
            if not self.take(")"):
                raise ExpressionError("a parenthesis is not closed")
            return value
        token = self.peek()
        if token is None:
            raise ExpressionError("a number is missing at the end")
        if token[-1] not in "0123456789.":
            raise ExpressionError(f"a number is missing before {token!r}")
        self.position += 1
        return _number(token)
