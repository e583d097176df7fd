"""Made-up one-step problems, for `smoke` and for tests: no download, no extra.

    source: arithmetic
    params: {seed: 1, size: 64}

They say nothing about reasoning; they exist so that the whole loop runs in seconds on a random model.
"""

from __future__ import annotations

import random

from selftrain.records import Problem

NAMES = ("Ann", "Ben", "Eve", "Max", "Sam", "Tom")
THINGS = ("pens", "cups", "keys", "nuts", "eggs")
FORMS = (
    ("+", "{name} has {a} {thing} and gets {b} more. How many {thing} now?"),
    ("*", "{name} has {a} bags of {b} {thing}. How many {thing} in all?"),
)


def problems(seed: int, size: int) -> list[Problem]:
    """`size` problems with answers and annotated rationales; distinct seeds give distinct streams."""
    from selftrain.seeding import stream

    return [_problem(f"arithmetic/{seed}-{index}", stream("arithmetic", seed, index)) for index in range(size)]


def _problem(identity: str, source: random.Random) -> Problem:
    operator, form = source.choice(FORMS)
    a, b = source.randint(2, 9), source.randint(2, 9)
    result = a + b if operator == "+" else a * b
    question = form.format(name=source.choice(NAMES), thing=source.choice(THINGS), a=a, b=b)
    rationale = f"{a}{operator}{b}=<<{a}{operator}{b}={result}>>{result}\n#### {result}"
    return Problem(identity, question, str(result), rationale)
