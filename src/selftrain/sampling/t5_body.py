"""T5's decoder over slots: rows of different lengths side by side.

The transformers decoder counts positions for the whole batch at once, so it can't refill a row. This is
the same arithmetic (relative position bias, no scaling, RMS norms, cross-attention) with a position a row,
over the module's own weights, query, key and value in one product. The question is encoded once, and its
cross-attention keys and values are computed once and stored in all of its slots.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.models import head_logits
from selftrain.sampling.bodies import Prompts, prompts_and_owners
from selftrain.sampling.cache import Batch, SlotCache, rounded
from selftrain.sampling.linear import Product


class T5Products:
    """A decoder's products, which outlive the storage of one generation: packing them takes a while."""

    def __init__(self, module: nn.Module) -> None:
        blocks: Any = module.get_decoder().block  # type: ignore[operator]
        own = [block.layer[0].SelfAttention for block in blocks]
        cross = [block.layer[1].EncDecAttention for block in blocks]
        self.qkv, self.own_o = [Product(part.q, part.k, part.v) for part in own], [Product(part.o) for part in own]
        self.cross_q, self.cross_o = [Product(part.q) for part in cross], [Product(part.o) for part in cross]
        self.feeds = [Feed(block.layer[-1].DenseReluDense) for block in blocks]
        self.head = Product(module.get_output_embeddings())  # type: ignore[operator]


class T5Body:
    """See `bodies.Body`."""

    def __init__(
        self, module: nn.Module, products: T5Products, num_slots: int, length: int, prompt_length: int
    ) -> None:
        config: Any = module.config
        self.module, self.config = module, config
        self.decoder: Any = module.get_decoder()  # type: ignore[operator]
        self.blocks = self.decoder.block
        weight = self.decoder.embed_tokens.weight
        shape = (len(self.blocks), config.num_heads, config.d_kv, weight.dtype, weight.device)
        self.device = weight.device
        self.own = SlotCache(num_slots, length, *shape)
        self.cross = SlotCache(num_slots, prompt_length, *shape)
        self.prompt_lengths = torch.ones(num_slots, dtype=torch.long, device=weight.device)
        self.widest = 1  # of the prompts so far: what cross-attention reads
        self.products = products
        self.distance_bias = _distance_bias(self.blocks[0].layer[0].SelfAttention, length)  # [length, H]

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`; a row begins with the decoder's start token, so its first position is used up."""
        ids, lengths, owners, flat = prompts_and_owners(prompts, slots, self.device)
        mask = (torch.arange(ids.shape[1], device=self.device)[None] < lengths[:, None]).long()
        module: Any = self.module
        encoded = module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        for layer, block in enumerate(self.blocks):
            attention = block.layer[1].EncDecAttention
            keys, values = (self._heads(part(encoded)).transpose(1, 2) for part in (attention.k, attention.v))
            self.cross.put(layer, keys, values, owners, flat)
        self.prompt_lengths[flat] = lengths[owners]
        self.widest = rounded(max(self.widest, ids.shape[1]), self.cross.length, self.device)
        start = torch.full_like(flat, self.config.decoder_start_token_id)
        firsts = [0, *itertools.accumulate(len(targets) for targets in slots)][:-1]
        logits = self.step(Batch(start, torch.zeros_like(flat), flat, 0, 1), wanted=firsts)
        return logits, [1] * len(prompts)

    def step(self, batch: Batch, wanted: list[int] | None = None) -> Tensor:
        """See `Body`; `wanted` names the tokens whose logits are asked for, else each slot's newest."""
        self.own.begin(batch)
        self.cross.begin(batch)
        hidden: Tensor = self.decoder.embed_tokens(batch.tokens)  # [N, D]
        bias = self._self_bias(batch.positions)
        lengths = self.prompt_lengths[batch.slots]
        columns = torch.arange(self.widest, device=self.device)
        visible = (columns[None, :] < lengths[:, None])[:, None, None]  # [N, 1, 1, width]
        for layer, block in enumerate(self.blocks):
            hidden = hidden + self._own_attention(layer, block.layer[0], hidden, bias)
            hidden = hidden + self._cross_attention(layer, block.layer[1], hidden, visible)
            hidden = hidden + self.products.feeds[layer](block.layer[-1].layer_norm(hidden))
        kept = hidden[: batch.num_rows] if wanted is None else hidden[wanted]
        return head_logits(self.module, self.decoder.final_layer_norm(kept), self.products.head)

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Body`."""
        self.own.move(sources, targets)
        self.cross.move(sources, targets)
        self.prompt_lengths[list(targets)] = self.prompt_lengths[list(sources)]

    def _own_attention(self, layer: int, part: Any, hidden: Tensor, bias: Tensor) -> Tensor:
        projected = self.products.qkv[layer](part.layer_norm(hidden))
        query, key, value = projected.unflatten(-1, (3, self.config.num_heads, self.config.d_kv)).unbind(1)
        self.own.write(layer, key, value)
        out = self.own.attend(layer, query[:, :, None], bias, scale=1.0)
        return self.products.own_o[layer](out.flatten(1))

    def _cross_attention(self, layer: int, part: Any, hidden: Tensor, visible: Tensor) -> Tensor:
        query = self._heads(self.products.cross_q[layer](part.layer_norm(hidden)))  # [N, H, d]
        out = self.cross.attend(layer, query[:, :, None], visible, scale=1.0, width=self.widest)
        return self.products.cross_o[layer](out.flatten(1))

    def _heads(self, projected: Tensor) -> Tensor:
        """[..., H * d] -> [..., H, d]."""
        heads: Tensor = projected.unflatten(-1, (self.config.num_heads, self.config.d_kv))
        return heads

    def _self_bias(self, positions: Tensor) -> Tensor:
        """Relative position bias [N, H, 1, visible], with -inf beyond each row's own position."""
        columns = torch.arange(self.own.visible, device=positions.device)
        distance = positions[:, None] - columns[None, :]  # [N, visible]
        bias = self.distance_bias[distance.clamp_min(0)].permute(0, 2, 1)[:, :, None]
        return bias.masked_fill((distance < 0)[:, None, None], float("-inf"))


class Feed:
    """A block's feed-forward part, gated or not."""

    def __init__(self, dense: Any) -> None:
        self.act, self.is_gated = dense.act, hasattr(dense, "wi_0")
        self.first = Product(dense.wi_0, dense.wi_1) if self.is_gated else Product(dense.wi)
        self.last = Product(dense.wo)

    def __call__(self, hidden: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        inner = self.first(hidden)
        if not self.is_gated:
            return self.last(self.act(inner))
        gate, up = inner.chunk(2, -1)
        return self.last(self.act(gate) * up)


def _distance_bias(attention: Any, length: int) -> Tensor:
    """Bias [length, H] of looking so many positions back; only the first block has the table."""
    back = -torch.arange(length, device=attention.relative_attention_bias.weight.device)
    buckets = attention._relative_position_bucket(
        back,
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias: Tensor = attention.relative_attention_bias(buckets)
    return bias
