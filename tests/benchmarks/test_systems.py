"""The order of repetitions, and the search for a batch size."""

from __future__ import annotations

import pytest

from benchmarks.systems import SYSTEMS, best_of, climb, plan


def test_systems_take_turns_and_every_other_round_goes_backwards() -> None:
    assert plan(["ours", "ours-plain", "hf"], repetitions=2, pairs=3) == [
        ("ours", 0), ("ours-plain", 0), ("hf", 0),
        ("hf", 1), ("ours-plain", 1), ("ours", 1),
        ("ours", 2), ("ours-plain", 2),
    ]  # fmt: skip


def test_systems_of_another_benchmark_take_turns_too() -> None:
    assert plan(["a", "b"], repetitions=2, paired=()) == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]


@pytest.mark.parametrize(
    ("rates", "tried", "best"),
    [
        ({32: 1.0, 64: 2.0, 128: 3.0, 192: 2.5}, [64, 128, 192], 128),
        ({32: 1.0, 64: 2.0, 128: 1.5, 192: 9.9}, [64, 128, 32], 64),  # one peak is assumed
        ({32: 3.0, 64: 2.0, 128: 1.0, 192: 0.5}, [64, 128, 32], 32),
        ({32: 0.0, 64: 0.0, 128: 0.0, 192: 0.0}, [64, 128, 32], 64),
        ({100: 1.0}, [100], 100),
    ],
)
def test_the_search_climbs_to_the_peak(rates: dict[int, float], tried: list[int], best: int) -> None:
    found = climb(list(rates), rates.__getitem__)
    assert list(found) == tried
    assert best_of(found) == best


def test_a_gpu_is_tried_with_more_rows() -> None:
    assert SYSTEMS["ours"].ladder("cuda")[0] > SYSTEMS["ours"].ladder("cpu")[0]
