"""Memory of a training from a shape alone: against real tensors, and what recipes say of models that are not here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from selftrain.config import TrainingConfig
from selftrain.memory import ROW_TOKENS, kept_bytes, shape_of, training_memory
from selftrain.recipe import load_config, recipe_names, recipe_text

LLAMA_7B = {"vocab_size": 32_000, "intermediate_size": 11_008, "num_key_value_heads": 32}
QWEN3 = {"vocab_size": 151_936, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
         "head_dim": 128, "tie_word_embeddings": True}  # fmt: skip


def llama(**changes: Any) -> Any:
    from transformers import LlamaConfig

    shape = {
        "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    return LlamaConfig(**{**shape, **changes})


def small(encoder_decoder: bool) -> Any:
    from transformers import T5Config

    if not encoder_decoder:
        changes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 300}
        return llama(**changes, num_attention_heads=4, num_key_value_heads=2)
    return T5Config(vocab_size=300, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_traced_bytes_are_those_of_real_tensors(encoder_decoder: bool, precision: str) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = small(encoder_decoder)
    kind: Any = AutoModelForSeq2SeqLM if encoder_decoder else AutoModelForCausalLM
    module = kind.from_config(config)
    found = training_memory(config, TrainingConfig(micro_batch_tokens=3 * ROW_TOKENS), precision=precision)
    assert found.activations + found.copies == pytest.approx(kept_bytes(module, 3, precision), rel=0.01)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert shape_of(config).parameters == parameters
    assert (found.weights, found.gradients, found.moments) == (4 * parameters, 4 * parameters, 8 * parameters)
    assert (found.copies > 0) == (precision == "bf16") or encoder_decoder


def t5(**shape: Any) -> Any:
    from transformers import T5Config

    return T5Config(vocab_size=32_128, d_kv=64, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **shape)


def qwen3(hidden_size: int, intermediate_size: int) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(hidden_size=hidden_size, intermediate_size=intermediate_size, **QWEN3)


def gemma3() -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        vocab_size=262_144, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256, tie_word_embeddings=True,
    )  # fmt: skip


# As published. What a recipe says of its memory is counted from these.
SHAPES: dict[str, Callable[[], Any]] = {
    "gsm8k-flan-t5-base": lambda: t5(d_model=768, d_ff=2048, num_layers=12, num_heads=12),
    "gsm8k-flan-t5-large": lambda: t5(d_model=1024, d_ff=2816, num_layers=24, num_heads=16),
    "gsm8k-llama-1-7b": lambda: llama(**LLAMA_7B),
    "gsm8k-llama-2-7b": lambda: llama(**LLAMA_7B),
    "gsm8k-llama-3-8b": llama,
    "gsm8k-llama-3-8b-lora": llama,
    "gsm8k-qwen3-0.6b": lambda: qwen3(1024, 3072),
    "gsm8k-qwen3-1.7b": lambda: qwen3(2048, 6144),
    "gsm8k-llama-3.2-1b": lambda: llama(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, tie_word_embeddings=True
    ),
    "gsm8k-gemma-3-1b": gemma3,
    "gsm8k-smollm2-135m": lambda: llama(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    ),
}  # fmt: skip


def gigabytes(shape: Any, training: TrainingConfig, num_processes: int = 1, **changes: Any) -> int:
    need = training_memory(shape, training.model_copy(update=changes), num_processes=num_processes)
    return round(need.total / 1e9)


@pytest.mark.parametrize("name", SHAPES)
def test_a_recipe_says_what_it_needs(name: str) -> None:
    shape, training = SHAPES[name](), load_config(name).training
    said = re.search(r"^# .*Memory of one card, from the model's shape: (.*)$", recipe_text(name), re.MULTILINE)
    assert said is not None
    figures = [int(figure) for figure in re.findall(r"(\d+) GB", said[1])]
    found = [gigabytes(shape, training, 4)]
    if training.sharded:
        found.append(gigabytes(shape, training, sharded=False))
    elif "gradient_checkpointing=false" in said[1]:
        found.insert(1, gigabytes(shape, training, gradient_checkpointing=False))
        figures.remove(80)  # the card's
    assert figures == found
    cards = [int(size) for size in re.findall(r"(\d+)(?: or \d+)? GB", str(load_config(name).description))]
    assert found[0] < min(cards)


def test_every_recipe_of_a_model_that_is_not_here_says_so() -> None:
    for name in recipe_names():
        hub = "/" in load_config(name).model
        assert ("Untested on weights" in recipe_text(name)) == hub
        assert not hub or (name in SHAPES and "untested on weights" in load_config(name).description)


def test_parts_follow_the_settings() -> None:
    training = load_config("gsm8k-llama-3-8b").training
    sharded = training_memory(llama(), training, num_processes=4)
    plain = training_memory(llama(), training.model_copy(update={"sharded": False}), num_processes=4)
    assert sharded.moments * 4 == pytest.approx(plain.moments)
    kept = training_memory(llama(), training.model_copy(update={"gradient_checkpointing": False}), num_processes=4)
    assert kept.activations > 5 * sharded.activations
    more = training_memory(llama(), training.model_copy(update={"micro_batch_tokens": 4096}), num_processes=4)
    assert more.activations == pytest.approx(2 * sharded.activations, rel=0.01)
    adapters = training_memory(llama(), load_config("gsm8k-llama-3-8b-lora").training)
    assert adapters.gradients < 0.01 * plain.gradients
    assert adapters.weights < 0.51 * plain.weights, "frozen weights are held in bf16"


def test_building_a_shape_takes_no_memory_and_no_draws() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert shape_of(llama()).parameters == 8_030_261_248
    assert torch.equal(torch.rand(1), expected)
