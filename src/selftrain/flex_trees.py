"""Attention within trees as one kernel, for GPUs: torch's flex_attention, compiled at the first use (some 10 seconds).

    mask = tree_mask(branches, length, device)               # once a micro-batch, for all layers
    out = flex_tree_attention(query, key, value, mask, scale)

Which blocks of keys a block of queries can see at all follows from where its trees begin, so no mask of length squared
is made. Leaves out: attention dropout (flex_attention has none).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128  # flex_attention's own
compiled: Any = None  # flex_attention for all lengths; made with the first mask, since torch.compile takes a while


class Branch(NamedTuple):
    """Where a completion's fed tokens lie in the flat sequence: its tree's prompt, and its own."""

    prompt: slice
    own: slice


def tree_mask(branches: Sequence[Sequence[Branch]], length: int, device: torch.device) -> Any:
    """The block mask of trees that lie one after another in a sequence filled up to `length`, a multiple of `BLOCK`.

    A token sees those before it, and itself, of its tree's prompt and its own branch; what fills up sees itself.
    """
    global compiled
    compiled = compiled or torch.compile(flex_attention, dynamic=True)
    starts, own = torch.arange(length), torch.arange(length)  # first token of the tree; branch, -1 in a prompt
    for tree in branches:
        first = tree[0].prompt.start
        own[tree[0].prompt] = -1
        for number, branch in enumerate(tree):
            own[branch.own] = first + number
        starts[first : tree[-1].own.stop] = first
    first_block = starts[::BLOCK] // BLOCK  # of keys that a block of queries sees: trees lie in order
    blocks = torch.arange(length // BLOCK)
    counts = blocks - first_block + 1
    indices = (first_block[:, None] + blocks[None, :]).clamp(max=length // BLOCK - 1)
    starts, own = starts.to(device), own.to(device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (starts[key] == starts[query]) & ((own[key] == own[query]) | (own[key] < 0))

    make: Any = BlockMask.from_kv_blocks
    return make(
        counts.int()[None, None].to(device), indices.int()[None, None].to(device), BLOCK_SIZE=BLOCK, mask_mod=sees,
        seq_lengths=(length, length),
    )  # fmt: skip


def flex_tree_attention(query: Tensor, key: Tensor, value: Tensor, mask: Any, scale: float) -> Tensor:
    """Attention [1, H, N', d] of query [1, H, N', d] over key and value [1, G, N', d], G dividing H.

    Under autocast rotary positions leave queries and keys in fp32, which would make slow products of theirs.
    """
    kind = value.dtype
    out: Tensor = compiled(query.to(kind), key.to(kind), value, block_mask=mask, scale=scale, enable_gqa=True)
    return out
