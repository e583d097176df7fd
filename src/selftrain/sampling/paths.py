"""Which forwards a model takes while decoding, and what storage they need.

shape = Shape(num_slots=128, prompt_tokens=90, new_tokens=150)
shape.storage_bytes(module), plain_path_reason(module)
body = make_body(module, shape)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from selftrain.errors import ConfigError, ModelError
from selftrain.hardware import available_memory_bytes
from selftrain.models import is_encoder_decoder
from selftrain.sampling import llama_body, t5_body
from selftrain.sampling.bodies import Body, CausalBody
from selftrain.sampling.cache import storage_bytes
from selftrain.sampling.graphs import GraphedBody
from selftrain.sampling.llama_body import LlamaBody, LlamaProducts, why_not
from selftrain.sampling.t5_body import T5Body, T5Products

SLOTS = 128
MIN_SLOTS, MAX_SLOTS = 8, 2048
T5_TYPES = ("t5",)  # Flan-T5 is one
Products = LlamaProducts | T5Products | None


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """Slots, and the longest prompt and completion that they must hold."""

    num_slots: int
    prompt_tokens: int
    new_tokens: int

    def holds(self, other: Shape) -> bool:
        """Whether storage of this shape is large enough for another."""
        return all(
            mine >= asked for mine, asked in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        )

    def storage_bytes(self, module: nn.Module) -> int:
        """Bytes of key/value storage; of an encoder-decoder, its own and the prompt's."""
        config: Any = module.config
        dtype = next(module.parameters()).dtype
        if is_encoder_decoder(module):
            layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
            length = self.prompt_tokens + self.new_tokens + 1
            return storage_bytes(self.num_slots, length, layers, config.num_heads, config.d_kv, dtype)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        length = self.prompt_tokens + self.new_tokens
        return storage_bytes(self.num_slots, length, config.num_hidden_layers, heads, width, dtype)


def make_products(module: nn.Module) -> Products:
    """A model's products for its fast path, made once a model; None where it has none.

    Raises:
        ModelError: an encoder-decoder model that is not of the T5 kind.
    """
    if is_encoder_decoder(module):
        kind = module.config.model_type  # type: ignore[union-attr]
        if kind not in T5_TYPES:
            raise ModelError(
                f"Expected a decoder-only model or an encoder-decoder of type {' or '.join(T5_TYPES)}, got {kind!r}."
            )
        return T5Products(module)
    return None if plain_path_reason(module) else LlamaProducts(module)


def make_body(module: nn.Module, products: Products, shape: Shape) -> Body:
    """The fastest body that the model can take on its device."""
    length = shape.prompt_tokens + shape.new_tokens
    if products is None:
        return CausalBody(module, shape.num_slots, length)
    on_gpu = next(module.parameters()).device.type == "cuda"
    if isinstance(products, T5Products):
        length = shape.new_tokens + 1
        encoded = T5Body(module, products, shape.num_slots, length, shape.prompt_tokens)
        return GraphedBody(encoded, length) if on_gpu else encoded
    body = LlamaBody(module, products, shape.num_slots, length)
    return GraphedBody(body, length, body.cache if body.kernels else None) if on_gpu else body


def plain_path_reason(module: nn.Module) -> str:
    """Why a model is decoded through its own transformers forward; empty where it takes a fast path."""
    return "" if is_encoder_decoder(module) else why_not(module)


def why_without_kernels(module: nn.Module) -> str:
    """Why a fast path on a CPU has to do without compiled kernels; empty where it has them, or needs none."""
    if is_encoder_decoder(module):
        return t5_body.kernels_of(module)[1]
    return "" if plain_path_reason(module) else llama_body.kernels_of(module)[1]


def auto_slots(module: nn.Module, prompt_tokens: int, new_tokens: int) -> int:
    """Rows to decode at once: 128, so that results repeat; on a CUDA device the power of two that its memory holds.

    Half of the free memory is for storage and logits (three copies in fp32); the rest is for what passes through.
    """
    device = next(module.parameters()).device
    if device.type != "cuda":
        return SLOTS
    config: Any = module.config
    logits = 3 * 4 * config.vocab_size
    a_row = Shape(1, prompt_tokens, new_tokens).storage_bytes(module) + logits
    return fitting_slots(torch.cuda.mem_get_info(device)[0] // 2, a_row)


def fitting_slots(free_bytes: int, row_bytes: int) -> int:
    """The largest power of two of rows that fit, within bounds.

    >>> fitting_slots(40 * 2**30, 12 * 2**20)
    2048
    >>> fitting_slots(2**30, 12 * 2**20)
    64
    """
    rows = max(free_bytes // row_bytes, MIN_SLOTS)
    return min(1 << (rows.bit_length() - 1), MAX_SLOTS)


def check_memory(module: nn.Module, shape: Shape) -> None:
    """Refuse storage that main memory can't hold. On a GPU the engine halves its slots instead.

    Raises:
        ConfigError: the storage is larger than the free memory.
    """
    needed, free = shape.storage_bytes(module), available_memory_bytes()
    if next(module.parameters()).device.type == "cpu" and free is not None and needed > free:
        raise ConfigError(
            f"{shape.num_slots} rows of {shape.prompt_tokens} + {shape.new_tokens} tokens need "
            f"{needed / 1e9:.1f} GB of key/value storage, {free / 1e9:.1f} GB are free.",
            "Lower sampling.slots or sampling.max_new_tokens.",
        )
