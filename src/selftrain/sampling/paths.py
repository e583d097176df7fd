"""Which forwards a model takes while decoding, and what storage they need.

shape = Shape(num_slots=128, prompt_tokens=90, new_tokens=150)
shape.storage_bytes(config, dtype), plain_path_reason(module)
check_memory(config, dtype, "cpu", shape)       # by the config: before any weights are read
body = make_body(module, shape)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from selftrain.errors import ConfigError, ModelError, listed
from selftrain.hardware import available_memory_bytes
from selftrain.models import FULL, SLIDING, attention_spans, is_encoder_decoder, max_positions
from selftrain.sampling import llama_body, t5_body
from selftrain.sampling.bodies import OTHERS, Body, CausalBody, check_causal
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

    def storage_bytes(self, config: Any, dtype: torch.dtype) -> int:
        """Bytes of key/value storage; of an encoder-decoder, its own and the prompt's."""
        if config.is_encoder_decoder:
            layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
            length = self.prompt_tokens + self.new_tokens + 1
            return storage_bytes(self.num_slots, length, layers, config.num_heads, config.d_kv, dtype)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        length = self.prompt_tokens + self.new_tokens
        return storage_bytes(self.num_slots, length, config.num_hidden_layers, heads, width, dtype)

    def stated(self, config: Any, dtype: torch.dtype) -> str:
        """The storage in words, for whoever waits."""
        return (
            f"{_gigabytes(self.storage_bytes(config, dtype))} of key/value storage "
            f"({self.num_slots} rows of {self.prompt_tokens} + {self.new_tokens} tokens)"
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e10 else f"{size / 1e9:.2g} GB"


def check_config(config: Any) -> None:
    """Refuse a model that no body here decodes, by its config: before any weights are read.

    Raises:
        ModelError: an encoder-decoder that is not of the T5 kind, or layers that keep something else than keys and
            values, or look at them otherwise than through a window.
    """
    kind = config.model_type
    if config.is_encoder_decoder:
        if kind not in T5_TYPES:
            raise ModelError(
                f"Expected a decoder-only model or an encoder-decoder of type {' or '.join(T5_TYPES)}, got {kind!r}."
            )
        return
    missing = [name for name in ("num_hidden_layers", "num_attention_heads") if not getattr(config, name, None)]
    if missing:
        raise ModelError(
            f"A model of type {kind} cannot be sampled here: its config has no {listed(missing, 2)}.", OTHERS
        )
    strange = sorted(attention_spans(config).keys() - {FULL, SLIDING})
    if strange:
        raise ModelError(
            f"A model of type {kind} cannot be sampled here: it has layers of kind {listed(strange, 3)}.", OTHERS
        )


def make_products(module: nn.Module) -> Products:
    """A model's products for its fast path, made once a model; None where it has none.

    Raises:
        ModelError: see `check_config` and `bodies.check_causal`.
    """
    check_config(module.config)
    if is_encoder_decoder(module):
        return T5Products(module)
    if not plain_path_reason(module):
        return LlamaProducts(module)
    check_causal(module)
    return None


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
    a_row = Shape(1, prompt_tokens, new_tokens).storage_bytes(config, next(module.parameters()).dtype) + logits
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


def check_positions(config: Any, prompt_tokens: int, new_tokens: int) -> None:
    """Refuse more tokens than the model has positions.

    Raises:
        ConfigError: with the longest prompt and the new tokens.
    """
    limit = max_positions(config)
    if limit is not None and prompt_tokens + new_tokens > limit:
        raise ConfigError(
            f"Expected prompt and completion to fit the model's {limit} positions, "
            f"got a prompt of {prompt_tokens} tokens and {new_tokens} new ones.",
            "Lower sampling.max_new_tokens or prompt.max_prompt_tokens.",
        )


def check_memory(config: Any, dtype: torch.dtype, device: str, shape: Shape) -> None:
    """Refuse storage that main memory can't hold. On a GPU the engine halves its slots instead.

    Raises:
        ConfigError: the storage is larger than the free memory.
    """
    free = available_memory_bytes()
    if device == "cpu" and free is not None and shape.storage_bytes(config, dtype) > free:
        raise ConfigError(
            f"Sampling needs {shape.stated(config, dtype)}, {_gigabytes(free)} are free.",
            "Lower sampling.slots (--slots) or sampling.max_new_tokens (--max-new-tokens).",
        )
