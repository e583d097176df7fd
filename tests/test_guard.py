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


def test_a_sampler_that_is_right_less_often() -> None:
    """Told from chance by the questions' own changes, over the questions that both answered."""
    before = {f"q{number}": 2 / 3 for number in range(60)}
    worse = {name: 1 / 3 if number % 2 else 2 / 3 for number, name in enumerate(before)}
    assert "66.7% of the samples were right before it and 50.0% after it" in guard.fewer_right(before, worse)
    assert guard.fewer_right(worse, before) == guard.fewer_right(before, before) == guard.fewer_right({}, worse) == ""
    assert guard.fewer_right(before, {"q0": 0.0, "q1": 1.0}) == ""  # two questions show nothing


def test_questions_of_a_template_are_no_independent_evidence() -> None:
    before = {f"q{number}": 1.0 for number in range(40)}
    worse = {name: 0.0 if number < 20 else 1.0 for number, name in enumerate(before)}
    assert guard.fewer_right(before, worse)
    assert guard.fewer_right(before, worse, {name: "a" if worse[name] else "b" for name in before}) == ""
