"""What a run cost: tokens, FLOPs and seconds of each stage, and which part of the run a stage belongs to.

    cost = stage_cost("1-iteration/sft", figures, seconds=398.0, parameters=134_515_008, headline="known-templates")
    cost.flops, cost.part
    total([cost, ...])

The rule is the paper's (its Figure 1): 6 N FLOPs a token that is trained on, 2 N a token that is sampled or only
forwarded, N the number of parameters. A prompt that several samples share is forwarded, and counted, once. Left
out, as usual: attention over the context, padding, and that each token of an encoder-decoder passes through one
of its two halves only (so its figure is an upper bound).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal

TRAINED_FLOPS, FORWARDED_FLOPS = 6, 2  # a parameter and token

Part = Literal["training and sampling", "headline evaluation", "base model's row", "further evaluations", "baselines"]
PARTS: tuple[Part, ...] = (
    "training and sampling", "headline evaluation", "base model's row", "further evaluations", "baselines",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class StageCost:
    """Of one stage: wall time, real tokens (no padding) by what was done with them, and their FLOPs.

    `trained_tokens` had a gradient; `sampled_tokens` were written, those of the calculator included;
    `forwarded_tokens` were only read: prompts, and DPO's passes without gradient.
    `flops` is None where the number of parameters is not known yet.
    """

    stage: str
    part: Part
    seconds: float
    trained_tokens: int
    sampled_tokens: int
    forwarded_tokens: int
    flops: int | None


def flops(parameters: int, *, trained_tokens: int = 0, forwarded_tokens: int = 0) -> int:
    """Floating-point operations of training on some tokens and forwarding others (paper, Figure 1).

    >>> flops(10, trained_tokens=2, forwarded_tokens=3)
    180
    """
    return parameters * (TRAINED_FLOPS * trained_tokens + FORWARDED_FLOPS * forwarded_tokens)


def stage_cost(
    stage: str, figures: Mapping[str, Any], *, seconds: float, parameters: int | None, headline: str | None
) -> StageCost:
    """The cost of a finished stage from the figures in its manifest.

    Args:
        stage: its folder in the run, such as "1-iteration/evaluate/svamp".
        figures: as `stages/sample.py` and `stages/train.py` return them; those that are missing count as 0.
        headline: name of the first test set, which the headline comes from.
    """
    trained, sampled = int(figures.get("trained_tokens", 0)), int(figures.get("generated_tokens", 0))
    forwarded = int(figures.get("forward_tokens", 0)) + int(figures.get("prompt_tokens", 0))
    cost = None
    if parameters is not None:
        cost = flops(parameters, trained_tokens=trained, forwarded_tokens=sampled + forwarded)
    return StageCost(stage, part_of(stage, headline), seconds, trained, sampled, forwarded, cost)


def part_of(stage: str, headline: str | None) -> Part:
    """Which part of a run a stage belongs to; validation, which decisions read, belongs to training.

    >>> part_of("0-base/evaluate/svamp", "svamp"), part_of("1-iteration/dpo", "svamp")
    ("base model's row", 'training and sampling')
    """
    if stage.startswith("baseline-"):
        return "baselines"
    if stage.startswith("0-base/"):
        return "base model's row"
    *_, kind, name = ["", *stage.split("/")]
    if kind == "evaluate":
        return "headline evaluation" if name == headline else "further evaluations"
    return "further evaluations" if kind == "evaluate-without-calculator" else "training and sampling"


def total(costs: Iterable[StageCost]) -> dict[str, Any]:
    """Sums over stages, JSON-ready; FLOPs are None where those of a stage are not known."""
    rows = list(costs)
    known = [row.flops for row in rows if row.flops is not None]
    return {
        "stages": len(rows),
        "seconds": round(sum(row.seconds for row in rows), 3),
        "trained_tokens": sum(row.trained_tokens for row in rows),
        "sampled_tokens": sum(row.sampled_tokens for row in rows),
        "forwarded_tokens": sum(row.forwarded_tokens for row in rows),
        "flops": sum(known) if len(known) == len(rows) else None,
    }
