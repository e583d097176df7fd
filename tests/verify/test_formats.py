"""How answers are written, counted; and that each problem is judged by its own verifier."""

from __future__ import annotations

import pytest

from selftrain.records import Completion, Problem, from_dict, to_dict
from selftrain.verify import judge, numeric, verdicts
from selftrain.verify.formats import answer_format, count_formats, formats_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2+2=<<2+2=4>>4\n#### 4", "####"),
        ("so \\boxed{4}", "\\boxed"),
        ("(b)", "letter"),
        ("B", "letter"),
        ("7", "number"),
        ("$1,234.50", "number"),
        ("1/2", "number"),
        ("That makes 7 pens.", "text with a number"),
        ("x^2", "text with a number"),
        ("blue", "text"),
        ("", "text"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert answer_format(text) == expected


def test_counts_begin_with_the_commonest() -> None:
    counts = count_formats(["B", "7", "8", "#### 7", "9"])
    assert list(counts.items()) == [("number", 3), ("letter", 1), ("####", 1)]
    assert formats_text(counts) == "3 number, 1 letter, 1 ####"


def test_each_problem_is_judged_by_its_own_verifier() -> None:
    assert verdicts(Problem("q", "?", "7"), "#### 7.0")[0].outcome == "right"
    assert verdicts(Problem("q", "?", "B", verify="choice"), "#### (b)")[0].outcome == "right"
    assert verdicts(Problem("q", "?", "7", verify="choice"), "#### 7")[0].source == numeric.NO_GOLD


def test_numbers_are_judged_as_by_numeric_alone() -> None:
    problem = Problem("q", "?", "42")
    completions = [
        Completion("q", k, (5,), text, "eos") for k, text in enumerate(["#### 42", "It is 42.", "no", "#### 4"])
    ]
    for found in judge(problem, completions):
        strict, flexible = (numeric.verify(problem, found.text, mode=mode) for mode in ("strict", "flexible"))
        assert (found.strict, found.flexible) == (strict, flexible)


def test_the_verifier_travels_with_the_problem_and_old_records_have_none() -> None:
    assert to_dict(Problem("q", "?", "7")) == {"id": "q", "question": "?", "answer": "7"}
    assert from_dict(Problem, {"id": "q", "question": "?", "answer": "7"}).verify == "numeric"
    chosen = Problem("q", "?", "B", verify="choice")
    assert from_dict(Problem, to_dict(chosen)) == chosen
