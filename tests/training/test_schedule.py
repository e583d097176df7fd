"""The learning rate against values worked by hand."""

from __future__ import annotations

import math

import pytest

from selftrain.training.schedule import learning_rate, peak_rate


def test_warm_up_and_cosine_by_hand() -> None:
    # 12 steps, 2 of warm-up, then 10 steps from the peak to a tenth of it
    rates = [learning_rate(s, 12, peak=2.0, warmup_fraction=0.2, final_lr_fraction=0.1) for s in range(1, 13)]
    assert rates[0] == pytest.approx(1.0)
    assert rates[1] == pytest.approx(2.0)
    assert rates[6] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))  # half way: cos(pi / 2) = 0
    assert rates[2] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 10))))
    assert rates[11] == pytest.approx(0.2)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (1, 0.0), (5, 0.0), (7, 1.0)])
def test_edges_have_no_wasted_step(steps: int, warmup: float) -> None:
    rates = [learning_rate(s, steps, peak=1.0, warmup_fraction=warmup) for s in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == pytest.approx(1.0)


def test_without_warm_up_the_first_step_has_the_peak_and_the_last_the_final_share() -> None:
    assert learning_rate(1, 4, peak=1.0, warmup_fraction=0.0) == pytest.approx(1.0)
    assert learning_rate(4, 4, peak=1.0, warmup_fraction=0.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("steps", "parameters", "expected"),
    [
        (150, 400_000_000, 1e-4 / 150),
        (20, 134_515_008, 5e-6),
        (10, 134_515_008, 1e-5),
        (3, 134_515_008, 1e-5),  # 3.3e-5 is over the cap of small models
        (20, 500_000_000, 1e-6),  # 5e-6 is over the cap of larger ones
        (200, 8_000_000_000, 5e-7),
        (1, 499_999_999, 1e-5),
    ],
)
def test_the_rate_that_auto_comes_to_by_hand(steps: int, parameters: int, expected: float) -> None:
    assert peak_rate("auto", steps, parameters) == pytest.approx(expected, rel=1e-12)


def test_a_given_rate_is_taken_as_it_is() -> None:
    assert peak_rate(3e-3, 150, 8_000_000_000) == 3e-3
