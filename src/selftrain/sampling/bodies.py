"""The forwards that the decode loop drives: static key/value storage with one slot a row.

A body offers `prefill` (prompts into slots, first logits) and `step` (one token a slot). Rows start at
position 0 and have lengths of their own, so a slot is refilled without moving its neighbours.

    CausalBody   any decoder-only model: the transformers forward over our slot cache

`t5_body.T5Body` is the encoder-decoder one.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selftrain.models import head_logits

KV_ROUND = 32  # attention reads storage up to the longest row, rounded up to this many tokens
PREFILL_TOKENS = 4096  # padded prompt tokens forwarded at once


class Body(Protocol):
    """One model's forwards over slots."""

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Compute each prompt once and store it in all of its slots.

        Returns the logits [P, V] that follow each prompt, and how many positions each one occupies."""
        ...

    def step(self, num_rows: int, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits [num_rows, V] after writing `tokens` at `positions` in slots 0 .. num_rows - 1."""
        ...

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy the storage of slots to other slots."""
        ...


class SlotCache:
    """Key/value storage [slots, heads, length, width] a layer, in the shape of a transformers cache.

    Before each forward the body sets `rows`, `positions` [R] and `visible`; `update` writes one new token
    a row and returns views of the part that attention reads.
    """

    is_compileable = False
    is_sliding = (False,)

    def __init__(self, num_slots: int, length: int, num_layers: int) -> None:
        self.num_slots, self.length = num_slots, length
        self.keys: list[Tensor | None] = [None] * num_layers
        self.values: list[Tensor | None] = [None] * num_layers
        self.rows = torch.arange(num_slots)
        self.num_rows, self.visible = num_slots, length
        self.positions = torch.zeros(num_slots, dtype=torch.long)

    def storage(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """The storage of a layer, made on first use in the dtype and shape of `like` [B, H, T, D]."""
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None:
            shape = (self.num_slots, like.shape[1], self.length, like.shape[3])
            keys, values = like.new_zeros(shape), like.new_zeros(shape)
            self.keys[layer], self.values[layer] = keys, values
            self.rows = self.rows.to(like.device)
        return keys, values

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write key and value [R, H, 1, D] at each row's position; return what attention reads."""
        keys, values = self.storage(layer_idx, key)
        rows = self.rows[: self.num_rows]
        keys[rows, :, self.positions] = key[:, :, 0]
        values[rows, :, self.positions] = value[:, :, 0]
        return keys[: self.num_rows, :, : self.visible], values[: self.num_rows, :, : self.visible]

    def put(self, layer: int, keys: Tensor, values: Tensor, slots: Sequence[int]) -> None:
        """Store one prompt's keys and values [H, T, D] in slots."""
        all_keys, all_values = self.storage(layer, keys[None])
        all_keys[list(slots), :, : keys.shape[1]] = keys
        all_values[list(slots), :, : keys.shape[1]] = values

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole slots."""
        for storage in (*self.keys, *self.values):
            if storage is not None:
                storage[list(targets)] = storage[list(sources)]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Part of the transformers interface; never read, since positions are given to each forward."""
        return 0


def rounded(length: int, limit: int) -> int:
    """`length` rounded up to a multiple of `KV_ROUND`, at most `limit`."""
    return min(-(-length // KV_ROUND) * KV_ROUND, limit)


class CausalBody:
    """Decoder-only models through their own transformers forward."""

    def __init__(self, module: nn.Module, num_slots: int, length: int) -> None:
        config: Any = module.config
        self.module = module
        self.cache = SlotCache(num_slots, length, config.num_hidden_layers)
        known = inspect.signature(module.base_model.forward).parameters  # type: ignore[union-attr]
        self.cache_argument = "cache" if "cache" in known else "past_key_values"  # renamed in transformers 5.24

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`. Prompts are filled up on the right; a causal model never looks there."""
        from transformers import DynamicCache

        module: Any = self.module
        device = next(module.parameters()).device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
        past: Any = DynamicCache(config=module.config)
        hidden = module.base_model(input_ids=ids, use_cache=True, **{self.cache_argument: past}).last_hidden_state
        for layer, stored in enumerate(past.layers):
            for row, (prompt, targets) in enumerate(zip(prompts, slots, strict=True)):
                self.cache.put(layer, stored.keys[row, :, : len(prompt)], stored.values[row, :, : len(prompt)], targets)
        lengths = [len(prompt) for prompt in prompts]
        last = hidden[torch.arange(len(prompts), device=device), torch.tensor(lengths, device=device) - 1]
        return head_logits(module, last), lengths

    def step(self, num_rows: int, tokens: Tensor, positions: Tensor) -> Tensor:
        """See `Body`."""
        module: Any = self.module
        cache = self.cache
        cache.num_rows, cache.positions = num_rows, positions
        cache.visible = rounded(int(positions.max()) + 1, cache.length)
        columns = torch.arange(cache.visible, device=positions.device)
        mask = (columns[None, :] <= positions[:, None])[:, None, None, :]  # [R, 1, 1, visible]
        hidden = module.base_model(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask,
            use_cache=True,
            **{self.cache_argument: cache},
        ).last_hidden_state
        return head_logits(module, hidden[:, 0])

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Body`."""
        self.cache.move(sources, targets)
