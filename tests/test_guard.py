"""Each limit just met and just missed."""

from __future__ import annotations

import math

from selftrain import guard
from selftrain.config import GuardConfig

LIMITS = GuardConfig(min_reward_accuracy=0.6, min_changed_fraction=0.2, max_chosen_drop=0.5, max_accuracy_drop_se=2.0)


def test_reward_accuracy() -> None:
    assert guard.learned_little(0.6, LIMITS) == ""
    assert "59%, below 60%" in guard.learned_little(0.59, LIMITS)


def test_share_of_samples_that_differ() -> None:
    assert guard.unmoved(0.2, LIMITS) == ""
    assert "only 19.9%" in guard.unmoved(0.199, LIMITS)


def test_right_answers() -> None:
    assert guard.lost_right_answers(-0.5, LIMITS) == "" == guard.lost_right_answers(0.1, LIMITS)
    assert "lost 0.51 nats" in guard.lost_right_answers(-0.51, LIMITS)


def test_validation_accuracy_in_standard_errors() -> None:
    error = math.sqrt(0.5 * 0.5 / 100)  # 5 points
    assert guard.lost_accuracy(0.5, 0.5 - 1.99 * error, 100, LIMITS) == ""
    assert "from 50.0% to 39.0%" in guard.lost_accuracy(0.5, 0.39, 100, LIMITS)
    assert guard.lost_accuracy(0.0, 0.0, 0, LIMITS) == ""


def test_a_perfect_model_has_an_error_too() -> None:
    """At 100 % the plain formula gives 0; one problem more or less must not count as a collapse."""
    assert guard.lost_accuracy(1.0, 0.99, 100, LIMITS) == ""
