"""Llama's decoder over slots: the fast path of Llama-type models (Llama, SmolLM2, Mistral, Qwen2).

The arithmetic is the transformers module's, over its own weights, with three differences: the projections of
query, key and value are one product, as are gate and up (`linear.Product`); prompts are packed, so no padding goes
through a product; and the query heads that share a key head attend together, so keys are not repeated. What lies
between the products is torch's (`TorchPieces`), or compiled: C on a CPU (`kernels.Kernels`), Triton on a GPU
(`triton_kernels.TritonKernels`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.models import SLIDING, attention_spans, head_logits
from selftrain.sampling.bodies import Prompts, prompts_and_owners
from selftrain.sampling.cache import Batch, SlotCache
from selftrain.sampling.kernels import Kernels, compiled
from selftrain.sampling.linear import Product
from selftrain.sampling.triton_kernels import TritonKernels, triton_kernels

MODEL_TYPES = ("llama", "mistral", "qwen2")
ROPE_TYPES = ("default", "linear", "llama3")  # angles that depend on the position alone
Attend = Callable[[int, Tensor], Tensor]


def why_not(module: nn.Module) -> str:
    """Why a model can't take this path; empty where it can."""
    config: Any = module.config
    if config.model_type not in MODEL_TYPES:
        return f"models of type {config.model_type} have no fast path"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ROPE_TYPES:
        return f"rotary positions of type {rope['rope_type']} have no fast path"
    if SLIDING in attention_spans(config):
        return "sliding attention has no fast path"
    return ""


class Pieces(Protocol):
    """What a layer does between its products, over hidden states [N, D]."""

    def add_norm(self, hidden: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """hidden + delta (perhaps in place), and its RMS norm."""
        ...

    def gate(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of [N, 2 I], gate first."""
        ...


class TorchPieces:
    """`Pieces` by torch, on any device."""

    def __init__(self, module: Any) -> None:
        self.activation = module.base_model.layers[0].mlp.act_fn

    def add_norm(self, hidden: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """See `Pieces`."""
        hidden = hidden if delta is None else hidden + delta
        return hidden, norm(hidden)

    def gate(self, gate_up: Tensor) -> Tensor:
        """See `Pieces`."""
        gate, up = gate_up.chunk(2, -1)
        out: Tensor = self.activation(gate) * up
        return out


def kernels_of(module: Any) -> tuple[Kernels | TritonKernels | None, str]:
    """The compiled pieces for a model; None where they cannot be had, and why, where that can be helped."""
    config, weight = module.config, module.base_model.embed_tokens.weight
    if weight.device.type not in ("cpu", "cuda"):
        return None, ""
    if config.hidden_act != "silu":
        return None, f"there are none for {config.hidden_act}"
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    return (compiled if weight.device.type == "cpu" else triton_kernels)(weight.dtype, width, group)


class LlamaProducts:
    """A model's products, which outlive the storage of one generation: packing them takes a while."""

    def __init__(self, module: nn.Module) -> None:
        base: Any = module.base_model
        attention, mlp = [layer.self_attn for layer in base.layers], [layer.mlp for layer in base.layers]
        self.qkv = [Product(part.q_proj, part.k_proj, part.v_proj) for part in attention]
        self.o = [Product(part.o_proj) for part in attention]
        self.gate_up = [Product(part.gate_proj, part.up_proj) for part in mlp]
        self.down = [Product(part.down_proj) for part in mlp]
        self.head = Product(module.get_output_embeddings())  # type: ignore[operator]


class LlamaBody:
    """See `bodies.Body`."""

    def __init__(self, module: nn.Module, products: LlamaProducts, num_slots: int, length: int) -> None:
        config: Any = module.config
        base: Any = module.base_model
        self.module, self.base, self.layers = module, base, base.layers
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.products = products
        self.kernels, _ = kernels_of(module)
        self.pieces: Pieces = self.kernels or TorchPieces(module)
        weight = base.embed_tokens.weight
        self.device = weight.device
        self.cache = SlotCache(
            num_slots, length, len(base.layers), self.kv_heads, self.width, weight.dtype, weight.device
        )  # fmt: skip
        positions = torch.arange(length, device=weight.device)[None]
        cos, sin = base.rotary_emb(weight[:1, None], positions)
        self.cos, self.sin = cos[0][:, None], sin[0][:, None]  # [length, 1, D]

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`. Products see the prompts' tokens packed; only attention sees them padded."""
        ids, lengths, owners, flat = prompts_and_owners(prompts, slots, self.device)
        count, size = ids.shape
        rows, columns = (torch.arange(size, device=self.device)[None, :] < lengths[:, None]).nonzero(as_tuple=True)

        def padded(packed: Tensor) -> Tensor:
            """[N, H, D] -> [P, H, T, D]."""
            out = packed.new_zeros(count, size, *packed.shape[1:])
            out[rows, columns] = packed
            return out.transpose(1, 2)

        def attend(layer: int, projected: Tensor) -> Tensor:
            query, key, value = self._turned(projected, columns)
            keys, values = padded(key), padded(value)
            self.cache.put(layer, keys, values, owners, flat)
            out = functional.scaled_dot_product_attention(
                padded(query), keys, values, is_causal=True, enable_gqa=self.heads != self.kv_heads
            )
            return out.transpose(1, 2)[rows, columns].flatten(1)

        hidden = self._forward(ids[rows, columns], attend)
        return self._logits(hidden[lengths.cumsum(0) - 1]), [len(prompt) for prompt in prompts]

    def step(self, batch: Batch) -> Tensor:
        """See `Body`."""
        self.cache.begin(batch)
        mask = self.cache.causal_mask()[:, None, None]  # [N, 1, 1, visible]

        def attend(layer: int, projected: Tensor) -> Tensor:
            if self.kernels is not None:
                keys, values = self.cache.keys[layer], self.cache.values[layer]
                return self.kernels.attend(projected, self.cos, self.sin, keys, values, batch.slots, batch.positions)
            query, key, value = self._turned(projected, batch.positions)
            self.cache.write(layer, key, value)
            return self.cache.attend(layer, query.unflatten(1, (self.kv_heads, -1)), mask).flatten(1)

        hidden = self._forward(batch.tokens, attend)
        return self._logits(hidden[: batch.num_rows])

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """See `Body`."""
        self.cache.move(sources, targets, length)

    def _forward(self, tokens: Tensor, attend: Attend) -> Tensor:
        """Hidden states [N, D] of N tokens, normed for the head; `attend` takes a layer's number and projections."""
        hidden: Tensor = self.base.embed_tokens(tokens)
        delta: Tensor | None = None
        for number, layer in enumerate(self.layers):
            hidden, normed = self.pieces.add_norm(hidden, delta, layer.input_layernorm)
            delta = self.products.o[number](attend(number, self.products.qkv[number](normed)))
            hidden, normed = self.pieces.add_norm(hidden, delta, layer.post_attention_layernorm)
            delta = self.products.down[number](self.pieces.gate(self.products.gate_up[number](normed)))
        return self.pieces.add_norm(hidden, delta, self.base.norm)[1]

    def _turned(self, projected: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [N, H, d] and key [N, KV, d] at their rotary positions, and value [N, KV, d]."""
        parts = projected.unflatten(-1, (-1, self.width))  # [N, H + 2 KV, d]
        turned = rotate(parts[:, : self.heads + self.kv_heads], self.cos[positions], self.sin[positions])
        return turned[:, : self.heads], turned[:, self.heads :], parts[:, self.heads + self.kv_heads :]

    def _logits(self, hidden: Tensor) -> Tensor:
        return head_logits(self.module, hidden, self.products.head)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions of x [N, H, d]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
