"""The peak learning rate, and the rate by step: linear warm-up, then a cosine down to a share (paper: 10 %).

A pure function of the step, so that a resumed run needs no scheduler state. Departure: the usual
schedulers give the first step a rate of 0 and waste it; here step 1 of w warm-up steps has 1/w of the
peak, step w the peak, and the last step exactly the final share.
"""

from __future__ import annotations

import math
from typing import Literal

AUTO_STEPS_TIMES_RATE = 1e-4  # the paper's 150 steps at 7e-7: what counts is the product
AUTO_SMALL_MODEL = 500_000_000  # parameters; below, a higher rate was seen to be safe
AUTO_CAP_SMALL, AUTO_CAP = 1e-5, 1e-6


def peak_rate(wanted: float | Literal["auto"], num_steps: int, num_parameters: int) -> float:
    """The peak learning rate that is asked for; "auto": steps x rate is 1e-4, up to a cap by the model's size.

    Args:
        num_steps: optimiser steps that are planned.
        num_parameters: of the whole model, adapters or not.

    >>> peak_rate("auto", 20, 134_515_008), peak_rate("auto", 150, 8_000_000_000), peak_rate("auto", 4, 134_515_008)
    (5e-06, 6.666666666666667e-07, 1e-05)
    """
    if wanted != "auto":
        return wanted
    cap = AUTO_CAP_SMALL if num_parameters < AUTO_SMALL_MODEL else AUTO_CAP
    return min(cap, AUTO_STEPS_TIMES_RATE / max(1, num_steps))


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
