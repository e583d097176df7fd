"""Accuracy by iteration: which models lie on one line."""

from __future__ import annotations

from typing import Any

from selftrain.report.progression import OWN, SAMPLER, by_iteration


def row(kind: str, stage: str, label: str, accuracy: float | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "stage": f"{stage}/evaluate/first",
        "label": label,
        "accuracy": accuracy and {"accuracy": accuracy},
    }


WARMUP = row("warm-up", "0-warmup", "warm-up (SFT on labelled)", 0.1)
ROWS = [
    row("base", "0-base", "base model", 0.01), WARMUP,
    row("sampler", "1-iteration/sampler", "DPO sampler, iteration 1", 0.2),
    row("iteration", "1-iteration", "iteration 1", 0.3),
    row("sampler", "2-iteration/sampler", "DPO sampler, iteration 2", 0.4),
    row("iteration", "2-iteration", "iteration 2", 0.5),
    row("baseline", "baseline-st/1-iteration", "plain ST, iteration 1", 0.25),
    row("baseline", "baseline-st/2-iteration", "plain ST, iteration 2", None),
    row("baseline", "baseline-sft-matched/sft-matched", "SFT on labelled, equal steps", 0.15),
]  # fmt: skip


def test_lines_by_arm_begin_with_the_warm_up() -> None:
    lines = {line.label: [(at, found["accuracy"]) for at, found in line.points] for line in by_iteration(ROWS)}
    assert lines == {
        SAMPLER: [(1, 0.2), (2, 0.4)],
        OWN: [(0, 0.1), (1, 0.3), (2, 0.5)],
        "plain ST": [(0, 0.1), (1, 0.25)],
    }


def test_one_iteration_needs_no_such_figure() -> None:
    assert by_iteration(ROWS[:4]) == [] == by_iteration([])
