r"""Where an answer stands in a text: after the last `####`, in the last `\boxed{}`, after "answer is".

What `choice` and `symbolic` share; `numeric` has finer rules of its own. Every search is bounded by characters,
so that no text takes long.
"""

from __future__ import annotations

import re

from selftrain.verify.numeric import MARK, NEXT_QUESTION

MAX_CHARS = 20_000  # the end of a longer text is what is searched
MAX_ANSWER_CHARS = 500  # a longer answer is none
MAX_LINES = 50  # "answer is" looked at, the last ones

_BOX = "\\boxed{"
_ANSWER = re.compile(r"\banswers?\b(?:[^\n=:]{0,40}?\b(?:is|are)\b:?|[^\n0-9A-Za-z]{0,10}?[:=])", re.IGNORECASE)


def after_mark(text: str) -> str | None:
    """What stands after the last `####`, to the end of the text, stripped; None without a `####`.

    >>> after_mark("6*7=42\\n#### 42 "), after_mark("42")
    ('42', None)
    """
    start = text.rfind(MARK)
    return None if start < 0 else text[start + len(MARK) :].strip()


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` whose braces are balanced within the bound, stripped.

    >>> last_boxed("So \\boxed{\\frac{1}{2}} it is."), last_boxed("\\boxed{1"), last_boxed("")
    ('\\frac{1}{2}', None, None)
    """
    start = text.rfind(_BOX)
    if start < 0:
        return None
    inside = text[start + len(_BOX) :][: MAX_ANSWER_CHARS + 1]
    depth = 1
    for position, sign in enumerate(inside):
        if inside[position - 1 : position] == "\\" and inside[position - 2 : position - 1] != "\\":
            continue  # \{ and \} are signs of the answer
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return inside[:position].strip()
    return None


def own_part(text: str) -> str:
    """The end of a text, up to where a base model goes on with a question of its own."""
    tail = text[-MAX_CHARS:]
    question = NEXT_QUESTION.search(tail)
    before = tail[: question.start()] if question is not None else ""
    return before if before.strip() else tail


def marked_line(text: str) -> str | None:
    """The first line of what stands after the last `####`; None where there is none."""
    marked = after_mark(text)
    return marked.splitlines()[0] if marked else None


def answer_lines(text: str) -> list[str]:
    """What stands after each "answer is" or "answer:", to the end of its line; the last one first.

    >>> answer_lines("The answer is B.\\nNo, the answer: C")
    ['C', 'B.']
    """
    lines = []
    for match in reversed(list(_ANSWER.finditer(text))[-MAX_LINES:]):
        rest = text[match.end() : match.end() + MAX_ANSWER_CHARS].split("\n", 1)[0].strip()
        lines += [rest] if rest else []
    return lines
