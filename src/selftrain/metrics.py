"""Figures of an evaluation: accuracy, pass@k, maj@k, each with an interval; paired tests between two models.

    accuracy_interval({"q1": True, "q2": False})             -> Estimate(num=2, value=0.5, low=0.09, high=0.91, ...)
    test = paired_difference(delivered, warmup, groups)      -> PairedTest(difference=0.106, p_value=0.0002, ...)
    verdict_sentence(test, "DPO-ST", "the warm-up")          -> "DPO-ST is better than the warm-up: +10.6 points ..."

Pure functions of verdicts by problem id; the order of a dict is irrelevant, and every random draw comes from
`seed`. Where problems share a `group` (a template), they are no independent trials: intervals then resample whole
groups and p-values flip the signs of whole groups. A problem without a group is a group of its own.

A bootstrap interval is too narrow where units (problems, or groups) are few, so each one is widened to the
t-interval around the estimate (bootstrap standard error, units - 1 degrees of freedom, times sqrt(G / (G - 1))),
and an interval of a difference is widened to hold 0 wherever its p-value isn't below 1 - confidence: "better" is
said only where interval and test agree. The paper reports one seed and no intervals; all of this is ours.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from selftrain.seeding import derive_seed

Groups = Mapping[str, str | None]
Floats = NDArray[np.float64]

NUM_RESAMPLES = 10_000
MAX_FLIPPED_GROUPS = 13  # up to here all 2^G signs are tried, above it a sample of them
_CHUNK = 1_000_000  # numbers drawn at once


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its interval; `num_groups` is 0 where problems count as independent."""

    num: int
    value: float
    low: float
    high: float
    confidence: float = 0.95
    num_groups: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class PairedTest:
    """Accuracy of a minus accuracy of b on the problems that both answered.

    `only_a` counts problems that a alone got right. `clustered`: interval and p-value go by groups.
    """

    num: int
    difference: float
    low: float
    high: float
    p_value: float
    only_a: int
    only_b: int
    clustered: bool
    confidence: float = 0.95
    num_groups: int = 0


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (0, 1) where nothing was tried.

    >>> [round(bound, 4) for bound in wilson(81, 263)]
    [0.2553, 0.3662]
    """
    if n == 0:
        return 0.0, 1.0
    z = _normal_quantile(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes <= 0 else max(centre - half, 0.0)
    return low, 1.0 if successes >= n else min(centre + half, 1.0)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold one of the c right ones (Chen et al. 2021).

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"expected 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def mean_pass_at_k(
    counts: Mapping[str, tuple[int, int]],
    k: int,
    groups: Groups | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Mean of pass@k over problems; `counts` is problem id -> (samples, right samples). Bootstrap interval."""
    values = {identity: pass_at_k(n, c, k) for identity, (n, c) in counts.items()}
    return _mean_estimate(values, groups, confidence, seed, num_resamples)


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Whether the answer given most often among k samples is right.

    Samples without an answer (None) don't vote; of answers given equally often the one given first wins, since
    samples have no other order. Without any vote the result is False.

    >>> maj_at_k(["7", "8", None, "8"], [True, False, False, False])
    False
    """
    votes = collections.Counter(answer for answer in answers if answer is not None)
    if not votes:
        return False
    return right[answers.index(votes.most_common(1)[0][0])]


def accuracy_interval(
    verdicts: Mapping[str, bool],
    groups: Groups | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Share of right problems: Wilson's interval, or the cluster bootstrap's where problems share groups.

    The clustered interval is never narrower than Wilson's, is widened by Student's t for few groups, and is all
    of (0, 1) for a single group. Where every group scores the same (all right, say), nothing can be resampled:
    then it is Wilson's with as many trials as groups.
    """
    values = {identity: float(verdict) for identity, verdict in verdicts.items()}
    num_right, num = sum(verdicts.values()), len(verdicts)
    low, high = wilson(num_right, num, confidence)
    if not is_clustered(values, groups):
        return Estimate(num, num_right / num if num else 0.0, low, high, confidence)
    clustered = _mean_estimate(values, groups, confidence, seed, num_resamples)
    return dataclasses.replace(clustered, low=min(low, clustered.low), high=max(high, clustered.high))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test: p of a split at least as uneven among the problems that one alone got right.

    >>> mcnemar_exact(8, 1), mcnemar_exact(0, 0)
    (0.0390625, 1.0)
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    term = num_as_uneven = 1
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        num_as_uneven += term
    return min(1.0, float(Fraction(num_as_uneven, 2 ** max(n - 1, 0))))


def paired_difference(
    a: Mapping[str, bool],
    b: Mapping[str, bool],
    groups: Groups | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> PairedTest:
    """Compare two models on the problems that both answered, joined by problem id.

    Without groups: exact McNemar p-value, bootstrap interval over problems. With groups: sign-flip permutation
    p-value and bootstrap interval over groups. The module's text says how intervals are widened.
    """
    common = sorted(a.keys() & b.keys())
    only_a = sum(a[identity] and not b[identity] for identity in common)
    only_b = sum(b[identity] and not a[identity] for identity in common)
    values = {identity: float(a[identity]) - float(b[identity]) for identity in common}
    clustered = is_clustered(values, groups)
    sums, sizes = by_group(values, groups if clustered else None)
    if clustered:
        p_value = _sign_flip(sums, seed, num_resamples)
    else:
        p_value = mcnemar_exact(only_a, only_b)
    low, high = unit_interval(sums, sizes, confidence, seed, num_resamples, (-1.0, 1.0))
    if p_value >= 1 - confidence:
        low, high = min(low, 0.0), max(high, 0.0)
    difference = (only_a - only_b) / len(common) if common else 0.0
    num_groups = len(sums) if clustered else 0
    return PairedTest(len(common), difference, low, high, p_value, only_a, only_b, clustered, confidence, num_groups)


def verdict_sentence(test: PairedTest, better_name: str, worse_name: str) -> str:
    """What a paired test says, in plain words; `better_name` is model a, the one hoped to be better.

    >>> print(verdict_sentence(PairedTest(199, 0.106, 0.05, 0.16, 0.0002, 26, 5, False), "DPO-ST", "the warm-up"))
    DPO-ST is better than the warm-up: +10.6 points (95 % interval +5.0 to +16.0, p = 0.0002, 199 problems).
    """
    if test.low > 0:
        verdict = f"{better_name} is better than {worse_name}"
    elif test.high < 0:
        verdict = f"{better_name} is worse than {worse_name}"
    else:
        verdict = f"A difference between {better_name} and {worse_name} is not shown"
    p_value = "p < 0.0001" if test.p_value < 0.0001 else f"p = {test.p_value:.2g}"
    rows = f"{test.num} problems" + (f" in {test.num_groups} groups" if test.clustered else "")
    return (
        f"{verdict}: {_points(test.difference)} points ({100 * test.confidence:g} % interval {_points(test.low)} "
        f"to {_points(test.high)}, {p_value}, {rows})."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _mean_estimate(
    values: Mapping[str, float], groups: Groups | None, confidence: float, seed: int, num_resamples: int
) -> Estimate:
    """Mean of values in [0, 1] with a bootstrap interval over problems, or over groups where they are shared."""
    clustered = is_clustered(values, groups)
    sums, sizes = by_group(values, groups if clustered else None)
    low, high = unit_interval(sums, sizes, confidence, seed, num_resamples, (0.0, 1.0))
    mean = math.fsum(values.values()) / len(values) if values else 0.0
    return Estimate(len(values), mean, low, high, confidence, len(sums) if clustered else 0)


def is_clustered(values: Mapping[str, float], groups: Groups | None) -> bool:
    """Whether any two problems share a group."""
    named = [group for identity in values if groups and (group := groups.get(identity)) is not None]
    return len(set(named)) < len(named)


def by_group(values: Mapping[str, float], groups: Groups | None) -> tuple[Floats, Floats]:
    """Sum of the values and number of problems of each group, both [G], in an order of names."""
    members: dict[tuple[bool, str], list[float]] = collections.defaultdict(list)
    for identity in sorted(values):
        group = groups.get(identity) if groups else None
        members[group is None, identity if group is None else group].append(values[identity])
    rows = [members[key] for key in sorted(members)]
    return np.array([math.fsum(row) for row in rows]), np.array([float(len(row)) for row in rows])


def unit_interval(
    sums: Floats, sizes: Floats, confidence: float, seed: int, num_resamples: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Interval of sum over size from resampled units: percentiles, widened by t; wide where units don't differ."""
    floor, ceiling = bounds
    num_units = len(sums)
    if num_units < 2:
        return bounds
    estimate = float(sums.sum() / sizes.sum())
    draws = resampled(sums, sizes, seed, num_resamples)
    spread = float(draws.std())
    if spread < 1e-12:
        unseen = wilson(0, num_units, confidence)[1]  # as many trials, none of which differed
        return max(floor, estimate - unseen), min(ceiling, estimate + unseen)
    tail = (1 - confidence) / 2
    half = t_quantile(1 - tail, num_units - 1) * spread * math.sqrt(num_units / (num_units - 1))
    low, high = (float(bound) for bound in np.quantile(draws, [tail, 1 - tail]))
    return max(floor, min(low, estimate - half)), min(ceiling, max(high, estimate + half))


def resampled(sums: Floats, sizes: Floats, seed: int, num_resamples: int) -> Floats:
    """Sum over size of units drawn with replacement, [num_resamples].

    How often each distinct (sum, size) is drawn is multinomial, so units that are alike are drawn together.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap"))
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)  # [2, kinds], [kinds]
    rows = max(1, _CHUNK // len(counts))
    parts = []
    for start in range(0, num_resamples, rows):
        drawn = rng.multinomial(len(sums), counts / len(sums), size=min(rows, num_resamples - start))  # [r, kinds]
        totals = drawn @ kinds.T  # [r, 2]
        parts.append(totals[:, 0] / totals[:, 1])
    return np.concatenate(parts)


def _sign_flip(sums: Floats, seed: int, num_resamples: int) -> float:
    """Two-sided p of a sum of groups whose signs are flipped at random (all flips for few groups)."""
    sums = sums[sums != 0]
    observed = abs(float(sums.sum())) - 1e-9
    num_groups = len(sums)
    if num_groups <= MAX_FLIPPED_GROUPS:
        bits = np.arange(2**num_groups)[:, None] >> np.arange(num_groups)[None, :]  # [2^G, G]
        return float(np.mean(np.abs((1.0 - 2.0 * (bits & 1)) @ sums) >= observed))
    rng = np.random.default_rng(derive_seed(seed, "sign-flip"))
    rows = max(1, _CHUNK // num_groups)
    as_far = 0
    for start in range(0, num_resamples, rows):
        signs = rng.integers(0, 2, (min(rows, num_resamples - start), num_groups), dtype=np.int8)  # [r, G]
        as_far += int(np.count_nonzero(np.abs((1.0 - 2.0 * signs) @ sums) >= observed))
    return (1 + as_far) / (1 + num_resamples)


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@functools.lru_cache(maxsize=1024)
def t_quantile(probability: float, freedom: int) -> float:
    """Quantile above the median of Student's t, by bisection on `_t_central`."""
    wanted = 2 * probability - 1
    low, high = 0.0, 1.0
    while _t_central(high, freedom) < wanted:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_central(middle, freedom) < wanted else (low, middle)
    return high


def _t_central(t: float, freedom: int) -> float:
    """P(|T| < t) for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    if freedom > 1000:
        return 2 * NormalDist().cdf(t) - 1
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for i in range(3 if odd else 2, freedom - 1, 2):
        term *= square * (i - 1) / i
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
