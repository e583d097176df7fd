"""What is trained: cut to steps, counted by hand, handed to a rival as the same rows, and free of texts and folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training_work import (
    Amount,
    TrainingTask,
    amount_of,
    cut,
    load_training_task,
    micro_batches,
    objective_of,
    rival_rows,
    row_tokens,
    rows_at_once,
    step_rows,
    tasks_of,
)
from selftrain.config import DPOConfig, SFTConfig
from selftrain.errors import DataError, RunError
from selftrain.records import Example
from selftrain.stages.data import load_sets
from selftrain.training.dpo import DPOObjective, Question

PROMPT = (5, 6, 7)


def question(number: int, num_losers: int = 2) -> Question:
    """A winner of 4 tokens and losers of 6: 1 pair a loser."""
    losers = tuple((number, 20 + loser, 1, 1, 1, 2) for loser in range(num_losers))
    pairs = tuple((0, 1 + loser, 1.0) for loser in range(num_losers))
    return Question(f"q{number}", PROMPT, ((number, 8, 9, 2), *losers), pairs)


def dpo_task(*questions: Question, steps: int = 99, **changes: Any) -> TrainingTask:
    settings = DPOConfig(batch_size=2, max_steps=steps).model_dump(mode="json")
    task = TrainingTask("dpo", "/somewhere/model", "abc", questions, (), settings, 3, 64, False)
    return dataclasses.replace(task, **changes)


def sft_task(*lengths: int) -> TrainingTask:
    examples = tuple(
        Example(f"e{n}", PROMPT, tuple(range(10, 10 + length)), "gold") for n, length in enumerate(lengths)
    )
    settings = SFTConfig(batch_size=2, epochs=1).model_dump(mode="json")
    return TrainingTask("sft", "/somewhere/model", "abc", (), examples, settings, 3, 64, False)


def test_a_prompt_and_a_shared_winner_count_once() -> None:
    amount = amount_of(objective_of(dpo_task(*(question(n) for n in range(4))), 0, "trees"))
    # Of 4 steps of one question (2 pairs each) 3 are timed; 3 + 4 + 6 + 6 tokens a question.
    assert amount == Amount(questions=3, pairs=6, completions=9, tokens=3 * 19, head_tokens=3 * 16)
    assert amount == amount_of(objective_of(dpo_task(*(question(n) for n in range(4))), 0, "rows"))


def test_flops_are_6_a_parameter_and_token_and_2_more_with_a_reference() -> None:
    amount = Amount(questions=1, pairs=1, completions=2, tokens=13, head_tokens=10)
    assert amount.flops(body=100, head=7, reference=False) == 6 * (100 * 11 + 7 * 10)
    assert amount.flops(body=100, head=7, reference=True) == 8 * (100 * 11 + 7 * 10)


def test_a_rival_gets_the_warm_up_step_filled_and_then_the_timed_rows_by_length() -> None:
    task = dpo_task(question(1, 1), question(2, 2), question(3, 1), question(4, 2))
    objective = objective_of(task, 0, "rows")
    warm_up, *timed = step_rows(objective)
    rows = rival_rows(objective)
    assert all(row in warm_up for row in rows[:2])
    expected = [row for step in timed for row in step]
    assert len(rows) == 2 + len(expected)
    assert all(row in rows[2:] for row in expected)
    lengths = [row_tokens(row)[1] for row in rows[2:]]
    assert lengths == sorted(lengths, reverse=True)


def test_an_examples_labels_leave_the_prompt_out() -> None:
    (first, *_), *_ = step_rows(objective_of(sft_task(4, 4), 0, "rows"))
    assert first == {"input_ids": [5, 6, 7, 10, 11, 12, 13], "labels": [-100, -100, -100, 10, 11, 12, 13]}


def test_padding_counts_in_a_rivals_forwards() -> None:
    rows = [{"input_ids": [0] * length, "labels": [0] * length} for length in (9, 7, 4)]
    assert micro_batches(rows, 2) == [18, 4]
    pair = {"prompt_ids": [1] * 3, "chosen_ids": [1] * 2, "rejected_ids": [1] * 5}
    assert row_tokens(pair) == (2, 8)
    assert micro_batches([pair, pair], 2) == [32]


@pytest.mark.parametrize(("tokens", "expected"), [(50, 1), (160, 2), (260, 2), (1000, 8)])
def test_rows_at_once_come_nearest_to_the_tokens(tokens: int, expected: int) -> None:
    rows = [{"input_ids": [0] * 100, "labels": [0] * 100}] * 16
    assert rows_at_once(rows, 8, tokens) == expected


def test_a_task_survives_its_file_and_names_no_folder(tmp_path: Path) -> None:
    for task in (dpo_task(*(question(n) for n in range(4))), sft_task(3, 4, 5, 6)):
        assert load_training_task(task.save(tmp_path)) == task
        assert "somewhere" not in json.dumps(task.facts())
        assert dataclasses.replace(task, model="/elsewhere").fingerprint() == task.fingerprint()
        assert dataclasses.replace(task, seed=4).fingerprint() != task.fingerprint()


def test_a_runs_work_is_what_its_stages_trained_on(run_folder: Path) -> None:
    said: list[str] = []
    tasks = tasks_of(run_folder, None, ["dpo", "single", "sft"], 300, said.append)
    problems = {problem.id: problem for problem in load_sets(run_folder / "data").questions}
    assert said == ["start weights: the run's delivered model, its warm-up weights being released"]
    dpo, single, sft = (objective_of(tasks[name], 0, "trees") for name in ("dpo", "single", "sft"))
    assert isinstance(dpo, DPOObjective)
    assert isinstance(single, DPOObjective)
    assert {q.problem_id for q in dpo.questions} <= set(problems)
    assert {len(q.pairs) for q in dpo.questions} == {1, 2}
    assert {len(q.pairs) for q in single.questions} == {1}
    assert {len(q.completions) for q in single.questions} == {2}
    # smoke's own stage order: the same batches, cut off
    whole = DPOObjective(
        tasks["dpo"].questions, DPOConfig.model_validate({**tasks["dpo"].settings, "max_steps": 99}),
        seed=tasks["dpo"].seed, pad_id=0, encoder_decoder=False,
    )  # fmt: skip
    order = [[whole.questions[item].problem_id for item in batch] for batch in whole.plan.batches]
    taken = [[dpo.questions[item].problem_id for item in batch] for batch in dpo.plan.batches]
    assert taken == order[: len(taken)]
    assert 2 <= len(taken) < len(order)
    for task in tasks.values():
        facts = json.dumps(task.facts())
        assert not any(problem.question[:20] in facts for problem in problems.values())
        assert task.facts()["steps"] == objective_of(task, 0, "rows").plan.num_steps - 1 >= 1
    assert sft.plan.num_steps == tasks["sft"].settings["max_steps"]


def test_a_larger_budget_takes_more_steps_up_to_all(run_folder: Path) -> None:
    def steps(budget: int) -> int:
        return int(tasks_of(run_folder, None, ["sft"], budget, lambda _: None)["sft"].facts()["steps"])

    assert steps(1) == 1
    assert 1 < steps(400) < steps(10**9) == 47  # 12 rows, 16 epochs, batches of 4: 48 steps, one of them warm-up


def test_what_cannot_be_trained_is_explained(tmp_path: Path, run_folder: Path) -> None:
    with pytest.raises(RunError, match="no finished iteration"):
        tasks_of(tmp_path, None, ["dpo"], 300, lambda _: None)
    with pytest.raises(DataError, match="at least 2 optimiser steps, got 1"):
        cut(dpo_task(question(1)), 300)
