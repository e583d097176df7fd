"""From logits to tokens, a whole batch at once, with one number in [0, 1) a row.

A draw is the inverse of the cumulative distribution in vocabulary order, so that equal logits and equal
numbers give equal tokens whatever the neighbours, and a tiny change of the logits changes the token only
where the number lies at a boundary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftrain.sampling.base import SamplingParams


def pick_tokens(logits: Tensor, params: SamplingParams, uniforms: Tensor | None) -> Tensor:
    """The next token of each row.

    Args:
        logits: [B, V], any float type.
        params: temperature 0 takes the best token and reads no `uniforms`.
        uniforms: [B] in [0, 1).

    Returns:
        token ids [B].
    """
    if params.temperature == 0 or uniforms is None:
        return logits.argmax(dim=-1)
    probabilities = filtered_probabilities(logits, params)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float32)  # [B, V]
    targets = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    picked = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    at_the_end = picked == logits.shape[-1]  # a number that rounds to 1
    return torch.where(at_the_end, probabilities.argmax(dim=-1), picked)


def filtered_probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """softmax(logits / T) [B, V] in fp32 with top-k, then top-p, applied; tokens left out get 0. Not renormalised."""
    scaled = logits.float() / params.temperature
    if params.top_k > 0:
        kth = scaled.topk(min(params.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < kth, float("-inf"))
    probabilities = torch.softmax(scaled, dim=-1)
    if params.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # mass of the better tokens
        ordered = ordered.masked_fill(before >= params.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter_(-1, order, ordered)
    return probabilities
