"""Calculator annotations in text, in their two writings: `<<48/2=24>>` (angle) and `[ 48 / 2 = 24 ]` (bracket).

    canonicalise("3*2 = <<3*2=6.0>>6.0", "angle")  -> "3*2 = <<3*2=6>>6.0"
    annotate_equations("31 girls x 2 boys/girl = 62 boys")
                                                   -> "31 girls x 2 boys/girl = <<31*2=62>>62 boys"
    split_for_training("<<3*2=6>>6", "angle")      -> ["<<3*2=", "6", ">>", "6"]

The angle writing is GSM8K's and the one that records hold; the bracket writing is for vocabularies without `<`
(T5's). `find` is what `canonicalise`, `drop_trivial`, `split_for_training` and the conversions agree on.

Leaves out: anything but the annotations. Numbers outside the brackets, currency signs and line ends are as they
were (`prompts` writes T5's text). Departs from the paper: gold results get the one canonical writing of
`expression.canonical`, and rationales that come without annotations get them (ours).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from fractions import Fraction
from typing import Literal

from selftrain.calculator.equations import annotate_equations
from selftrain.calculator.expression import ExpressionError, canonical, evaluate

__all__ = [
    "Annotation",
    "Style",
    "annotate_equations",
    "canonicalise",
    "drop_trivial",
    "find",
    "split_for_training",
    "to_angle",
    "to_bracket",
    "value_of",
    "write",
]

Style = Literal["angle", "bracket"]

_ANNOTATION: dict[Style, re.Pattern[str]] = {
    "angle": re.compile(r"<<([^<>=\n]*)=([^<>=\n]*)>>"),
    "bracket": re.compile(r"\[([^\[\]=\n]*)=([^\[\]=\n]*)\]"),
}
_PLAIN_NUMBER = re.compile(r"\s*[-+]?[0-9.,]+%?\s*")


@dataclasses.dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation: `text[start:end]` is all of it, brackets included; its two sides as they stand, stripped.

    >>> find("24 = <<48/2=24>>24", "angle")
    [Annotation(start=5, end=16, expression='48/2', result='24')]
    """

    start: int
    end: int
    expression: str
    result: str

    @property
    def value(self) -> Fraction | None:
        """The expression's exact value; None where it can't be computed."""
        return value_of(self.expression)

    @property
    def is_right(self) -> bool:
        """Whether the result is exactly the expression's value, in whatever writing."""
        return self.value is not None and self.value == value_of(self.result)

    @property
    def is_trivial(self) -> bool:
        """Whether it is of the kind `<<24=24>>`: a number, and the same number."""
        return self.is_right and _PLAIN_NUMBER.fullmatch(self.expression) is not None


def value_of(expression: str) -> Fraction | None:
    """`evaluate`, with None where the text can't be computed."""
    try:
        return evaluate(expression)
    except ExpressionError:
        return None


def find(text: str, style: Style) -> list[Annotation]:
    """Every whole annotation, in order: opened, one `=`, closed on the same line."""
    return [
        Annotation(match.start(), match.end(), match[1].strip(), match[2].strip())
        for match in _ANNOTATION[style].finditer(text)
    ]


def write(expression: str, result: str, style: Style) -> str:
    """The annotation of this expression and result.

    >>> write("48/2", "24", "angle"), write("48/2", "24", "bracket")
    ('<<48/2=24>>', '[ 48 / 2 = 24 ]')
    """
    if style == "angle":
        return f"<<{re.sub(' ', '', expression)}={result}>>"
    spaced = re.sub(r"(//|[-+*/()])", r" \1 ", expression)
    return f"[ {' '.join(spaced.split())} = {result} ]"


def canonicalise(text: str, style: Style) -> str:
    """Write the result of each annotation that is exactly right the canonical way; leave the others as they are."""
    pieces: list[str] = []
    position = 0
    for annotation in find(text, style):
        value = annotation.value
        if value is not None and annotation.is_right:
            head, _, tail = text[position : annotation.end].rpartition(annotation.result)
            pieces += [head, canonical(value), tail]
            position = annotation.end
    return "".join(pieces) + text[position:]


def drop_trivial(text: str, style: Style = "angle") -> str:
    """Delete annotations of the kind `<<24=24>>` (paper: T5 text); in the bracket writing with one space after it."""
    pieces: list[str] = []
    position = 0
    for annotation in find(text, style):
        if annotation.is_trivial:
            pieces.append(text[position : annotation.start])
            position = annotation.end
            if style == "bracket" and text.startswith(" ", position):
                position += 1
    return "".join(pieces) + text[position:]


def to_bracket(text: str) -> str:
    """Angle to bracket writing, with a space on both sides of each annotation.

    >>> to_bracket("48/2 = $<<48/2=24>>24")
    '48/2 = $ [ 48 / 2 = 24 ] 24'
    """
    pieces: list[str] = []
    position = 0
    for annotation in find(text, "angle"):
        start, end = annotation.start, annotation.end
        pieces.append(text[position:start])
        pieces.append("" if start == position or text[start - 1].isspace() else " ")
        pieces.append(write(annotation.expression, annotation.result, "bracket"))
        pieces.append("" if end == len(text) or text[end].isspace() else " ")
        position = end
    return "".join(pieces) + text[position:]


def to_angle(text: str) -> str:
    """Bracket to angle writing; the space that `to_bracket` puts after an annotation is taken away again.

    >>> to_angle("48/2 = [ 48 / 2 = 24 ] 24")
    '48/2 = <<48/2=24>>24'
    """
    pieces: list[str] = []
    position = 0
    for annotation in find(text, "bracket"):
        pieces.append(text[position : annotation.start])
        pieces.append(write(annotation.expression, annotation.result, "angle"))
        position = annotation.end
        if re.match(r" \S", text[position : position + 2]):
            position += 1
    return "".join(pieces) + text[position:]


def split_for_training(text: str, style: Style) -> list[str]:
    """The pieces to tokenise one by one; joined they are the text again, and none is empty.

    A piece ends after the `=` of an annotation, and before and after what closes it (`>>`, or ` ]` with its
    space): where decoding stops to let the calculator write result and closing. `forcing` encodes these two
    as the same pieces.

    >>> split_for_training("24 = [ 48 / 2 = 24 ] 24", "bracket")
    ['24 = [ 48 / 2 =', ' 24', ' ]', ' 24']
    """
    cuts = {0, len(text)}
    for match in _ANNOTATION[style].finditer(text):
        closing = match.end(2)
        if style == "bracket" and match[2].endswith(" "):
            closing -= 1
        cuts |= {match.start(2), closing, match.end()}
    ordered = sorted(cuts)
    return [text[start:end] for start, end in itertools.pairwise(ordered)]
