"""The targets, in one table, and whether results meet them. Pure functions of a results file's content.

    findings = judge_all(content, wanted=("ours", "hf"), quick=False)
    [complaint(finding) for finding in findings if finding.met is False]

A ratio is taken between repetitions of the same number, which ran beside each other, and the median of these counts.
The calculator's ratio is missed only if its interval lies below: the order statistics that hold the median with at
least 93 % (of 5 pairs: the lowest and the highest). `fairness` sees to it that nobody wins by stopping early.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

COVERAGE = 0.93
QUICK_FACTOR = 0.8  # quick: targets less 20 %
STANDARD_ERRORS = 3.0  # beyond which lengths or shares right are not the same
FORWARDED_FLOPS = 2  # a parameter and generated token

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Target:
    """`speed`: completions a second of `first` over `second`; `memory`: their peaks; `roofline`, and `calls` of the
    calculator a completion: of `first` alone.

    `field` is what of a record is compared, where it is another. With `where_it_runs` a rival that failed is no miss.
    """

    text: str
    kind: Literal["speed", "memory", "roofline", "calls"]
    first: str
    second: str
    bound: float
    device: str = "cpu"
    at_most: bool = False
    by_interval: bool = False
    repetitions: int = 3
    stretch: float | None = None
    field: str = ""
    where_it_runs: bool = False


FIELDS = {"speed": "completions_per_s", "memory": "peak_memory_bytes"}
TARGETS = (
    Target("a. generate with the decoding calculator", "speed", "ours", "hf-calculator", 4.0),
    Target("b. generate", "speed", "ours", "hf", 2.5),
    Target("d. vLLM without calculator", "speed", "ours", "vllm", 1.3),
    Target("calculator on / off", "speed", "ours", "ours-plain", 0.98, by_interval=True, repetitions=5),
    Target("the same, two-layer model", "speed", "smoke", "smoke-plain", 0.95, by_interval=True, repetitions=5),
    Target("calls of the calculator a completion", "calls", "ours", "", 1.5),
    Target("share of the roofline", "roofline", "ours", "", 0.30, stretch=0.40),
    Target("encoder-decoder, b. generate", "speed", "t5", "t5-hf", 2.0),
    Target("peak memory over b's", "memory", "ours", "hf", 1.0, at_most=True),
    Target("b. generate, on a GPU", "speed", "ours", "hf", 10.0, device="cuda"),
)  # fmt: skip

# (ours, rival) that must be alike in mean length and share right, calculator with calculator
ALIKE = (
    ("ours", "hf-calculator"),
    ("ours", "vllm-calculator"),
    ("ours-plain", "hf"),
    ("ours-plain", "hf-continuous"),
    ("ours-plain", "vllm"),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A target beside what was measured; `met` is None where it was not asked for."""

    target: Target
    bound: float
    values: tuple[float, ...]
    met: bool | None
    why: str = ""

    @property
    def median(self) -> float:
        """Of the values; 0 without any."""
        return statistics.median(self.values) if self.values else 0.0

    @property
    def spread(self) -> tuple[float, float]:
        """The interval where the target goes by it, else lowest and highest."""
        if not self.values:
            return 0.0, 0.0
        return median_interval(self.values) if self.target.by_interval else (min(self.values), max(self.values))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest pair of order statistics that holds the median with `COVERAGE`; the extremes of few values.

    >>> median_interval([5.0, 1.0, 3.0, 2.0, 4.0]), median_interval([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    ((1.0, 5.0), (1.0, 8.0))
    """
    ordered, num = sorted(values), len(values)
    depth = 1
    while depth + 1 <= num // 2 and _holds(num, depth + 1) >= COVERAGE:
        depth += 1
    return ordered[depth - 1], ordered[num - depth]


def _holds(num: int, depth: int) -> float:
    """Chance that the median lies between the depth-th lowest and the depth-th highest of `num` values."""
    return 1 - sum(math.comb(num, count) for count in range(depth)) / float(2 ** (num - 1))


def judge_all(content: Json, wanted: Sequence[str], quick: bool, targets: Sequence[Target] = TARGETS) -> list[Finding]:
    """Every target of the results' device."""
    device = content["setup"]["device"]
    return [judge(target, content, wanted, quick) for target in targets if target.device == device]


def judge(target: Target, content: Json, wanted: Sequence[str], quick: bool) -> Finding:
    """One target. What is asked for and was not measured often enough is missed."""
    factor = QUICK_FACTOR if quick else 1.0
    bound = target.bound / factor if target.at_most else target.bound * factor
    needed = [name for name in (target.first, target.second) if name]
    if any(name not in wanted for name in needed):
        return Finding(target, bound, (), None, "not asked for")
    values = measured(target, content)
    repetitions = 1 if quick else target.repetitions
    if len(values) < repetitions:
        failed = next((content["failures"][name] for name in needed if name in content["failures"]), "")
        if failed and target.where_it_runs:
            return Finding(target, bound, values, None, failed)
        return Finding(target, bound, values, False, failed or f"{len(values)} of {repetitions} repetitions measured")
    if target.by_interval:
        return Finding(target, bound, values, median_interval(values)[1] >= bound)
    middle = statistics.median(values)
    return Finding(target, bound, values, middle <= bound if target.at_most else middle >= bound)


def measured(target: Target, content: Json) -> tuple[float, ...]:
    """The target's figure in each repetition that has it."""
    first = content["records"].get(target.first, {})
    if target.kind == "roofline":
        peak = best_peak(content)
        rows = [first[key] for key in sorted(first, key=int)]
        return tuple(roofline_share(row, peak) for row in rows if row.get("parameters")) if peak else ()
    if target.kind == "calls":
        judged = [first[key] for key in sorted(first, key=int) if first[key]["judged"]]
        return tuple(row["annotations"] / row["judged"] for row in judged)
    second = content["records"].get(target.second, {})
    field = target.field or FIELDS[target.kind]
    both = sorted(first.keys() & second.keys(), key=int)
    return tuple(first[key][field] / second[key][field] for key in both if second[key][field])


def best_peak(content: Json) -> float:
    """FLOP/s of the faster precision: where bf16 is only emulated the machine's roofline is that of fp32."""
    return max(content["matrix_peak"].values(), default=0.0)


def roofline_share(record: Json, peak: float) -> float:
    """The record's FLOPs, else 2 N a generated token, over what the matrix peak could have done in that time."""
    flops = record.get("flops") or FORWARDED_FLOPS * record["parameters"] * record["tokens"]
    return float(flops / (record["seconds"] * peak))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two systems' completions: mean length and share right, and how many standard errors ours lies above theirs."""

    ours: str
    theirs: str
    lengths: tuple[float, float]
    length_errors: float
    shares: tuple[float, float]
    share_errors: float

    @property
    def complaints(self) -> list[str]:
        """What makes ours not comparable: shorter, or less often right, by more than chance."""
        found = []
        if self.length_errors < -STANDARD_ERRORS:
            found.append(
                f"completions are shorter than {self.theirs}'s ({self.lengths[0]:.1f}, {self.lengths[1]:.1f} tokens)"
            )
        if self.share_errors < -STANDARD_ERRORS:
            found.append(f"fewer are right than of {self.theirs}'s ({self.shares[0]:.1%}, {self.shares[1]:.1%})")
        return [f"{self.ours}: {text}" for text in found]


def fairness(content: Json) -> list[Comparison]:
    """The pairs of `ALIKE` that were measured, all repetitions together."""
    records = content["records"]
    return [_compare(ours, theirs, records) for ours, theirs in ALIKE if records.get(ours) and records.get(theirs)]


def _compare(ours: str, theirs: str, records: Json) -> Comparison:
    """By unpaired standard errors. Questions are the same, so these are too large rather than too small."""
    sides = [list(records[name].values()) for name in (ours, theirs)]
    lengths = [_pooled(rows) for rows in sides]
    shares = [_share(rows) for rows in sides]
    return Comparison(
        ours,
        theirs,
        (lengths[0][0], lengths[1][0]),
        _errors(lengths[0][0] - lengths[1][0], lengths[0][1] + lengths[1][1]),
        (shares[0][0], shares[1][0]),
        _errors(shares[0][0] - shares[1][0], shares[0][1] + shares[1][1]),
    )


def _pooled(rows: Sequence[Json]) -> tuple[float, float]:
    """Mean length and the square of its standard error."""
    num = sum(row["completions"] for row in rows)
    mean = sum(row["tokens"] for row in rows) / num
    square = sum(row["completions"] * (row["sd_tokens"] ** 2 + row["mean_tokens"] ** 2) for row in rows) / num
    return mean, max(square - mean**2, 0.0) / num


def _share(rows: Sequence[Json]) -> tuple[float, float]:
    """Share right and the square of its standard error."""
    num = sum(row["judged"] for row in rows)
    share = sum(row["right"] for row in rows) / num if num else 0.0
    return share, share * (1 - share) / num if num else 0.0


def _errors(difference: float, square: float) -> float:
    return difference / math.sqrt(square) if square > 0 else 0.0


def complaint(finding: Finding) -> str:
    """A missed target in one line."""
    relation = "at most" if finding.target.at_most else "at least"
    if finding.why:
        return f"{finding.target.text}: not measured ({finding.why}); target {relation} {finding.bound:.3g}"
    low, high = finding.spread
    return (
        f"{finding.target.text}: {finding.median:.3g} ({low:.3g} to {high:.3g} in {len(finding.values)}), "
        f"target {relation} {finding.bound:.3g}"
    )


def missed(content: Json, wanted: Sequence[str], quick: bool, targets: Sequence[Target] = TARGETS) -> list[str]:
    """Every target that is missed, and what makes the comparison unfair, a line each."""
    lines = [complaint(found) for found in judge_all(content, wanted, quick, targets) if found.met is False]
    return lines + [text for comparison in fairness(content) for text in comparison.complaints]
