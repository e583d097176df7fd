"""Effect of the DPO step and health of the selection, against figures worked out by hand (see conftest)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.recipe import load_config
from selftrain.records import Completion, Verdict
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.report.learning import by_question, drawn, health, iterations_of


@pytest.fixture
def dpo(finished: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = collect(RunFiles(finished))["dpo"]
    assert len(rows) == 1
    return rows[0]


@pytest.fixture
def selection(finished: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = collect(RunFiles(finished))["selection"]
    assert len(rows) == 1
    return rows[0]


def values(rows: list[dict[str, Any]]) -> dict[int, Any]:
    return {row["k"]: pytest.approx(row["value"]) for row in rows}


def test_dpo_figures(dpo: dict[str, Any]) -> None:
    assert (dpo["iteration"], dpo["pairs"], dpo["steps"], dpo["done"]) == (1, 3, 2, True)
    assert dpo["after_training"]["reward_accuracy"] == pytest.approx(2 / 3)
    assert dpo["after_training"]["chosen_change_per_token"] == -0.01
    assert dpo["sampled_from_dpo"] is True


def test_changed_fraction_counts_common_draws(dpo: dict[str, Any]) -> None:
    # 8 draws (question, k < 2) are common, u0's two are equal
    assert dpo["changed_fraction"] == pytest.approx(6 / 8)


def test_pass_at_k_before_and_after(dpo: dict[str, Any]) -> None:
    # right of 3: 3, 2, 0, 1
    assert values(dpo["before"]["pass_at"]) == {1: 6 / 12, 2: (1 + 1 + 0 + 2 / 3) / 4, 3: 3 / 4}
    # right of 2: 2, 2, 1, 0
    assert values(dpo["after"]["pass_at"]) == {1: 5 / 8, 2: 3 / 4}
    assert all(row["low"] <= row["value"] <= row["high"] for row in dpo["before"]["pass_at"])


def test_maj_at_k_before_and_after(dpo: dict[str, Any]) -> None:
    # first two: RR right, RW a tie that the first wins, WW wrong, WR the first wins; three: RRR RWR right, others wrong
    assert values(dpo["before"]["maj_at"]) == {2: 2 / 4, 3: 2 / 4}
    assert values(dpo["after"]["maj_at"]) == {2: 2 / 4}


def test_distinct_right_texts_among_the_common_draws(dpo: dict[str, Any]) -> None:
    # before: u0 1 (its two are equal), u1 1, u3 1; after: u0 1, u1 2, u2 1
    assert (dpo["before"]["distinct_right"], dpo["after"]["distinct_right"]) == (3, 4)


def test_warnings_are_told_once(dpo: dict[str, Any], finished: Path) -> None:
    assert dpo["warnings"] == ["<i>did next to nothing</i>"]
    assert collect(RunFiles(finished))["warnings"] == [
        {"stage": "1-iteration", "message": "<i>did next to nothing</i>"}
    ]


def test_selection_shares(selection: dict[str, Any]) -> None:
    first, second = selection["sampled_for_pairs"], selection["sampled_for_labels"]
    assert (first["questions"], first["completions"], first["right"]) == (4, 12, 6)
    assert (first["all_right"], first["mixed"], first["all_wrong"]) == (1, 2, 1)
    assert (first["all_right_share"], first["mixed_share"], first["all_wrong_share"]) == (0.25, 0.5, 0.25)
    assert (second["all_right"], second["mixed"], second["all_wrong"], second["yield"]) == (2, 1, 1, 0.625)
    assert first["forced_share"] == 0.5


def test_pairs_and_labels(selection: dict[str, Any]) -> None:
    pairing, labelling = selection["pairing"], selection["labelling"]
    assert (pairing["pairs"], pairing["questions_with_pairs"], pairing["pairs_per_question"]) == (3, 2, 1.5)
    assert (pairing["gold_winner_pairs"], pairing["gold_winner_questions"]) == (2, 2)
    assert (pairing["lost_exact"], pairing["lost_near"]) == (1, 2)
    assert (labelling["gold"], labelling["kept"], labelling["questions_with_labels"]) == (3, 3, 2)
    assert (labelling["right_in_pool"], labelling["lost_exact"], labelling["lost_to_cap"], labelling["cap"]) == (
        5,
        1,
        1,
        3,
    )


def test_before_dpo_is_done_there_is_only_one_side(make_until: Callable[[str], Path]) -> None:
    results = collect(RunFiles(make_until("1-iteration/pair")))
    row = results["dpo"][0]
    assert row["pairs"] == 3 and not row["done"]
    assert (row["after"], row["changed_fraction"], row["after_training"]) == (None, None, None)
    assert row["before"]["k"] == 3
    assert results["selection"][0]["sampled_for_labels"] is None


def test_collapse_and_no_pairs_come_from_the_journal(make_until: Callable[[str], Path]) -> None:
    folder = make_until("1-iteration/dpo")
    with (folder / "journal.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"event": "collapse", "stage": "1-iteration/dpo", "reason": "lost 0.40 nats"}\n')
        out.write('{"event": "collapse", "stage": "11-iteration/dpo", "reason": "another"}\n')
        out.write('{"event": "torn')
    row = collect(RunFiles(folder))["dpo"][0]
    assert row["collapse"] == ["lost 0.40 nats"] and not row["no_pairs"]


def test_health_of_nothing_and_unparsed() -> None:
    empty = health({})
    assert (empty["questions"], empty["yield"], empty["mixed_share"]) == (0, 0.0, 0.0)
    row = Completion("q", 0, (1,), "?", "length", strict=Verdict("unparsed", None))
    found = health({"q": [row]})
    assert (found["unparsed"], found["cut_at_limit"], found["all_wrong"]) == (1, 1, 1)
    late = Completion("q", 1, (1,), "?", "eos", strict=Verdict("timeout"))
    assert (health({"q": [row, late]})["timeouts"], health({"q": [row, late]})["unparsed"]) == (1, 1)


def test_completions_are_ordered_by_k_whatever_the_file_says() -> None:
    rows = [Completion("q", k, (k,), str(k), "eos", strict=Verdict("right", "1")) for k in (2, 0, 1)]
    assert [row.k for row in by_question(rows)["q"]] == [0, 1, 2]
    assert drawn(by_question(rows), 2, {})["distinct_right"] == 2


def test_iterations_of_all_arms() -> None:
    config = load_config("smoke", ["schedule.iterations=2", "baselines=[st-matched, sft-matched]"])
    run = type("Run", (), {"config": config})()
    assert iterations_of(run) == [
        ("", 1, "1-iteration"),
        ("", 2, "2-iteration"),
        ("st-matched", 1, "baseline-st-matched/1-iteration"),
        ("st-matched", 2, "baseline-st-matched/2-iteration"),
    ]
