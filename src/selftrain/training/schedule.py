"""Learning rate by step: linear warm-up, then a cosine down to a share of the peak (paper: 10 %).

A pure function of the step, so that a resumed run needs no scheduler state. Departure: the usual
schedulers give the first step a rate of 0 and waste it; here step 1 of w warm-up steps has 1/w of the
peak, step w the peak, and the last step exactly the final share.
"""

from __future__ import annotations

import math


def learning_rate(
    step: int, num_steps: int, *, peak: float, warmup_fraction: float = 0.1, final_lr_fraction: float = 0.1
) -> float:
    """The rate of optimiser step `step`, counted from 1.

    Args:
        warmup_fraction: share of the steps that warm up, rounded to whole steps.
        final_lr_fraction: rate of the last step as a share of the peak.

    >>> [learning_rate(s, 5, peak=1.0, warmup_fraction=0.4, final_lr_fraction=0.0) for s in (1, 2, 5)]
    [0.5, 1.0, 0.0]
    """
    warmup_steps = round(warmup_fraction * num_steps)
    if step < warmup_steps:
        return peak * step / warmup_steps
    top = max(1, warmup_steps)
    progress = (step - top) / max(1, num_steps - top)
    return peak * (final_lr_fraction + (1.0 - final_lr_fraction) * 0.5 * (1.0 + math.cos(math.pi * progress)))
