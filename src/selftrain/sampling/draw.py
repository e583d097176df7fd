"""From logits to tokens, a whole batch at once, with one number in [0, 1) a row.

A draw is the inverse of the cumulative distribution in vocabulary order, so that equal logits and equal
numbers give equal tokens whatever the neighbours, and a tiny change of the logits changes the token only
where the number lies at a boundary. Without top-k and top-p the cumulative sum is taken in two steps, over
blocks of the vocabulary and then inside one block, and a few rows at a time, which stay in the processor's cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftrain.sampling.base import SamplingParams

CHUNK_ROWS = 16  # rows handled at once on a CPU
BLOCK = 256  # tokens of a block, where that divides the vocabulary; else its largest such divisor


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
    rows = CHUNK_ROWS if logits.device.type == "cpu" else len(logits)
    pick = _pick_filtered if params.top_k > 0 or params.top_p < 1 else _pick_by_blocks
    parts = zip(logits.split(rows), uniforms.float().split(rows), strict=True)
    return torch.cat([pick(part, params, numbers) for part, numbers in parts])


def _pick_by_blocks(logits: Tensor, params: SamplingParams, uniforms: Tensor) -> Tensor:
    """Inverse CDF of softmax(logits / T): the block first, then the token in it."""
    weights = torch.softmax(logits.float() / params.temperature, dim=-1)  # [B, V]
    blocks = weights.unflatten(-1, (-1, _block(weights.shape[-1])))  # [B, V / block, block]
    sums = blocks.sum(dim=-1)
    cumulative = sums.cumsum(dim=-1)
    targets = uniforms[:, None] * cumulative[:, -1:]
    block = _first_above(cumulative, targets, sums)  # [B, 1]
    before = cumulative.gather(1, block) - sums.gather(1, block)
    inner = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]]  # [B, block]
    token = _first_above(inner.cumsum(dim=-1), (targets - before).clamp_min(0), inner)
    drawn: Tensor = (block * inner.shape[-1] + token)[:, 0]
    return drawn


def _pick_filtered(logits: Tensor, params: SamplingParams, uniforms: Tensor) -> Tensor:
    """Inverse CDF over the whole vocabulary, with top-k and top-p applied."""
    probabilities = filtered_probabilities(logits, params)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float32)  # [B, V]
    return _first_above(cumulative, uniforms[:, None] * cumulative[:, -1:], probabilities)[:, 0]


def _first_above(cumulative: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Index [B, 1] of the first cumulative sum above the target; the heaviest where rounding leaves none."""
    picked = torch.searchsorted(cumulative, targets, right=True)
    return torch.where(picked == weights.shape[-1], weights.argmax(dim=-1, keepdim=True), picked)


def _block(vocabulary: int) -> int:
    """Tokens of a block: the largest power of two up to `BLOCK` that divides the vocabulary."""
    size = BLOCK
    while vocabulary % size:
        size //= 2
    return size


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
