"""Two ways of training against each other over several seeds, from verdicts by seed and problem.

    mean = mean_over_seeds([seed_0, seed_1, seed_2], groups)      -> OverSeeds(num=300, value=0.66, low=0.61, ...)
    gain = difference_over_seeds(ours, theirs, groups)            -> OverSeeds(num=300, value=0.031, low=-0.002, ...)
    verdict(gain), sentence(gain, "dpo-st", "st")                 -> "not shown", "A difference between ..."

Each list holds problem id -> right, one a seed; in a difference the n-th of one list goes with the n-th of the other.
Problems are joined by id, so the order of a file says nothing.

One seed: the intervals and tests of metrics.py (exact McNemar, sign flips of groups). Several: a problem counts with
its mean over the seeds, and problems, or groups of them (templates), are resampled whole. That says how the models that
were trained would fare on other questions. Trainings at other seeds would differ too: what seeds move beyond what the
questions account for is estimated (analysis of variance, seed x problem) and widens the interval, with Satterthwaite's
degrees of freedom. Two or three seeds estimate it badly, so `by_seed` is shown beside. With one seed it cannot be seen:
then "better" is about two models, and not about two ways of training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from selftrain.metrics import (
    NUM_RESAMPLES,
    Floats,
    Groups,
    accuracy_interval,
    by_group,
    is_clustered,
    paired_difference,
    t_quantile,
    unit_interval,
    wilson,
)

Verdicts = Mapping[str, bool]
Verdict = Literal["better", "worse", "not shown"]


@dataclasses.dataclass(frozen=True, slots=True)
class OverSeeds:
    """A mean over seeds and problems, or the difference of two, with its interval; all are shares.

    `by_seed`: each seed's own. `seed_error`: the standard error that seeds add beyond problems (0 where none is seen).
    `p_value`: of a difference at one seed, else None. `num_groups` is 0 where problems count as independent.
    """

    num: int
    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    seed_error: float = 0.0
    p_value: float | None = None
    confidence: float = 0.95
    num_groups: int = 0

    @property
    def num_seeds(self) -> int:
        """How many."""
        return len(self.by_seed)


def mean_over_seeds(
    verdicts: Sequence[Verdicts],
    groups: Groups | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> OverSeeds:
    """Accuracy, a mean over seeds, on the problems that all seeds answered.

    Its interval holds Wilson's for as many trials as would vary so much (Korn and Graubard's effective sample size).

    Raises:
        ValueError: there is no seed.
    """
    if not verdicts:
        raise ValueError("expected the verdicts of one seed or more, got none")
    if len(verdicts) == 1:
        one = accuracy_interval(verdicts[0], groups, confidence, num_resamples=num_resamples)
        return OverSeeds(
            one.num, one.value, one.low, one.high, (one.value,), confidence=confidence, num_groups=one.num_groups
        )
    values = [{name: float(right) for name, right in seed.items()} for seed in verdicts]
    return _over_seeds(values, groups, confidence, (0.0, 1.0), num_resamples)


def difference_over_seeds(
    ours: Sequence[Verdicts],
    theirs: Sequence[Verdicts],
    groups: Groups | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> OverSeeds:
    """Our accuracy minus theirs, a mean over seeds, on the problems that both answered at all seeds.

    Raises:
        ValueError: no seed, or not as many of ours as of theirs.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"expected as many seeds of both, one or more, got {len(ours)} and {len(theirs)}")
    if len(ours) == 1:
        test = paired_difference(ours[0], theirs[0], groups, confidence, num_resamples=num_resamples)
        return OverSeeds(
            test.num, test.difference, test.low, test.high, (test.difference,), p_value=test.p_value,
            confidence=confidence, num_groups=test.num_groups,
        )  # fmt: skip
    values = [
        {name: float(a[name]) - float(b[name]) for name in a.keys() & b.keys()}
        for a, b in zip(ours, theirs, strict=True)
    ]
    return _over_seeds(values, groups, confidence, (-1.0, 1.0), num_resamples)


def change_over_seeds(
    changes: Sequence[Mapping[str, float]],
    groups: Groups | None = None,
    confidence: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> OverSeeds:
    """A change that each problem has at each seed, from -1 to 1 (of pass@k, say), as a mean over both.

    Raises:
        ValueError: there is no seed.
    """
    if not changes:
        raise ValueError("expected the changes of one seed or more, got none")
    return _over_seeds(changes, groups, confidence, (-1.0, 1.0), num_resamples)


def verdict(found: OverSeeds) -> Verdict:
    """What the interval of a difference says."""
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "not shown"


def sentence(found: OverSeeds, ours: str, theirs: str) -> str:
    """The same in plain words.

    >>> print(sentence(OverSeeds(300, 0.031, 0.004, 0.06, (0.02, 0.042)), "dpo-st", "st"))
    dpo-st is better than st: +3.1 points (95 % interval +0.4 to +6.0, 2 seeds, 300 problems).
    """
    said = verdict(found)
    told = f"{ours} is {said} than {theirs}"
    if said == "not shown":
        told = f"A difference between {ours} and {theirs} is not shown"
    seeds = f"{found.num_seeds} seeds" if found.num_seeds > 1 else "1 seed"
    if found.p_value is not None:
        seeds += ", p < 0.0001" if found.p_value < 0.0001 else f", p = {found.p_value:.2g}"
    rows = f"{found.num:,} problems" + (f" in {found.num_groups} groups" if found.num_groups else "")
    return (
        f"{told}: {100 * found.value:+.1f} points ({100 * found.confidence:g} % interval {100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}, {seeds}, {rows})."
    )


def _over_seeds(
    values: Sequence[Mapping[str, float]],
    groups: Groups | None,
    confidence: float,
    bounds: tuple[float, float],
    num_resamples: int,
) -> OverSeeds:
    """The mean of values by seed and problem, over the problems that every seed has."""
    common = set(values[0]).intersection(*values[1:])
    kept = [{name: seed[name] for name in common} for seed in values]
    if not common:
        return OverSeeds(0, 0.0, *bounds, (0.0,) * len(values), confidence=confidence)
    clustered = is_clustered(kept[0], groups)
    by_unit = [by_group(seed, groups if clustered else None) for seed in kept]
    sums, sizes = np.stack([seed for seed, _ in by_unit]), by_unit[0][1]  # [seeds, units], [units]
    low, high = unit_interval(sums.mean(axis=0), sizes, confidence, 0, num_resamples, bounds)
    by_seed = sums.sum(axis=1) / sizes.sum()
    value, num_units = float(by_seed.mean()), len(sizes)
    units, seeds = _variances(sums, sizes) if num_units > 1 and len(values) > 1 else (0.0, 0.0)
    if seeds > 0:
        freedom = (units + seeds) ** 2 / (units**2 / (num_units - 1) + seeds**2 / (len(values) - 1))
        half = t_quantile(1 - (1 - confidence) / 2, max(1, int(freedom + 1e-9))) * math.sqrt(units + seeds)
        low, high = max(bounds[0], min(low, value - half)), min(bounds[1], max(high, value + half))
    if bounds[0] == 0 and units + seeds > 0:  # a share near 0 or 1 has no symmetric interval
        num_effective = value * (1 - value) / (units + seeds)
        wide = wilson(value * num_effective, num_effective, confidence)
        low, high = min(low, wide[0]), max(high, wide[1])
    return OverSeeds(
        len(common), value, low, high, tuple(float(one) for one in by_seed), math.sqrt(seeds), None, confidence,
        num_units if clustered else 0,
    )  # fmt: skip


def _variances(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """Variance of the mean by units, and what seeds add to it.

    Args:
        sums: [seeds, units] sum of the values of each unit.
        sizes: [units] its problems.

    A seed's mean varies by the seed itself and by what seed and unit do together. The second part is estimated from
    what remains when both means are taken out, and is in the variance by units already.
    """
    num_seeds, num_units = sums.shape
    total = sizes.sum()
    means = sums.sum(axis=1) / total  # [seeds]
    centred = sums - means[:, None] * sizes
    unit = centred.mean(axis=0)  # [units]
    units = float((unit**2).sum()) / total**2 * num_units / (num_units - 1)
    rest = float(((centred - unit) ** 2).sum()) / ((num_seeds - 1) * (num_units - 1)) * num_units / total**2
    return float(units), max(0.0, float(means.var(ddof=1)) - float(rest)) / num_seeds
