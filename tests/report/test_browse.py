"""What the sample browser holds: every answer, judged as in the tables, and no more than fits."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selftrain.judged import COMPLETIONS
from selftrain.records import Completion, Problem, read_jsonl, write_jsonl
from selftrain.report.browse import Source, answer_set, run_browser
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles


def browser_of(folder: Path) -> Any:
    run = RunFiles(folder)
    return run_browser(run, collect(run)["test_sets"])


def right(one: Any, model: str) -> set[str]:
    """Ids of the problems that a model answers rightly."""
    place = [found["label"] for found in one["models"]].index(model)
    ids = [one["problems"][problem]["id"] for problem, _ in one["rows"]]
    return {name for name, row in zip(ids, one["answers"], strict=True) if row[place] and row[place].get("right")}


def test_every_model_of_every_test_set_is_there(finished: Path) -> None:
    first, second, sampled = browser_of(finished)["sets"]
    assert [one["title"] for one in (first, second)] == ["test set first", "test set second"]
    assert [model["label"] for model in first["models"]] == [
        "base model, zero-shot", "warm-up (SFT on labelled)", "DPO sampler, iteration 1", "iteration 1",
    ]  # fmt: skip
    assert (first["first"], first["second"], second["first"], second["second"]) == (1, 3, 0, 1)
    assert first["note"] == "All 20 problems are here." and len(first["rows"]) == 20 and "sampled" not in first
    assert right(first, "iteration 1") == {f"p{i}" for i in range(19)} - {"p4"}
    assert right(first, "base model, zero-shot") == {"p0"}, "the base model is judged by the flexible extraction"
    assert sampled["sampled"] and len(sampled["rows"]) == 12


def test_draws_before_and_after_dpo_stand_side_by_side(finished: Path) -> None:
    sampled = browser_of(finished)["sets"][-1]
    assert [m["label"] for m in sampled["models"]] == ["iteration 1, drawn for pairs", "iteration 1, drawn for labels"]
    u1 = [problem["id"] for problem in sampled["problems"]].index("u1")
    rows = [row for at, row in zip(sampled["rows"], sampled["answers"], strict=True) if at[0] == u1]
    # before RWR, after RR and no third draw
    assert [[one and one.get("right", 0) for one in row] for row in rows] == [[1, 1], [0, 1], [1, None]]


def test_further_draws_stand_beside_the_first_ones(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    file = copy / "1-iteration/sample-for-labels" / COMPLETIONS
    write_jsonl(file, [dataclasses.replace(c, k=c.k + 3) for c in read_jsonl(file, Completion)])
    assert browser_of(copy)["sets"][-1] == browser_of(finished)["sets"][-1]


def test_what_the_calculator_wrote_is_every_second_piece(finished: Path) -> None:
    first = browser_of(finished)["sets"][0]
    answer = first["answers"][0][3]
    assert answer["text"][1::2] == ["42>>"] and answer["text"][2].startswith("42 p") and answer["calls"] == 1
    assert not set("\x00\x1b\u202e") & set(json.dumps(first, ensure_ascii=False))


def test_a_run_without_answers_has_no_browser(make_until: Callable[[str], Path]) -> None:
    assert browser_of(make_until("data")) is None


def test_one_model_is_shown_alone(make_until: Callable[[str], Path]) -> None:
    (first,) = browser_of(make_until("0-base/evaluate/first"))["sets"]
    assert (first["first"], first["second"]) == (0, None)


def some(num: int, text: str = "6*7=<<6*7=42>>42") -> tuple[list[Problem], list[Completion]]:
    problems = [Problem(f"q{i}", f"{i}?", "42") for i in range(num)]
    return problems, [Completion(problem.id, k, (1,), text, "eos", ((0, 1),)) for problem in problems for k in (0, 1)]


def test_whole_problems_are_kept_while_they_fit_whatever_their_order() -> None:
    problems, completions = some(200)
    sources = [Source.of("a", "strict", completions), Source.of("b", "strict", completions)]
    one = answer_set("x", problems, sources, 0, 1, 20_000)
    kept = [problem["id"] for problem in one["problems"]]
    assert 20 < len(kept) < 200 and one["rows"] == [[place, k] for place in range(len(kept)) for k in (0, 1)]
    assert len(json.dumps(one)) < 22_000
    assert one["note"].startswith(f"{len(kept)} of 200 problems are here, chosen by a hash")
    assert kept == sorted(kept, key=lambda name: int(name[1:])) != [f"q{i}" for i in range(len(kept))]
    turned = answer_set("x", problems[::-1], sources[::-1], 0, 1, 20_000)
    assert {problem["id"] for problem in turned["problems"]} == set(kept)


def test_a_text_that_is_cut_says_so() -> None:
    problems, _ = some(1)
    long = Completion("q0", 0, (1,), "y" * 5000, "eos")
    (row,) = answer_set("x", problems, [Source.of("a", "strict", [long])], 0, None, 10_000)["answers"]
    assert row[0]["cut"] == 1 and len(row[0]["text"][0]) == 3000
