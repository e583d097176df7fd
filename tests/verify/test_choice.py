"""Options: what is made of which text, and that no text is too much."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.records import NO_GOLD, Problem, Verdict
from selftrain.verify.choice import flexible_choice, parse_choice, strict_choice, verdicts

VECTORS = json.loads((Path(__file__).parents[1] / "golden" / "choice_vectors.json").read_text(encoding="utf-8"))
PROBLEM = Problem("q1", "Which?", answer="B", verify="choice")
PIECES = st.sampled_from(
    ["####", " ", "\n", "(", ")", "[", "]", ".", ":", ",", "A", "B", "b", "I", "and", "or", "answer is ", "answer:"]
    + ["\\boxed{", "\\text{", "}", "$", "*", "=", "Question:", "7", "\u0412", "\x00", "\ud800", "option "]
    + ["\u202e", "\u200f"]
)


@pytest.mark.parametrize("row", VECTORS, ids=[row["note"] for row in VECTORS])
def test_vectors(row: dict[str, str]) -> None:
    assert (strict_choice(row["text"]), flexible_choice(row["text"])) == (row["strict"], row["flexible"])


def test_there_are_enough_vectors() -> None:
    assert len({row["text"] for row in VECTORS}) == len(VECTORS) >= 45


@pytest.mark.parametrize(
    ("gold", "text", "strict", "flexible"),
    [
        ("B", "#### (b)", Verdict("right", "B"), Verdict("right", "B")),
        ("(b)", "#### B", Verdict("right", "B"), Verdict("right", "B")),
        ("B", "#### C", Verdict("wrong", "C", "expected B"), Verdict("wrong", "C", "expected B")),
        ("B", "It is B", Verdict("unparsed", None, "no ####"), Verdict("right", "B")),
        (
            "B",
            "#### seven",
            Verdict("unparsed", None, "what follows #### is not an option"),
            Verdict("unparsed", None, "no option found"),
        ),
    ],
)
def test_verdicts(gold: str, text: str, strict: Verdict, flexible: Verdict) -> None:
    assert verdicts(Problem("q", "?", gold), text, Fraction(0)) == (strict, flexible)


@pytest.mark.parametrize("gold", [None, "7", "both A and B", ""])
def test_without_a_gold_letter_nothing_is_right_or_wrong(gold: str | None) -> None:
    for verdict in verdicts(Problem("q", "?", gold), "#### B", Fraction(0)):
        assert (verdict.outcome, verdict.extracted, verdict.source) == ("unparsed", "B", NO_GOLD)


@pytest.mark.parametrize(
    "unit",
    ["A ", "(", "(A", "#### ", "#### A", "answer is ", "answer: A", "\\boxed{", "\\text{", "*", "\nq:", "\x00"]
    + ["\u202e", "\u200fA"],
)
def test_a_million_hostile_characters(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert verdicts(PROBLEM, text, Fraction(0))[0].outcome in ("right", "wrong", "unparsed")
    strict, flexible = verdicts(PROBLEM, text + "\n#### B", Fraction(0))
    assert strict.outcome == flexible.outcome == "right"


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_total_and_flexible_agrees_with_strict(text: str) -> None:
    strict, flexible = strict_choice(text), flexible_choice(text)
    assert strict is None or flexible == strict
    for found in (strict, flexible, parse_choice(text)):
        assert found is None or (len(found) == 1 and "A" <= found <= "Z")


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), st.sampled_from(["{}", "({})", "[{}]", "{}.", "{}) text", "**{}**"])
)
def test_every_letter_in_every_form(letter: str, form: str) -> None:
    assert strict_choice(f"#### {form.format(letter)}") == letter
    assert strict_choice(f"#### {form.format(letter.lower())}") == letter
