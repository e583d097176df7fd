"""Attention over a few hundred positions on a CPU, as plain matrix products: for training on short sequences.

    out = short_attention(query, key, value, mask, scale)      # [1, H, T, d]

torch's fused kernel is made for long sequences; at 64 to 384 positions in bf16 its backward pass takes up to twice
as long as the products themselves (docs/log.md). Here scores exist whole, [T, S] a head, while one sequence is at hand;
nothing of that size is kept for the backward pass, which computes them again. Leaves out dropout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LONGEST = 384  # positions; in bf16 alone, since in fp32 the fused kernel is as fast


def is_short(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these [1, H, T, d] should come here."""
    fits = max(query.shape[2], key.shape[2]) <= LONGEST
    return fits and value.dtype == torch.bfloat16 and query.device.type == "cpu"


def short_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """softmax(query key^T * scale) value where the mask allows.

    Args:
        query: [1, H, T, d]; key, value: [1, G, S, d], G dividing H; mask: bool [T, S], a true one in each row.

    Returns:
        [1, H, T, d] in the value's dtype.
    """
    heads = query[0].to(value.dtype).unflatten(0, (key.shape[1], -1))  # [G, H / G, T, d]: no key is repeated
    out: Tensor = _ShortAttention.apply(heads, key[0].to(value.dtype), value[0], mask, scale)  # type: ignore[no-untyped-call]
    return out.flatten(0, 1)[None]


class _ShortAttention(torch.autograd.Function):
    """Over query [G, H / G, T, d], key and value [G, S, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        weights = _weights(query, key, mask, scale)
        out = torch.bmm(weights.flatten(1, 2), value).view_as(query)
        ctx.save_for_backward(query, key, value, mask, out)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, mask, out = ctx.saved_tensors
        weights = _weights(query, key, mask, ctx.scale)
        rows = gradient.reshape(len(key), -1, gradient.shape[-1])  # [G, H / G * T, d]
        flat = weights.flatten(1, 2)
        to_value = torch.bmm(flat.transpose(1, 2), rows)
        to_weights = torch.bmm(rows, value.transpose(1, 2)).float()
        mean = (gradient.float() * out.float()).sum(-1).view(len(key), -1, 1)  # sum over weights x their gradients
        to_scores = to_weights.sub_(mean).mul_(flat.float()).mul_(ctx.scale).to(key.dtype)
        to_query = torch.bmm(to_scores, key).view_as(query)
        to_key = torch.bmm(to_scores.transpose(1, 2), query.flatten(1, 2))
        return to_query, to_key, to_value, None, None


def _weights(query: Tensor, key: Tensor, mask: Tensor, scale: float) -> Tensor:
    """[G, H / G, T, S] in the query's dtype; the softmax is fp32."""
    scores = torch.bmm(query.flatten(1, 2), key.transpose(1, 2)).float().view(*query.shape[:3], -1)
    return scores.mul_(scale).masked_fill_(~mask, float("-inf")).softmax(-1).to(query.dtype)
