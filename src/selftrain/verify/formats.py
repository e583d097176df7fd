r"""How gold answers are written, for counts: a file that mixes two ways is seen at a glance.

count_formats(["2+2=4\n#### 4", "B", "7"])     # {"####": 1, "letter": 1, "number": 1}
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping

from selftrain.verify.choice import parse_choice
from selftrain.verify.numeric import MARK, flexible_answer, parse_number

BOXED = "\\boxed"


def answer_format(text: str) -> str:
    r"""`####`, `\boxed`, `letter` (an option), `number`, `text with a number` or `text`.

    >>> answer_format("(B)"), answer_format("$1,200"), answer_format("That makes 7 pens."), answer_format("blue")
    ('letter', 'number', 'text with a number', 'text')
    """
    if MARK in text:
        return MARK
    if BOXED in text:
        return BOXED
    if parse_number(text) is not None:
        return "number"
    if parse_choice(text) is not None:
        return "letter"
    return "text" if flexible_answer(text) is None else "text with a number"


def count_formats(texts: Iterable[str]) -> dict[str, int]:
    """Format -> how many texts have it, the commonest first."""
    return dict(collections.Counter(map(answer_format, texts)).most_common())


def formats_text(counts: Mapping[str, int]) -> str:
    """Counts in words: "5 number, 3 letter"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())
