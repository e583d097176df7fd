"""T5's decoder over slots: rows of different lengths side by side.

The transformers decoder counts positions for the whole batch at once, so it can't refill a row. This is
the same arithmetic (relative position bias, no scaling, RMS norms, cross-attention) with a position a row,
over the module's own weights, query, key and value in one product. The question is encoded once, and its
cross-attention keys and values are computed once and stored in all of its slots. Attention and norms are compiled, C on
a CPU (`kernels.Kernels`) and Triton on a GPU (`triton_kernels.TritonKernels`), or torch's.
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
from selftrain.sampling.kernels import Kernels, compiled
from selftrain.sampling.linear import Product
from selftrain.sampling.triton_kernels import TritonKernels, triton_kernels


def kernels_of(module: Any) -> tuple[Kernels | TritonKernels | None, str]:
    """The compiled pieces for a model; None where they cannot be had, and why, where that can be helped."""
    weight = module.get_decoder().embed_tokens.weight
    if weight.device.type not in ("cpu", "cuda"):
        return None, ""
    return (compiled if weight.device.type == "cpu" else triton_kernels)(weight.dtype, module.config.d_kv, 1)


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
        # of the prompts so far: what cross-attention reads; on a GPU steps are graphs, which keep their first shapes
        self.widest = prompt_length if self.device.type == "cuda" else 1
        self.products = products
        self.distance_bias = _distance_bias(self.blocks[0].layer[0].SelfAttention, length)  # [length, H]
        self.bias_by_head = self.distance_bias.T.contiguous()
        self.kernels, _ = kernels_of(module)

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
        delta: Tensor | None = None
        for layer, block in enumerate(self.blocks):
            hidden, normed = self._add_norm(hidden, delta, block.layer[0].layer_norm)
            delta = self._own_attention(layer, normed, bias)
            hidden, normed = self._add_norm(hidden, delta, block.layer[1].layer_norm)
            delta = self._cross_attention(layer, normed, visible, lengths)
            hidden, normed = self._add_norm(hidden, delta, block.layer[-1].layer_norm)
            delta = self.products.feeds[layer](normed)
        normed = self._add_norm(hidden, delta, self.decoder.final_layer_norm)[1]
        return head_logits(
            self.module, normed[: batch.num_rows] if wanted is None else normed[wanted], self.products.head
        )

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """See `Body`."""
        self.own.move(sources, targets, length)
        self.cross.move(sources, targets, self.widest)
        self.prompt_lengths[list(targets)] = self.prompt_lengths[list(sources)]

    def _add_norm(self, hidden: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """hidden + delta (perhaps in place), and its norm."""
        if self.kernels is not None:
            return self.kernels.add_norm(hidden, delta, norm)
        hidden = hidden if delta is None else hidden + delta
        return hidden, norm(hidden)

    def _own_attention(self, layer: int, normed: Tensor, bias: Tensor) -> Tensor:
        projected = self.products.qkv[layer](normed)
        query, key, value = projected.unflatten(-1, (3, self.config.num_heads, self.config.d_kv)).unbind(1)
        self.own.write(layer, key, value)
        if self.kernels is None:
            out = self.own.attend(layer, query[:, :, None], bias, scale=1.0).flatten(1)
        else:
            batch = self.own.batch
            out = self.kernels.look(
                query.flatten(1).contiguous(), self.own.keys[layer], self.own.values[layer], batch.slots,
                batch.positions + 1, scale=1.0, bias=self.bias_by_head,
            )  # fmt: skip
        return self.products.own_o[layer](out)

    def _cross_attention(self, layer: int, normed: Tensor, visible: Tensor, lengths: Tensor) -> Tensor:
        query = self.products.cross_q[layer](normed)  # [N, H d]
        if self.kernels is None:
            heads = self._heads(query)[:, :, None]
            out = self.cross.attend(layer, heads, visible, scale=1.0, width=self.widest).flatten(1)
        else:
            keys, values = self.cross.keys[layer], self.cross.values[layer]
            out = self.kernels.look(query, keys, values, self.cross.batch.slots, lengths, scale=1.0)
        return self.products.cross_o[layer](out)

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
