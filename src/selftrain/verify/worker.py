"""The process that math-verify runs in: `python -m selftrain.verify.worker LIMIT_S`; see `killable` and `symbolic`.

It says {"ready": true}, then answers {"gold": ..., "text": ...} with {"outcome": ...}, a line each:

    right, wrong   the two texts, read as LaTeX, are equal or not
    unparsed       `text` cannot be read
    no gold        `gold` cannot be read

The texts are data: they are parsed by a grammar, and sympy's own way of reading text, which is an `eval`, takes single
numbers and names only. Memory is bounded; so is the time of an answer, even where nobody is left to kill this process.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import signal
import sys
from typing import Any

MAX_MEMORY_BYTES = 4 << 30
SPARE_S = 5.0  # what the alarm leaves the parent to kill first
_HARMLESS = re.compile(r"[-+]?[0-9]*\.?[0-9]*|[A-Za-z]+")


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent
    _bound_memory()
    limit_s = float(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a library prints is no answer
    logging.disable(logging.CRITICAL)
    _limit_eval()
    if compare("x^2+2x+1", "(x+1)^2") != "right":  # which also imports what the first question would wait for
        raise SystemExit("math-verify does not compare as it should: another version of it, or of sympy?")
    _say(answers, {"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, limit_s + SPARE_S)  # SIGALRM ends this process
        outcome = compare(asked["gold"], asked["text"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        _say(answers, {"outcome": outcome})


def _bound_memory() -> None:
    """Where the system bounds it; Windows has no such module."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


def compare(gold: str, text: str) -> str:
    """One of the module's outcomes."""
    if not _read(gold):
        return "no gold"
    if gold == text:
        return "right"
    if not _read(text):
        return "unparsed"
    from math_verify import verify
    from sympy.core import random

    random.seed(0)  # some comparisons try numbers at random
    return "right" if verify(_read(gold), _read(text), timeout_seconds=None) else "wrong"


def _limit_eval() -> None:
    """Let sympy's parser of text, which `Number("7")` goes through, see nothing that could be a call."""
    from sympy.parsing import sympy_parser

    parse = sympy_parser.parse_expr

    def parse_harmless(text: str, *args: Any, **settings: Any) -> Any:
        if _HARMLESS.fullmatch(text) is None:
            raise ValueError("only numbers and names are read here")
        return parse(text, *args, **settings)

    sympy_parser.parse_expr = parse_harmless


@functools.lru_cache(maxsize=64)
def _read(text: str) -> list[Any]:
    """What math-verify makes of one answer in LaTeX; an empty list where it makes nothing."""
    from math_verify import LatexExtractionConfig, parse

    found: list[Any] = parse(
        f"${text}$",
        extraction_config=[LatexExtractionConfig()],  # and no ExprExtractionConfig: it ends in an eval
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return found


def _say(answers: Any, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=answers, flush=True)


if __name__ == "__main__":
    main()
