"""Intervals and tests, against hand-worked numbers, plain loops and simulation."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from selftrain import metrics
from selftrain.metrics import (
    PairedTest,
    accuracy_interval,
    maj_at_k,
    mcnemar_exact,
    mean_pass_at_k,
    paired_difference,
    pass_at_k,
    verdict_sentence,
    wilson,
)


def flags(num_right: int, num: int, start: int = 0) -> dict[str, bool]:
    return {f"q{start + i}": i < num_right for i in range(num)}


def discordant(only_a: int, only_b: int, num: int) -> tuple[dict[str, bool], dict[str, bool]]:
    """Verdicts of two models that differ on `only_a + only_b` of `num` problems and are both right on the rest."""
    a = {f"q{i}": not only_a <= i < only_a + only_b for i in range(num)}
    b = {f"q{i}": not i < only_a for i in range(num)}
    return a, b


# -- single figures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_other_confidences() -> None:
    assert wilson(0, 10, 0.95)[1] == pytest.approx(1.959964**2 / (10 + 1.959964**2))
    assert wilson(0, 10, 0.99)[1] == pytest.approx(2.575829**2 / (10 + 2.575829**2))
    assert wilson(0, 0) == (0.0, 1.0)


def test_pass_at_k_against_all_subsets() -> None:
    for n in range(1, 7):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(itertools.combinations([i < c for i in range(n)], k))
                assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_refuses(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected 0 <= c <= n"):
        pass_at_k(*arguments)


def test_mean_pass_at_k() -> None:
    counts = {"a": (5, 2), "b": (5, 0), "c": (5, 5), "d": (4, 1)}
    found = mean_pass_at_k(counts, 2)
    assert found.value == pytest.approx((0.7 + 0 + 1 + 0.5) / 4)
    assert (found.num, found.num_groups) == (4, 0)
    assert 0 <= found.low < found.value < found.high <= 1


def test_mean_pass_at_k_interval_is_the_bootstrap_of_the_mean() -> None:
    """200 problems, pass@1 of 0, 0.5 and 1: the normal interval is a good approximation there."""
    values = [0.0] * 50 + [0.5] * 100 + [1.0] * 50
    found = mean_pass_at_k({f"q{i}": (2, round(2 * value)) for i, value in enumerate(values)}, 1)
    half = 1.96 * math.sqrt(0.125 / 200)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.004)


@pytest.mark.parametrize(
    ("answers", "right", "expected"),
    [
        (["7", "8", "7"], [True, False, True], True),
        (["7", "8", "8"], [True, False, False], False),
        (["7", "8"], [True, False], True),  # a tie: the first answer
        (["8", "7"], [False, True], False),
        (["8", "7", "9", "7", "8"], [False, True, False, True, False], False),
        ([None, None, "7"], [False, False, True], True),  # no answer, no vote
        ([None, None], [False, False], False),
        ([], [], False),
    ],
)
def test_maj_at_k(answers: list[str | None], right: list[bool], expected: bool) -> None:
    assert maj_at_k(answers, right) is expected


# -- accuracy ------------------------------------------------------------------------------------------------


def test_accuracy_without_groups_is_wilson() -> None:
    found = accuracy_interval(flags(81, 263))
    assert (found.num, found.value, found.num_groups) == (263, 81 / 263, 0)
    assert (found.low, found.high) == wilson(81, 263)
    alone = {identity: identity for identity in flags(81, 263)}
    assert accuracy_interval(flags(81, 263), alone) == found


def test_accuracy_of_nothing() -> None:
    found = accuracy_interval({})
    assert (found.num, found.value, found.low, found.high) == (0, 0.0, 0.0, 1.0)


def test_copies_of_a_problem_add_no_certainty() -> None:
    """Ten copies of each of 30 problems, grouped: an interval as wide as 30 problems give, not 300."""
    few = {f"q{i}": i % 3 == 0 for i in range(30)}
    many = {f"{identity}/{copy}": verdict for identity, verdict in few.items() for copy in range(10)}
    found = accuracy_interval(many, {identity: identity.split("/")[0] for identity in many})
    low, high = wilson(10, 30)
    assert found.num_groups == 30
    assert found.high - found.low == pytest.approx(high - low, abs=0.04)
    ungrouped = accuracy_interval(many)
    assert ungrouped.high - ungrouped.low < 0.4 * (found.high - found.low)


def test_few_groups_give_wide_intervals() -> None:
    verdicts = flags(50, 100)
    one = accuracy_interval(verdicts, dict.fromkeys(verdicts, "t"))
    assert (one.low, one.high, one.num_groups) == (0.0, 1.0, 1)
    halves = {f"q{i}": ("s", "t")[i % 2] for i in range(100)}
    uneven = accuracy_interval({f"q{i}": i % 2 == 0 or i < 10 for i in range(100)}, halves)
    assert (uneven.low, uneven.high) == (0.0, 1.0)  # two groups, 100 % and 10 %: t with one degree of freedom


def test_all_right_is_not_certain() -> None:
    verdicts = dict.fromkeys(flags(0, 100), True)
    found = accuracy_interval(verdicts, {f"q{i}": str(i % 10) for i in range(100)})
    assert (found.low, found.high) == pytest.approx((wilson(10, 10)[0], 1.0))


def test_clustered_coverage() -> None:
    """200 data sets of 12 templates whose accuracies differ: the 95 % interval must hold the truth in 180.

    At true coverage 95 % fewer than 180 have a chance of 0.1 %, and the seeds are fixed.
    """
    draw = random.Random(1)
    covered = naive = 0
    for _ in range(200):
        rates = [draw.choice([0.1, 0.5, 0.9]) for _ in range(12)]
        verdicts = {f"{t}/{i}": draw.random() < rate for t, rate in enumerate(rates) for i in range(15)}
        groups = {identity: identity.split("/")[0] for identity in verdicts}
        found = accuracy_interval(verdicts, groups, num_resamples=1000)
        covered += found.low <= 0.5 <= found.high
        low, high = wilson(sum(verdicts.values()), len(verdicts))
        naive += low <= 0.5 <= high
    assert covered >= 180
    assert naive < 150  # what clustering is there for


# -- paired tests --------------------------------------------------------------------------------------------


def test_mcnemar_against_all_splits() -> None:
    for n in range(13):
        weights = [math.comb(n, i) for i in range(n + 1)]
        for only_a in range(n + 1):
            as_uneven = [w for i, w in enumerate(weights) if abs(2 * i - n) >= abs(2 * only_a - n)]
            assert mcnemar_exact(only_a, n - only_a) == pytest.approx(sum(as_uneven) / 2**n)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(26, 5, 2e-4), (58, 15, 4e-7), (34, 10, 4e-4), (5, 26, 2e-4), (0, 5000, 0.0)]
)
def test_mcnemar_known(only_a: int, only_b: int, p: float) -> None:
    assert float(f"{mcnemar_exact(only_a, only_b):.0e}") == pytest.approx(p)


def test_paired_difference_by_hand() -> None:
    """26 : 5 of 199: difference 21/199, standard error sqrt(31/199 - (21/199)^2) / sqrt(199) = 0.0270."""
    test = paired_difference(*discordant(26, 5, 199))
    assert (test.num, test.only_a, test.only_b, test.clustered) == (199, 26, 5, False)
    assert test.difference == pytest.approx(21 / 199)
    assert test.p_value == mcnemar_exact(26, 5)
    assert (test.low, test.high) == pytest.approx((0.1055 - 1.96 * 0.027, 0.1055 + 1.96 * 0.027), abs=0.004)


def test_it_joins_by_id_and_ignores_the_order() -> None:
    a, b = discordant(12, 4, 80)
    groups = {f"q{i}": str(i % 9) for i in range(80)}
    mixed = list(a)
    random.Random(0).shuffle(mixed)
    for chosen in (None, groups):
        test = paired_difference(a, b, chosen)
        assert paired_difference({i: a[i] for i in mixed}, {i: b[i] for i in reversed(mixed)}, chosen) == test
        assert paired_difference({**a, "extra": True}, {**b, "other": False}, chosen) == test
    assert paired_difference({"a": True}, {"b": True}).num == 0


def test_swapping_the_models_mirrors_the_result() -> None:
    a, b = discordant(12, 4, 80)
    groups = {f"q{i}": str(i % 9) for i in range(80)}
    for chosen in (None, groups):
        forth, back = paired_difference(a, b, chosen), paired_difference(b, a, chosen)
        assert (back.difference, back.p_value) == (-forth.difference, forth.p_value)
        assert (-back.high, -back.low) == pytest.approx((forth.low, forth.high), abs=0.01)


def test_seeds() -> None:
    a, b = discordant(12, 4, 80)
    groups = {f"q{i}": str(i % 20) for i in range(80)}
    assert paired_difference(a, b, groups, seed=3) == paired_difference(a, b, groups, seed=3)
    assert paired_difference(a, b, groups, seed=3) != paired_difference(a, b, groups, seed=4)


def test_no_discordant_problem_is_no_proof_of_equality() -> None:
    test = paired_difference(flags(50, 100), flags(50, 100))
    assert (test.difference, test.p_value) == (0.0, 1.0)
    assert -test.low == test.high == wilson(0, 100)[1]


def test_copies_of_a_problem_add_no_evidence() -> None:
    """a better in each of 6 groups of 10 copies: p is that of six coins, 2/64; ungrouped it would be 2^-59."""
    a = {f"{t}/{i}": True for t in range(6) for i in range(10)}
    b = dict.fromkeys(a, False)
    test = paired_difference(a, b, {identity: identity.split("/")[0] for identity in a})
    assert (test.clustered, test.num_groups, test.p_value) == (True, 6, 2 / 64)
    assert paired_difference(a, b).p_value == 2.0**-59


def test_interval_and_p_agree() -> None:
    """Four groups can't reach p < 0.05, whatever the bootstrap says: then the interval holds 0."""
    a = {f"{t}/{i}": i < 9 for t in range(4) for i in range(10)}
    b = dict.fromkeys(a, False)
    test = paired_difference(a, b, {identity: identity.split("/")[0] for identity in a})
    assert test.p_value == 2 / 16
    assert test.low == 0.0
    few = paired_difference(*discordant(5, 0, 100))
    assert few.p_value == 2 / 32
    assert few.low <= 0.0


def test_sampled_sign_flips_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampled p has a standard error of 0.004 here; 0.02 is five of them."""
    sums = np.array([3.0, -1, 2, 5, -2, 1, 1, 4, -3, 2, 1, -1, 0])
    exact = metrics._sign_flip(sums, 0, 10_000)
    monkeypatch.setattr(metrics, "MAX_FLIPPED_GROUPS", 0)
    assert 0.05 < exact < 0.5
    assert metrics._sign_flip(sums, 0, 10_000) == pytest.approx(exact, abs=0.02)


def test_bootstrap_against_a_plain_loop() -> None:
    """Groups of unequal size; quantiles of 10,000 draws are good to about 0.005."""
    draw = random.Random(5)
    verdicts = {f"{t}/{i}": draw.random() < 0.2 + 0.02 * t for t in range(25) for i in range(1 + t % 7)}
    by_group = [[v for i, v in verdicts.items() if i.startswith(f"{t}/")] for t in range(25)]
    loop = []
    for _ in range(10_000):
        rows = [row for _ in range(25) for row in [by_group[draw.randrange(25)]]]
        loop.append(sum(map(sum, rows)) / sum(map(len, rows)))
    sums = np.array([float(sum(row)) for row in by_group])
    sizes = np.array([float(len(row)) for row in by_group])
    quick = metrics.resampled(sums, sizes, 0, 10_000)
    assert np.quantile(quick, [0.025, 0.5, 0.975]) == pytest.approx(np.quantile(loop, [0.025, 0.5, 0.975]), abs=0.012)


def test_false_alarms_of_clustered_tests() -> None:
    """Two equal models, 20 templates; in each template one of them wins wholesale, by a coin.

    200 data sets: "better" or "worse" may be said in 5 % of them, 10; 24 or more have a chance of 0.005 %.
    Without groups the same test is wrong in most of them.
    """
    draw = random.Random(2)
    wrong = naive = 0
    for _ in range(200):
        a, b = {}, {}
        for template in range(20):
            better = draw.random() < 0.5
            for i in range(10):
                a[f"{template}/{i}"], b[f"{template}/{i}"] = better, not better
        groups = {identity: identity.split("/")[0] for identity in a}
        test = paired_difference(a, b, groups, num_resamples=500)
        wrong += test.low > 0 or test.high < 0
        naive += paired_difference(a, b, num_resamples=500).p_value < 0.05
    assert wrong < 24
    assert naive > 100


def test_a_real_difference_is_found() -> None:
    """20 templates of 10, a right on 70 %, b on 40 %, independently: shown in at least 90 of 100 data sets."""
    draw = random.Random(3)
    found = 0
    for _ in range(100):
        ids = [f"{template}/{i}" for template in range(20) for i in range(10)]
        a = {identity: draw.random() < 0.7 for identity in ids}
        b = {identity: draw.random() < 0.4 for identity in ids}
        test = paired_difference(a, b, {identity: identity.split("/")[0] for identity in ids}, num_resamples=500)
        found += test.low > 0
    assert found >= 90


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423), (100, 1.9840)],
)
def test_t_quantile_against_the_table(freedom: int, quantile: float) -> None:
    assert metrics.t_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-5)


def test_t_quantile_of_many_is_normal() -> None:
    assert metrics.t_quantile(0.975, 5000) == pytest.approx(1.959964, abs=1e-6)


# -- words ---------------------------------------------------------------------------------------------------


def test_verdicts_in_words() -> None:
    better = PairedTest(199, 0.1056, 0.0527, 0.158, 0.00019, 26, 5, clustered=False)
    assert verdict_sentence(better, "DPO-ST", "the warm-up") == (
        "DPO-ST is better than the warm-up: +10.6 points (95 % interval +5.3 to +15.8, p = 0.00019, 199 problems)."
    )
    worse = PairedTest(80, -0.1, -0.15, -0.05, 0.00001, 0, 8, clustered=True, confidence=0.9, num_groups=12)
    assert verdict_sentence(worse, "A", "B") == (
        "A is worse than B: -10.0 points (90 % interval -15.0 to -5.0, p < 0.0001, 80 problems in 12 groups)."
    )
    open_ = PairedTest(80, 0.01, 0.0, 0.05, 0.3, 5, 4, clustered=False)
    assert verdict_sentence(open_, "A", "B").startswith("A difference between A and B is not shown: +1.0 points")
