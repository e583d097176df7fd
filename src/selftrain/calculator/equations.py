"""Plain equations in gold rationales get annotations: `5 + 3 = 8 apples` -> `5 + 3 = <<5+3=8>>8 apples`.

    annotate_equations("He paid $400,000 x 6/100 = $24,000.")
      -> "He paid $400,000 x 6/100 = $<<400000*6/100=24000>>24,000."

Read backwards from each `=`: numbers, operators (`+ - * / x × · ÷`), parentheses, and units after the numbers
(`31 girls x 2 boys/girl`), as far as they form an expression. It is annotated only where what the calculator
would write is the number that stands after `=`, and where there is something to compute, so wrong equations,
`48=48`, unknowns (`2x + 80 = 134`) and mixed numbers stay as they are. Where the result is a percentage
(`= 25%`), the annotation computes the number before the sign.

Leaves out: equations in words, and results written as fractions (`13/65 = 1/5`). Ours; the paper's data come
annotated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from selftrain.calculator.expression import ExpressionError, canonical, evaluate

MAX_UNIT_WORDS = 6  # between a number and the operator after it

_CURRENCY = "[$£€¥₹]"
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_TOKEN = re.compile(
    rf"(?:{_CURRENCY}[ ]?)?(?P<number>(?:{_NUMBER})(?:[ ]?%)?)"
    rf"|(?P<operator>[xX](?=\s*{_CURRENCY}?\s?[.0-9(])|//|/(?![A-Za-z])|-(?![A-Za-z])|[+*×·÷−–])"
    r"|(?P<word>[-/]?[A-Za-z][A-Za-z'’]*(?:[-/][A-Za-z'’]+)*(?:\.(?=\s*[-+*/x×÷]\s))?)"
    r"|(?P<open>\()|(?P<close>\))|(?P<other>\S)"
)
_RESULT = re.compile(
    rf"[ \t]*(?P<insert>)(?:-{_CURRENCY}|{_CURRENCY}[ ]?(?P<inner>)|)(?P<number>-?(?:{_NUMBER}))(?P<percent>[ ]?%)?"
    r"(?![0-9]|[.,:/^][0-9]|[xyzn]\b)"
)
_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_EQUALS = re.compile(r"(?<![=<>!~≈:])=(?![=>])")
_OPERATORS = {"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"}
_UNKNOWNS = frozenset("nxyzXYZ")
_NOT_BEFORE = frozenset("^!√±\\|_<>~")


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def annotate_equations(text: str) -> str:
    """Put `<<expression=result>>` before the result of every plain equation that is right and has none yet.

    >>> annotate_equations("31 girls x 2 boys/girl = 62 boys, and 48=48")
    '31 girls x 2 boys/girl = <<31*2=62>>62 boys, and 48=48'
    """
    return "".join(_annotate_line(line) for line in text.splitlines(keepends=True))


def _annotate_line(line: str) -> str:
    pieces: list[str] = []
    position = 0
    for start, equals in _left_sides(line):
        result = _RESULT.match(line, equals + 1)
        if result is None:
            continue
        tokens = _expression_before(line[start:equals])
        annotation = _annotation(tokens, result) if tokens else None
        if annotation is not None:
            place = result.start("inner") if result["inner"] is not None else result.start("insert")
            pieces += [line[position:place], annotation]
            position = place
    return "".join(pieces) + line[position:]


def _left_sides(line: str) -> Iterator[tuple[int, int]]:
    """(start of what can be the left side, place of the `=`) for each `=` outside annotations."""
    spans = [match.span() for match in _ANNOTATION.finditer(line)]
    signs = [match.start() for match in _EQUALS.finditer(line)]
    start = 0
    for equals in signs:
        while spans and spans[0][1] <= equals:
            start = max(start, spans.pop(0)[1])
        if not spans or equals < spans[0][0]:
            yield start, equals
            start = equals + 1


def _annotation(tokens: list[_Token], result: re.Match[str]) -> str | None:
    """The annotation of the equation; None where its arithmetic isn't right or is trivial."""
    parts = [_written(token) for token in tokens]
    if sum(token.kind == "operator" for token in tokens[1:]) == 0:
        return None
    exact = re.sub(r"\(([0-9.]+)\)", r"\1", "".join(parts))
    candidates = [exact, exact.replace("%", "")]
    if result["percent"]:
        wrapped = f"({exact})" if re.search(r"[-+]", exact) else exact
        candidates = [exact.replace("%", ""), f"{wrapped}*100"]
    number = result["number"].replace(",", "")
    if result[0].lstrip().startswith("-") and not number.startswith("-"):
        number = f"-{number}"
    for candidate in candidates:
        try:
            written = canonical(evaluate(candidate))
            if evaluate(written) == evaluate(number):
                return f"<<{candidate}={written}>>"
        except ExpressionError:
            continue
    return None


def _written(token: _Token) -> str:
    if token.kind == "operator":
        return _OPERATORS.get(token.text, token.text)
    return token.text.replace(",", "").replace(" ", "")


def _tokens(text: str) -> list[_Token]:
    tokens = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        tokens.append(_Token(kind, match[kind], match.start(), match.end()))
    return tokens


def _expression_before(text: str) -> list[_Token] | None:
    """The longest run of tokens at the end of `text` that reads as an expression, units left out."""
    tokens = _tokens(text)
    taken: list[_Token] = []  # backwards
    depth = num_words = 0
    needed = True  # an operand is wanted next, going backwards
    while tokens:
        token = tokens[-1]
        last = taken[-1] if taken else None
        if needed and token.kind == "word":
            num_words += 1
            if num_words > MAX_UNIT_WORDS or token.text in _UNKNOWNS:
                return None
            tokens.pop()
            continue
        if needed and token.kind == "close":
            depth += 1
        elif needed and token.kind == "number":
            needed = False
        elif needed and last is not None and _is_minus(last) and token.kind in ("operator", "open"):
            needed = token.kind == "operator"  # the minus taken last is a sign
            depth -= token.kind == "open"
        elif not needed and token.kind == "operator":
            needed = True
        elif not needed and token.kind == "open" and depth > 0:
            depth -= 1
        elif not needed and last is not None and _multiplies(token, last):
            taken.append(_Token("operator", "*", token.end, token.end))
            needed = True
            continue
        else:
            break
        num_words = 0
        taken.append(tokens.pop())
    return None if depth else _checked(taken, needed, tokens)


def _checked(taken: list[_Token], needed: bool, before: list[_Token]) -> list[_Token] | None:
    """The tokens in reading order; None where what stands before shows that the expression began earlier."""
    if not taken or (before and (before[-1].kind == "number" or before[-1].text in _NOT_BEFORE)):
        return None
    if needed:
        if len(taken) < 2 or not _is_minus(taken[-1]):
            return None
        is_sign = taken[-1].end == taken[-2].start
        if not is_sign and before:
            return None
        if not is_sign:
            taken.pop()  # a list's dash
    return taken[::-1]


def _is_minus(token: _Token) -> bool:
    return token.kind == "operator" and _OPERATORS.get(token.text, token.text) == "-"


def _multiplies(token: _Token, following: _Token) -> bool:
    """`2(22)` and `(1+2)(3+4)`: nothing between them."""
    return token.kind in ("number", "close") and following.kind == "open" and token.end == following.start
