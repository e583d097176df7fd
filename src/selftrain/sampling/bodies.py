"""The forwards that the decode loop drives.

A body offers `prefill` (prompts into slots, first logits) and `step` (each slot's new tokens through the model).

    llama_body.LlamaBody   Llama-type models: fused projections, nothing padded
    t5_body.T5Body         encoder-decoder models of the T5 kind
    CausalBody             any other decoder-only model: its own transformers forward over our storage, where
                           `check_causal` finds that it gives the model's own numbers; layers may look back through
                           a sliding window
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selftrain.errors import ModelError, first_line
from selftrain.hardware import is_out_of_memory
from selftrain.models import SLIDING, attention_spans, head_logits
from selftrain.sampling.cache import Batch, SlotCache

PREFILL_TOKENS = 4096  # padded prompt tokens forwarded at once
OTHERS = (
    "Decoder-only models whose layers keep keys and values (Llama, Mistral, Qwen, Gemma, GPT-NeoX and their like) and "
    "T5 can; on a GPU, sampling.backend=vllm may know others."
)
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
        self.spans = attention_spans(module.config)
        known = inspect.signature(module.base_model.forward).parameters  # type: ignore[union-attr]
        self.cache_argument = "cache" if "cache" in known else "past_key_values"  # renamed in transformers 5.24

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`. Prompts are filled up on the right; a causal model never looks there."""
        from transformers import DynamicCache

        module: Any = self.module
        ids, lengths, owners, flat = prompts_and_owners(prompts, slots, next(module.parameters()).device)
        past: Any = DynamicCache()  # given the config, it would forget what lies before a window
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
            attention_mask=self._masks(self.cache),
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

    def _masks(self, cache: SlotCache) -> Tensor | dict[str, Tensor]:
        """[N, 1, 1, visible], or one of these for each kind of layer, as the model's forward takes them."""
        masks = {kind: cache.causal_mask(span)[:, None, None] for kind, span in self.spans.items()}
        if self.module.config._attn_implementation == "eager":  # type: ignore[union-attr]
            masks = {kind: self._added(mask) for kind, mask in masks.items()}
        named = getattr(self.module.config, "layer_types", None) is not None
        return masks if named and SLIDING in masks else next(iter(masks.values()))

    def _added(self, mask: Tensor) -> Tensor:
        """What is added to the scores in place of a mask of truth values."""
        dtype = next(self.module.parameters()).dtype
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)

    def _storage(self, like: Tensor, num_layers: int) -> SlotCache:
        if self.cache is None:
            heads, width = like.shape[1], like.shape[3]
            self.cache = SlotCache(self.num_slots, self.length, num_layers, heads, width, like.dtype, like.device)
        return self.cache


def check_causal(module: nn.Module) -> None:
    """Try what `CausalBody` does with a model, on a few made-up tokens.

    Raises:
        ModelError: its forward cannot go over our storage, or gives other numbers there.
    """
    reason = _why_not_causal(module)
    if reason:
        kind = module.config.model_type  # type: ignore[union-attr]
        raise ModelError(f"A model of type {kind} cannot be sampled here: {reason}.", OTHERS)


def _why_not_causal(module: Any) -> str:
    """In words how logits from storage fail, or differ from those of one forward over all tokens; empty if neither.

    They may differ by the root of the weights' precision, relative to the largest: 0.0003 in fp32, 0.09 in bf16.
    """
    ids = [5, 6, 7, 8, 9, 3, 4]
    try:
        weight = next(module.parameters())
        with torch.no_grad():
            own = module.base_model(input_ids=torch.tensor([ids], device=weight.device), use_cache=False)
            plain = head_logits(module, own.last_hidden_state[0, [3, 1, 6, 2]])
            body = CausalBody(module, num_slots=2, length=len(ids))
            first, _ = body.prefill([ids[:4], ids[:2]], [[0], [1]])
            # The first slot's newest token comes with a forced run of two, the second one's alone.
            new = [[ids[6], ids[2], *ids[4:6]], [6, 2, 4, 5], [0, 1, 0, 0]]  # tokens, positions, slots
            tokens, positions, places = torch.tensor(new, device=weight.device)
            stored = torch.cat([first, body.step(Batch(tokens, positions, places, 2, len(ids)))])
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        return first_line(error)
    off = float((plain - stored).abs().max() / plain.abs().max())
    return "" if off <= torch.finfo(weight.dtype).eps ** 0.5 else f"its logits are off by {off:.2g} of the largest"
