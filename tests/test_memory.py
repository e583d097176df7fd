"""Memory of a training from a shape alone: against real tensors, and what the guide and the example say of 8 B."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.config import TrainingConfig
from selftrain.memory import ROW_TOKENS, Memory, kept_bytes, shape_of, training_memory
from selftrain.recipe import load_config

EXAMPLE = Path(__file__).parents[1] / "examples" / "llama-3-8b.yaml"


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


def need(num_processes: int, *overrides: str) -> Memory:
    config = load_config(str(EXAMPLE), list(overrides))
    return training_memory(llama(), config.training, num_processes=num_processes)


def test_the_example_says_what_it_needs() -> None:
    said = [int(figure) for figure in re.findall(r"(\d+) GB", EXAMPLE.read_text().split("name:")[0])]
    whole = ("training.sharded=false", "training.gradient_checkpointing=true")
    found = [
        need(4),
        need(4, "training.gradient_checkpointing=false"),
        need(2),
        need(1, *whole),
        need(1, "training.sharded=false", "training.lora.rank=16"),
    ]
    totals = [round(memory.total / 1e9) for memory in found]
    assert all(total in said for total in totals), (totals, said)
    assert totals[0] < 80 < totals[3], "four cards of 80 GB hold it, one does not"
    assert totals[4] < 80, "one holds adapters"


def test_parts_follow_the_settings() -> None:
    plain, sharded = need(4, "training.sharded=false"), need(4)
    assert sharded.moments * 4 == pytest.approx(plain.moments)
    assert need(4, "training.gradient_checkpointing=false").activations > 5 * sharded.activations
    more = need(4, "training.micro_batch_tokens=4096")
    assert more.activations == pytest.approx(2 * sharded.activations, rel=0.01)
    adapters = need(1, "training.sharded=false", "training.lora.rank=16")
    assert adapters.gradients < 0.01 * plain.gradients and adapters.weights > plain.weights


def test_building_a_shape_takes_no_memory_and_no_draws() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert shape_of(llama()).parameters == 8_030_261_248
    assert torch.equal(torch.rand(1), expected)
