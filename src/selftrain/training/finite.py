"""A loss or gradient that is NaN or infinite stops the training before its step is applied."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selftrain.errors import UserError, listed
from selftrain.training.batches import MicroBatch
from selftrain.training.objective import Objective

NAMES_SHOWN = 20


class NonFiniteError(UserError):
    """A loss or gradient that is NaN or infinite; the step was not applied."""


def check_finite(
    objective: Objective, step: int, micro_batches: Sequence[MicroBatch], losses: Sequence[float], norm: float
) -> None:
    """Refuse a step by its micro-batches' losses and its gradient's norm.

    Raises:
        NonFiniteError: names the step and the rows: of the losses that are not finite, else of the whole step.
    """
    bad = [batch for batch, loss in zip(micro_batches, losses, strict=True) if not math.isfinite(loss)]
    if not bad and math.isfinite(norm):
        return
    what = "loss" if bad else "gradient"
    names = objective.names(item for batch in bad or micro_batches for item in batch.items)
    raise NonFiniteError(
        f"{objective.name} step {step}: expected a finite {what}, got NaN or infinity; "
        f"rows of {listed(names, NAMES_SHOWN)}. The step was not applied.",
        "Lower the learning rate, use compute.precision=fp32, or look at these rows.",
    )
