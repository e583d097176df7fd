"""Problems made by reasoning-gym: templates, annotations, answers, and sets that must not collide."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest

from selftrain.calculator.annotation import find
from selftrain.calculator.expression import canonical
from selftrain.config import DataSpec
from selftrain.data import load, prove_gold
from selftrain.data.base import group_part
from selftrain.data.reasoning_gym import OTHER_ANSWER, SAME_TEXT, check_apart
from selftrain.errors import DataError


def gsm(seed: int = 11_000_000, size: int = 300, **fields: Any) -> DataSpec:
    return DataSpec(source="reasoning_gym:gsm_symbolic", params={"seed": seed, "size": size}, **fields)


def test_rows_are_clean_and_repeatable() -> None:
    pytest.importorskip("reasoning_gym")
    loaded = load(gsm())
    assert len(loaded.problems) + sum(loaded.skipped.values()) == 300
    assert prove_gold(loaded.problems) == []
    assert not any("Give the result" in problem.question for problem in loaded.problems)
    assert loaded.problems == load(gsm()).problems
    assert loaded.digest == load(gsm()).digest != load(gsm(12_000_000)).digest
    assert loaded.problems[0].id.startswith("reasoning_gym/gsm_symbolic-11000000-")


def test_rationales_carry_right_annotations() -> None:
    pytest.importorskip("reasoning_gym")
    annotations = [find(problem.rationale or "", "angle") for problem in load(gsm()).problems]
    assert all(a.value is not None and canonical(a.value) == a.result for found in annotations for a in found)
    # In general 84 % of the rationales have an equation, with 2.0 annotations in the mean over short ones.
    assert sum(bool(found) for found in annotations) > 0.75 * len(annotations)


def test_templates_are_groups_and_split_alike_at_every_seed() -> None:
    pytest.importorskip("reasoning_gym")
    known = load(gsm(group_split="known")).problems
    unseen = load(gsm(13_000_000, group_split="unseen")).problems
    assert {group_part(problem.group or "") for problem in known} == {"known"}
    assert {problem.group for problem in known}.isdisjoint({problem.group for problem in unseen})
    chosen = known[0].group or ""
    assert chosen.startswith("template-")
    assert {problem.group for problem in load(gsm(groups=[chosen])).problems} == {chosen}


def test_other_tasks_give_numbers_without_rationales() -> None:
    pytest.importorskip("reasoning_gym")
    spec = DataSpec(source="reasoning_gym:chain_sum", params={"seed": 5, "size": 20, "min_terms": 2, "max_terms": 3})
    problems = load(spec).problems
    assert problems[0].rationale is None
    assert prove_gold(problems) == []


class StandIn:
    """A data set like gsm_symbolic's, with rows made by hand."""

    seed = 0

    def __init__(self, rows: Sequence[tuple[str, str, str]]) -> None:
        self.rows = rows
        self.task_indices = [7] * len(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        question, answer, worked = self.rows[index]
        return {"question": question, "answer": answer, "metadata": {"answer_cot": worked}}


def test_rows_of_no_use_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("reasoning_gym")
    suffix = " Give the result as your final answer. Do not include units."
    rows = [
        ("2 boxes of 3 pens?" + suffix, "6", "2 boxes x 3 pens/box = 6 pens\n\n  Done.\n#### 6.0"),
        ("2 boxes of 3 pens?", "6", "2*3=6\n#### 6"),
        ("4 boxes?", "6", "2*3=6\n#### 7"),
        ("Who?", "Ann", "Ann\n#### Ann"),
    ]
    monkeypatch.setattr("selftrain.data.reasoning_gym._dataset", lambda spec, task: StandIn(rows))
    loaded = load(gsm())
    assert loaded.skipped == {SAME_TEXT: 1, OTHER_ANSWER: 1, "answer is not a number": 1}
    (problem,) = loaded.problems
    assert problem.question == "2 boxes of 3 pens?"
    assert problem.rationale == "2 boxes x 3 pens/box = <<2*3=6>>6 pens\nDone.\n#### 6"
    assert problem.group == "template-07"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DataError) as caught:
        load(gsm())
    assert "selftrain[gym]" in str(caught.value)
    assert "C compiler" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "params", "said"),
    [
        ("reasoning_gym:gsm_symbolics", {}, "Did you mean 'reasoning_gym:gsm_symbolic'"),
        ("reasoning_gym", {}, "Write reasoning_gym:NAME"),
        ("reasoning_gym:gsm_symbolic", {"size": 2_000_000}, "params.size: expected an integer from 1 to 1000000"),
        ("reasoning_gym:gsm_symbolic", {"seed": -1}, "params.seed"),
        ("reasoning_gym:gsm_symbolic", {"hardness": 3}, "parameters that the task refuses"),
        ("reasoning_gym:gsm_symbolic", {"difficulty": 3.0}, "parameters that the task refuses"),
        ("reasoning_gym:letter_counting", {"size": 3, "min_words": "x"}, "parameters that the task refuses"),
        ("reasoning_gym:syllogism", {"size": 5}, "got none (5 answer is not a number)"),
    ],
)
def test_what_cannot_be_made(source: str, params: dict[str, Any], said: str) -> None:
    pytest.importorskip("reasoning_gym")
    with pytest.raises(DataError) as caught:
        load(DataSpec(source=source, params=params))
    assert said in str(caught.value)


def test_seeds_that_are_too_near() -> None:
    check_apart([gsm(0, 100), gsm(1_000_000, 100), gsm(0, 50), gsm(100, 100)])
    with pytest.raises(DataError, match="seeds 0 and 99 are too near"):
        check_apart([gsm(0, 100), gsm(99, 1)])
    other = DataSpec(source="reasoning_gym:chain_sum", params={"seed": 1, "size": 100})
    check_apart([gsm(0, 100), other])
