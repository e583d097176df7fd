"""The forwards that the decode loop drives.

A body offers `prefill` (prompts into slots, first logits) and `step` (each slot's new tokens through the model).

    llama_body.LlamaBody   Llama-type models: fused projections, nothing padded
    t5_body.T5Body         encoder-decoder models of the T5 kind
    CausalBody             any other decoder-only model: its own transformers forward over our storage
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selftrain.models import head_logits
from selftrain.sampling.cache import Batch, SlotCache

PREFILL_TOKENS = 4096  # padded prompt tokens forwarded at once
Prompts = Sequence[Sequence[int]]


class Body(Protocol):
    """One model's forwards over slots."""

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """Compute each prompt once and store it in all of its slots.

        Returns the logits [P, V] that follow each prompt, and how many positions each one occupies."""
        ...

    def step(self, batch: Batch) -> Tensor:
        """Logits [R, V] after each slot's newest token."""
        ...

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the storage of slots to other slots: their first `length` positions."""
        ...


def prompts_and_owners(
    prompts: Prompts, slots: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ids [P, T] filled with 0 on the right, lengths [P], and for each slot in use its prompt's number and itself."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    owners = torch.tensor([number for number, targets in enumerate(slots) for _ in targets])
    flat = torch.tensor([slot for targets in slots for slot in targets])
    return ids.to(device), lengths.to(device), owners.to(device), flat.to(device)


def as_step(prompts: Prompts, slots: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """Prompts as one step: each one's last token is a row, those before it are a forced run, all in its first slot.

    For bodies whose step reads `Batch.slots` for every token, whatever the slot's number.
    """
    lasts = [(prompt[-1], len(prompt) - 1, targets[0]) for prompt, targets in zip(prompts, slots, strict=True)]
    earlier = [
        (token, position, targets[0])
        for prompt, targets in zip(prompts, slots, strict=True)
        for position, token in enumerate(prompt[:-1])
    ]
    tokens, positions, places = torch.tensor([*lasts, *earlier], device=device).T.contiguous()
    return Batch(tokens, positions, places, len(prompts), max(len(prompt) for prompt in prompts))


class CausalBody:
    """Decoder-only models through their own transformers forward, which sees a cache of its kind."""

    is_compileable = False
    is_sliding = (False,)

    def __init__(self, module: nn.Module, num_slots: int, length: int) -> None:
        self.module, self.num_slots, self.length = module, num_slots, length
        self.cache: SlotCache | None = None  # made at the first prefill, in the shape that the model writes
        known = inspect.signature(module.base_model.forward).parameters  # type: ignore[union-attr]
        self.cache_argument = "cache" if "cache" in known else "past_key_values"  # renamed in transformers 5.24

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`. Prompts are filled up on the right; a causal model never looks there."""
        from transformers import DynamicCache

        module: Any = self.module
        ids, lengths, owners, flat = prompts_and_owners(prompts, slots, next(module.parameters()).device)
        past: Any = DynamicCache(config=module.config)
        hidden = module.base_model(input_ids=ids, use_cache=True, **{self.cache_argument: past}).last_hidden_state
        for layer, stored in enumerate(past.layers):
            self._storage(stored.keys, len(past.layers)).put(layer, stored.keys, stored.values, owners, flat)
        last = hidden[torch.arange(len(prompts), device=ids.device), lengths - 1]
        return head_logits(module, last), [len(prompt) for prompt in prompts]

    def step(self, batch: Batch) -> Tensor:
        """See `Body`."""
        module: Any = self.module
        if self.cache is None:
            raise RuntimeError("a step before the first prefill")
        self.cache.begin(batch)
        hidden = module.base_model(
            input_ids=batch.tokens[:, None],
            position_ids=batch.positions[:, None],
            attention_mask=self.cache.causal_mask()[:, None, None],  # [N, 1, 1, visible]
            use_cache=True,
            **{self.cache_argument: self},
        ).last_hidden_state
        return head_logits(module, hidden[: batch.num_rows, 0])

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """See `Body`."""
        if self.cache is not None:
            self.cache.move(sources, targets, length)

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The transformers cache interface: store key and value [N, H, 1, D], return what attention reads."""
        if self.cache is None:
            raise RuntimeError("a step before the first prefill")
        self.cache.write(layer_idx, key[:, :, 0], value[:, :, 0])
        return self.cache.read(layer_idx)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Part of that interface; never read, since positions are given to each forward."""
        return 0

    def _storage(self, like: Tensor, num_layers: int) -> SlotCache:
        if self.cache is None:
            heads, width = like.shape[1], like.shape[3]
            self.cache = SlotCache(self.num_slots, self.length, num_layers, heads, width, like.dtype, like.device)
        return self.cache
