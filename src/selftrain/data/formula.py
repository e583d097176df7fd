"""A formula as worked steps: one annotated line for each nested part, innermost first.

    steps("(3+4)*2")        -> ["3+4=<<3+4=7>>7", "7*2=<<7*2=14>>14"]
    steps("5+5+5")          -> ["5+5+5=<<5+5+5=15>>15"]

A chain of one precedence stays one step; parentheses, and products inside a sum, make steps of their own. A part
whose value is negative or has no exact short decimal (`(1/3)*6`) is not a step: it stays in parentheses inside
the step around it, so every line is exactly equal. The same line is not written twice.

Leaves out: signs, percentages, floor division, powers, units and unknowns (`FormulaError`).
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

from selftrain.calculator.expression import canonical
from selftrain.data.base import with_answer
from selftrain.errors import SelftrainError

MAX_CHARS = 200
MAX_DEPTH = 20
MAX_DIGITS = 30

NOT_ARITHMETIC = "formula is not arithmetic in + - * / ( )"
NOT_EQUAL = "formula is not exactly equal to the answer"
_TOKEN = re.compile(r"\s*([0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+|[-+*/()])")


class FormulaError(SelftrainError, ValueError):
    """A formula that cannot be written as exact steps; its text is the reason that gets counted."""


@dataclasses.dataclass(frozen=True)
class _Node:
    """A number (no operands), or a chain of operands joined by operators of one precedence."""

    value: Fraction
    operands: tuple[_Node, ...] = ()
    operators: tuple[str, ...] = ()


def rationale(formula: str, answer: str) -> str:
    """The steps of a formula's left side and the line with the answer.

    Raises:
        FormulaError: not arithmetic, or not exactly equal to the answer.
    """
    tree = _parse(formula)
    if tree.value != Fraction(answer):
        raise FormulaError(NOT_EQUAL)
    return with_answer("\n".join(_steps(tree)), answer)


def steps(formula: str) -> list[str]:
    """The lines of a formula's left side.

    Raises:
        FormulaError: not arithmetic, or a value without an exact writing of at most 6 decimals.
    """
    return _steps(_parse(formula))


def _steps(tree: _Node) -> list[str]:
    lines: list[str] = []
    if not tree.operands:
        raise FormulaError(NOT_ARITHMETIC)
    _add_step(tree, lines)
    return lines


def _add_step(node: _Node, lines: list[str]) -> str:
    """Write a chain's line after those of its operands; returns its result as text."""
    expression = _expression(node, lines)
    result = _exact_text(node.value)
    line = f"{expression}=<<{expression}={result}>>{result}"
    if line not in lines:
        lines.append(line)
    return result


def _expression(node: _Node, lines: list[str]) -> str:
    texts = [_operand(operand, lines) for operand in node.operands]
    return texts[0] + "".join(sign + text for sign, text in zip(node.operators, texts[1:], strict=True))


def _operand(node: _Node, lines: list[str]) -> str:
    if not node.operands:
        return _exact_text(node.value)
    if node.value < 0 or Fraction(canonical(node.value)) != node.value:
        return f"({_expression(node, lines)})"
    return _add_step(node, lines)


def _exact_text(value: Fraction) -> str:
    text = canonical(value)
    if Fraction(text) != value:
        raise FormulaError(NOT_EQUAL)
    return text


def _parse(formula: str) -> _Node:
    left = formula.partition("=")[0]
    if len(formula) > MAX_CHARS or ";" in formula:
        raise FormulaError(NOT_ARITHMETIC)
    tokens = _tokens(left.strip())
    node, position = _chain(tokens, 0, 0, "+-")
    if position != len(tokens):
        raise FormulaError(NOT_ARITHMETIC)
    return node


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise FormulaError(NOT_ARITHMETIC)
        tokens.append(match[1])
        position = match.end()
    return tokens


def _chain(tokens: list[str], position: int, depth: int, signs: str) -> tuple[_Node, int]:
    """A chain of `signs` from `position` on: sums of products of operands."""

    def operand(at: int) -> tuple[_Node, int]:
        return _chain(tokens, at, depth, "*/") if signs == "+-" else _single(tokens, at, depth)

    first, position = operand(position)
    value, operands, operators = first.value, [first], []
    while position < len(tokens) and tokens[position] in signs:
        operators.append(tokens[position])
        node, position = operand(position + 1)
        operands.append(node)
        value = _combined(operators[-1], value, node.value)
    if not operators:
        return first, position
    return _Node(value, tuple(operands), tuple(operators)), position


def _single(tokens: list[str], position: int, depth: int) -> tuple[_Node, int]:
    """A number, or a chain in parentheses."""
    token = tokens[position] if position < len(tokens) else ""
    if token == "(" and depth < MAX_DEPTH:
        node, position = _chain(tokens, position + 1, depth + 1, "+-")
        if position < len(tokens) and tokens[position] == ")":
            return node, position + 1
    elif token[-1:].isdigit() and len(token) <= MAX_DIGITS:
        return _Node(Fraction(token.replace(",", ""))), position + 1
    raise FormulaError(NOT_ARITHMETIC)


def _combined(sign: str, left: Fraction, right: Fraction) -> Fraction:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    if right == 0:
        raise FormulaError(NOT_ARITHMETIC)
    return left / right
