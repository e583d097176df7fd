"""Accuracies, tests and the headline, against figures worked out by hand (see conftest)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.metrics import PairedTest
from selftrain.recipe import load_config
from selftrain.records import Completion, Verdict, read_jsonl, write_jsonl
from selftrain.report.accuracy import accuracy_of, models_of, verdict_of
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles

WRONG = Verdict("wrong", "7")


def results_of(folder: Path) -> dict[str, Any]:
    return collect(RunFiles(folder))


def models(results: dict[str, Any], test_set: int = 0) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in results["test_sets"][test_set]["models"]}


def test_accuracies_are_counted_from_the_completions(finished: Path) -> None:
    rows = models(results_of(finished))
    right = {key: (row["accuracy"]["right"], row["accuracy"]["rows"]) for key, row in rows.items()}
    assert right == {"base": (1, 20), "warm-up": (5, 20), "sampler-1": (10, 20), "iteration-1": (18, 20)}
    # Wilson's interval of 18 out of 20, 95 %
    assert rows["iteration-1"]["accuracy"]["low"] == pytest.approx(0.6990, abs=1e-4)
    assert rows["iteration-1"]["accuracy"]["high"] == pytest.approx(0.9721, abs=1e-4)
    assert [key for key, row in rows.items() if row["delivered"]] == ["iteration-1"]


def test_only_the_base_model_is_judged_by_the_flexible_extraction(finished: Path) -> None:
    rows = models(results_of(finished))
    assert {key: row["extraction"] for key, row in rows.items() if row["extraction"] != "strict"} == {
        "base": "flexible"
    }
    assert rows["base"]["strict"]["right"] == 0 and rows["base"]["flexible"]["right"] == 1


def test_changing_one_stored_sample_changes_the_accuracy_and_the_test(finished: Path) -> None:
    before = results_of(finished)
    path = finished / "1-iteration/evaluate/first/completions.jsonl"
    rows = read_jsonl(path, Completion)
    write_jsonl(path, [row if row.problem_id != "p18" else dataclasses.replace(row, strict=WRONG) for row in rows])
    after = results_of(finished)
    assert before["headline"]["delivered"]["accuracy"] == pytest.approx(18 / 20)
    assert after["headline"]["delivered"]["accuracy"] == pytest.approx(17 / 20)
    assert after["headline"]["p_value"] > before["headline"]["p_value"]


def test_the_headline_is_the_paired_test_against_the_warm_up(finished: Path) -> None:
    headline = results_of(finished)["headline"]
    # McNemar 14 : 1, exact, two-sided: 2 * (1 + 15) / 2**15
    assert headline["p_value"] == pytest.approx(32 / 2**15)
    assert (headline["test_set"], headline["against"], headline["verdict"]) == ("first", "warm-up", "better")
    assert headline["sentence"].startswith(
        "On first, the delivered model is better than the warm-up model: +65.0 points"
    )


def test_comparisons_join_by_problem_and_name_both_sides(finished: Path) -> None:
    rows = {row["second"]: row for row in results_of(finished)["test_sets"][0]["comparisons"]}
    assert list(rows) == ["base", "warm-up"]
    assert (rows["warm-up"]["only_a"], rows["warm-up"]["only_b"], rows["warm-up"]["num"]) == (14, 1, 20)
    assert (rows["base"]["only_a"], rows["base"]["only_b"]) == (17, 0)


def test_a_model_that_lost_is_called_worse(finished: Path) -> None:
    lost = [Completion(f"p{i}", 0, (1,), "", "eos", strict=WRONG, flexible=WRONG) for i in range(20)]
    write_jsonl(finished / "1-iteration/evaluate/first/completions.jsonl", lost)
    headline = results_of(finished)["headline"]
    # against the warm-up's 5 of 20: McNemar 0 : 5, p = 2 / 2**5 = 0.0625, not below 0.05
    assert (headline["verdict"], headline["p_value"]) == ("not shown", pytest.approx(0.0625))
    right = Verdict("right", "42")
    won = [Completion(f"p{i}", 0, (1,), "", "eos", strict=right, flexible=right) for i in range(20)]
    write_jsonl(finished / "0-warmup/evaluate/first/completions.jsonl", won)
    headline = results_of(finished)["headline"]
    assert (headline["verdict"], headline["p_value"]) == ("worse", pytest.approx(2 / 2**20))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.1, 0.1, "not shown"), (0.0, 0.1, "not shown")],
)
def test_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    assert verdict_of(PairedTest(10, 0.0, low, high, 0.5, 0, 0, False)) == verdict


def test_sets_with_groups_are_clustered_and_absent_rows_of_a_finished_run_are_left_out(finished: Path) -> None:
    second = results_of(finished)["test_sets"][1]
    assert (second["name"], second["rows"], second["groups"]) == ("second", 8, 4)
    assert [row["key"] for row in second["models"]] == ["warm-up", "iteration-1"]
    assert second["models"][1]["accuracy"]["groups"] == 4
    # three of four groups of two gained: of the 2**4 sign patterns of (2, 2, 2, 0), 4 reach |6|
    assert second["comparisons"][0]["p_value"] == pytest.approx(0.25)
    assert second["comparisons"][0]["clustered"]


def test_rows_without_a_training_neighbour_are_counted_apart(finished: Path) -> None:
    results = results_of(finished)
    rows = models(results)
    assert results["test_sets"][0]["with_neighbour"] == 5
    alone = {key: (row["without_neighbour"]["right"], row["without_neighbour"]["rows"]) for key, row in rows.items()}
    assert alone == {"base": (0, 15), "warm-up": (0, 15), "sampler-1": (5, 15), "iteration-1": (14, 15)}


def test_the_calculator_is_compared_on_the_same_rows(finished: Path) -> None:
    base, final = results_of(finished)["test_sets"][0]["without_calculator"]
    assert (base["rows"], base["with"]["right"], base["without"]["right"]) == (4, 1, 0)
    assert (final["rows"], final["with"]["right"], final["without"]["right"]) == (4, 4, 2)
    assert final["delivered"] and not base["delivered"]


def test_calls_and_forced_tokens_are_counted(finished: Path) -> None:
    row = models(results_of(finished))["warm-up"]
    assert (row["calls"], row["calls_per_completion"], row["tokens"], row["forced_tokens"]) == (20, 1.0, 80, 40)


def test_an_unfinished_run_has_rows_to_come_and_no_verdict(make_until: Callable[[str], Path]) -> None:
    results = results_of(make_until("1-iteration/dpo"))
    rows = models(results)
    assert list(rows) == ["base", "warm-up", "sampler-1", "iteration-1"]
    assert rows["warm-up"]["accuracy"]["right"] == 5
    assert rows["sampler-1"]["accuracy"] is None and rows["iteration-1"]["accuracy"] is None
    assert results["headline"]["verdict"] == "not there yet"
    assert results["headline"]["warm_up"]["right"] == 5 and results["headline"]["delivered"] is None
    assert results["test_sets"][0]["comparisons"] == []


def test_models_of_every_arm() -> None:
    config = load_config("smoke", ["schedule.iterations=2", "baselines=[st, sft-matched]"])
    assert [(model.key, model.at) for model in models_of(config)] == [
        ("base", "0-base"),
        ("warm-up", "0-warmup"),
        ("sampler-1", "1-iteration/sampler"),
        ("iteration-1", "1-iteration"),
        ("sampler-2", "2-iteration/sampler"),
        ("iteration-2", "2-iteration"),
        ("st-1", "baseline-st/1-iteration"),
        ("st", "baseline-st/2-iteration"),
        ("sft-matched", "baseline-sft-matched/sft-matched"),
    ]
    assert [model.kind for model in models_of(load_config("smoke", ["method=sft"]))] == ["base", "warm-up"]
    assert "sampler" not in {model.kind for model in models_of(load_config("smoke", ["method=st"]))}


def test_accuracy_of_groups_is_wider_than_of_independent_rows() -> None:
    verdicts = {f"q{i}": i < 8 for i in range(16)}
    groups = {f"q{i}": f"g{i // 4}" for i in range(16)}
    alone, clustered = accuracy_of(verdicts), accuracy_of(verdicts, groups)
    assert alone["accuracy"] == clustered["accuracy"] == 0.5
    assert clustered["high"] - clustered["low"] > alone["high"] - alone["low"]
