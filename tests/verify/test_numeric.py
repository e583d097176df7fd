"""The two extractors and the verifier: published vectors, the data's own answers, hostile texts."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.records import Completion, Problem, Verdict
from selftrain.verify import judge
from selftrain.verify.numeric import (
    MAX_CHARS,
    MAX_DIGITS,
    NO_GOLD,
    flexible_answer,
    parse_number,
    strict_answer,
    verify,
)

VECTORS = json.loads((Path(__file__).parents[1] / "golden" / "answer_vectors.json").read_text(encoding="utf-8"))
PROBLEM = Problem("q1", "6 boxes of 7 pens?", answer="42")
SIGNS = ["####", "#", " ", "\n", "-", "$", "%", ".", ",", "/", "=", ":", "<<", ">>", "[", "]", "{", "}", "\u2212"]
NUMBERS = ["7", "12", "1,234", "0", "\\frac{1}{2}", "x", "\u0665", "\x00", "\ud800", "\u202e", "\u200f"]
WORDS = ["\\boxed{", "answer", " is ", "Question:", "apples"]
PIECES = st.sampled_from(SIGNS + NUMBERS + WORDS)
HOSTILE = [
    "#",
    "#### ",
    "#### 5",
    "9",
    "1,",
    "1,22",
    "9.",
    "9/",
    "-",
    "- 9",
    "<<",
    "<<9=",
    "[",
    "[9=",
    "9 1/",
    "x9",
    "9e",
]
HOSTILE += ["\\boxed{", "\\frac{9}{", "answer", "answer is ", "answer: ", "\nQuestion:", "\nq ", " ", "\n", "="]
HOSTILE += ["\x00", "\ud800", "\u0665", "\u202e", "\u200f", "\u202e9"]


@pytest.mark.parametrize("row", VECTORS, ids=[row["note"] for row in VECTORS])
def test_vectors(row: dict[str, str | None]) -> None:
    text = row["text"]
    assert text is not None
    assert (strict_answer(text), flexible_answer(text)) == (row["strict"], row["flexible"])


def test_there_are_enough_vectors() -> None:
    assert len({row["text"] for row in VECTORS}) == len(VECTORS) >= 60


def test_gsm8k_gold_rationales_pass_strictly(data_dir: Path) -> None:
    """Against the data's own `ans` column and the paper's regular expression."""
    num_rows = 0
    for name in ("train", "dev"):
        for line in (data_dir / "gsm8k" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found = strict_answer(row["answer"])
            assert found is not None
            assert float(Fraction(found)) == row["ans"]
            assert float(re.findall(r"#+ (\-?[0-9\.\,]+)", row["answer"])[-1].replace(",", "")) == row["ans"]
            assert flexible_answer(row["answer"]) == found
            assert verify(Problem("q", row["question"], answer=found), row["answer"]).outcome == "right"
            num_rows += 1
    assert num_rows == 6705 + 768


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", Fraction(42)),
        (" 1,234.50 ", Fraction(2469, 2)),
        ("-3/8", Fraction(-3, 8)),
        ("2 3/4", Fraction(11, 4)),
        ("12.", Fraction(12)),
        ("$.5", Fraction(1, 2)),
        ("5%", Fraction(5)),
        ("1" * MAX_DIGITS, Fraction(int("1" * MAX_DIGITS))),
        ("1" * (MAX_DIGITS + 1), None),
        ("2 5/4", None),
        ("-$-5", None),
        ("5 apples", None),
        ("1,,2", None),
        ("", None),
        (".", None),
        ("-", None),
        ("\u0661", None),
        ("1_000", None),
        ("0x10", None),
        ("nan", None),
    ],
)
def test_parse_number(text: str, value: Fraction | None) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    ("text", "tolerance", "expected"),
    [
        ("6*7=<<6*7=42>>42\n#### 42", Fraction(0), Verdict("right", "42")),
        ("#### 42.0", Fraction(0), Verdict("right", "42")),
        ("#### 41", Fraction(0), Verdict("wrong", "41", "expected 42")),
        ("#### 42.00005", Fraction(0), Verdict("wrong", "42.00005", "expected 42")),
        ("#### 42.00005", Fraction(1, 10_000), Verdict("right", "42.00005")),
        ("#### 42.0001", Fraction(1, 10_000), Verdict("wrong", "42.0001", "expected 42")),
        ("it is 42", Fraction(0), Verdict("unparsed", None, "no ####")),
        ("#### 42 pens", Fraction(0), Verdict("unparsed", None, "what follows #### is not a number")),
    ],
)
def test_verify_strict(text: str, tolerance: Fraction, expected: Verdict) -> None:
    assert verify(PROBLEM, text, tolerance=tolerance) == expected


def test_verify_flexible() -> None:
    assert verify(PROBLEM, "So there are 42 pens.", mode="flexible") == Verdict("right", "42")
    assert verify(PROBLEM, "So there are 13.", mode="flexible") == Verdict("wrong", "13", "expected 42")
    assert verify(PROBLEM, "Many.", mode="flexible") == Verdict("unparsed", None, "no number found")


def test_without_gold_answer_nothing_is_right_or_wrong() -> None:
    unknown = verify(Problem("q", "?"), "#### 42")
    assert unknown == Verdict("unparsed", "42", "no gold answer", source=NO_GOLD)
    worded = verify(Problem("q", "?", answer="forty-two"), "#### 42")
    assert worded == Verdict("unparsed", "42", "the gold answer is not a number", source=NO_GOLD)


def test_a_gold_answer_may_be_written_otherwise() -> None:
    assert verify(Problem("q", "?", answer="$1,000.00"), "#### 1000").outcome == "right"
    assert verify(Problem("q", "?", answer="2/3"), "#### 2/3").outcome == "right"
    assert verify(Problem("q", "?", answer="2/3"), "#### 0.67").outcome == "wrong"


def test_judge_fills_both_and_keeps_the_order() -> None:
    texts = ["#### 42", "It is 42.", "#### 41"]
    completions = [Completion("q1", k, (5, k), text, "eos", stage="s") for k, text in enumerate(texts)]
    judged = judge(PROBLEM, completions)
    outcomes = [(c.strict.outcome, c.flexible.outcome) for c in judged if c.strict and c.flexible]
    assert outcomes == [("right", "right"), ("unparsed", "right"), ("wrong", "wrong")]
    assert [(c.k, c.token_ids, c.text) for c in judged] == [(c.k, c.token_ids, c.text) for c in completions]
    assert completions[0].strict is None


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("end", ["", "#### 42"])
def test_a_million_hostile_characters(unit: str, end: str) -> None:
    text = unit * (1_000_000 // len(unit)) + end
    strict, flexible = verify(PROBLEM, text), verify(PROBLEM, text, mode="flexible")
    assert strict.outcome != "timeout"
    if end and not unit.endswith("#"):
        assert strict.outcome == flexible.outcome == "right"


def test_the_end_of_a_long_text_is_what_counts() -> None:
    assert flexible_answer("7 pens" + "a " * MAX_CHARS) is None
    assert flexible_answer("a " * MAX_CHARS + "7 pens") == "7"


def test_white_space_after_the_answer_is_no_text() -> None:
    assert strict_answer("#### 42" + " \n" * 1000) == "42"


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_total_and_flexible_agrees_with_strict(text: str) -> None:
    strict, flexible = strict_answer(text), flexible_answer(text)
    if strict is not None:
        assert flexible == strict
        assert verify(Problem("q", "?", answer=strict), text).outcome == "right"
    for answer in (strict, flexible):
        assert answer is None or str(answer).isascii()


@settings(deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_total_on_any_text(text: str) -> None:
    assert verify(PROBLEM, text).outcome in ("right", "wrong", "unparsed")
    assert verify(PROBLEM, f"#### {text}", mode="flexible").outcome in ("right", "wrong", "unparsed")


@settings(deadline=None, derandomize=True)
@given(st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6))
def test_what_is_written_is_read_again(value: Fraction) -> None:
    written = strict_answer(f"#### {value.numerator}/{value.denominator}")
    assert written is not None
    assert Fraction(written) == parse_number(written) == value
    assert strict_answer(f"#### {written}") == flexible_answer(f"It is {written}.") == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (f"1/{2**99}", f"1/{2**99}"),  # as a decimal it would be longer than what is read
        (f"-1/{2**10}", "-0.0009765625"),
        ("." + "0" * 97 + "1", "0." + "0" * 97 + "1"),
        ("." + "0" * 98 + "1", None),  # neither writing can be read again
        ("." + "0" * 60 + "1/3", f"1/3{'0' * 61}"),
        ("." + "0" * 95 + "1/300", None),
    ],
)
def test_what_is_written_is_within_the_bound_on_what_is_read(text: str, written: str | None) -> None:
    assert strict_answer(f"#### {text}") == written
    assert written is None or strict_answer(f"#### {written}") == written


@settings(deadline=None, derandomize=True)
@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_decimals_and_commas(scaled: int, num_places: int) -> None:
    value = Fraction(scaled, 10**num_places)
    text = f"{'-' if value < 0 else ''}{abs(scaled) // 10**num_places:,}"
    if num_places:
        text += f".{abs(scaled) % 10**num_places:0{num_places}d}"
    assert parse_number(text) == value
    assert flexible_answer(f"That makes {text} in all.") == strict_answer(f"#### ${text}.")
