"""Formulas as steps: worked by hand, and against Python's own arithmetic on made-up formulas."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.calculator.annotation import find
from selftrain.calculator.expression import evaluate
from selftrain.data.formula import NOT_ARITHMETIC, NOT_EQUAL, FormulaError, rationale, steps


@pytest.mark.parametrize(
    ("formula", "lines"),
    [
        ("14*6=84", ["14*6=<<14*6=84>>84"]),
        ("(3+4)*2=14", ["3+4=<<3+4=7>>7", "7*2=<<7*2=14>>14"]),
        ("5+5+5", ["5+5+5=<<5+5+5=15>>15"]),
        ("98-43-36=19", ["98-43-36=<<98-43-36=19>>19"]),
        ("2*9+3=21 ", ["2*9=<<2*9=18>>18", "18+3=<<18+3=21>>21"]),
        ("( ( 43.0 * 23.0 ) + 8.0 )", ["43*23=<<43*23=989>>989", "989+8=<<989+8=997>>997"]),
        ("(3*8)+(3*8)=48", ["3*8=<<3*8=24>>24", "24+24=<<24+24=48>>48"]),
        (
            "4+(9-4)*(7-1)=34",
            ["9-4=<<9-4=5>>5", "7-1=<<7-1=6>>6", "5*6=<<5*6=30>>30", "4+30=<<4+30=34>>34"],
        ),
        ("1.50/0.50=3", ["1.5/0.5=<<1.5/0.5=3>>3"]),
        ("1,200+1=1201", ["1200+1=<<1200+1=1201>>1201"]),
        ("36/3*2", ["36/3*2=<<36/3*2=24>>24"]),
    ],
)
def test_steps_worked_by_hand(formula: str, lines: list[str]) -> None:
    assert steps(formula) == lines


def test_parts_without_exact_writing_stay_in_parentheses() -> None:
    assert steps("(1/3)*6") == ["(1/3)*6=<<(1/3)*6=2>>2"]
    assert steps("10-(3-5)") == ["10-(3-5)=<<10-(3-5)=12>>12"]
    assert steps("((2+5)/3)*6") == ["2+5=<<2+5=7>>7", "(7/3)*6=<<(7/3)*6=14>>14"]


@pytest.mark.parametrize(
    "formula",
    ["", "84", "=84", "LCM[11,3]=33", "2(6+3)=18", "12=4*R", "3**2", "7//2", "5%", "-3+5", "4/0", "(3+4", "3+4)", "3 4"]
    + ["3+", "3.", "9=3;2+1=3", "1+" * 101 + "1", "(" * 30 + "1+1" + ")" * 30, "²+1", "9" * 40 + "+1"],
)
def test_what_is_not_arithmetic(formula: str) -> None:
    with pytest.raises(FormulaError, match="not arithmetic"):
        steps(formula)
    assert NOT_ARITHMETIC.startswith("formula is not arithmetic")


def test_values_without_exact_decimal_are_refused() -> None:
    with pytest.raises(FormulaError, match="not exactly equal"):
        steps("2/3")
    with pytest.raises(FormulaError, match="not exactly equal"):
        steps("0.1234567+1")


def test_rationale_needs_exact_equality() -> None:
    assert rationale("7+2=9", "9") == "7+2=<<7+2=9>>9\n#### 9"
    assert rationale("( 5.0 - 8.0 )", "-3") == "5-8=<<5-8=-3>>-3\n#### -3"
    for formula, answer in (("810/4=202 r2", "203"), ("2/3", "0.67"), ("7+2=10", "10")):
        with pytest.raises(FormulaError) as caught:
            rationale(formula, answer)
        assert str(caught.value) == NOT_EQUAL


NUMBERS = st.integers(0, 60).map(str) | st.sampled_from(["0.5", "2.25", "1.2"])
FORMULAS = st.recursive(
    NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner, st.booleans()).map(
        lambda parts: f"({parts[0]}{parts[1]}{parts[2]})" if parts[3] else f"{parts[0]}{parts[1]}{parts[2]}"
    ),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(FORMULAS)
def test_every_line_is_exact_and_the_last_is_the_formula(formula: str) -> None:
    try:
        lines = steps(formula)
    except FormulaError:
        return
    annotations = [find(line, "angle")[0] for line in lines]
    assert all(Fraction(found.result) == evaluate(found.expression) for found in annotations)
    assert Fraction(annotations[-1].result) == evaluate(formula)
    assert len(set(lines)) == len(lines)
