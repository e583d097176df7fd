"""Memory of a training from a shape alone: against real tensors, and what recipes say of models that are not here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain import api
from selftrain.config import LoRAConfig, TrainingConfig
from selftrain.errors import ConfigError
from selftrain.memory import ROW_TOKENS, check_training_room, kept_bytes, shape_of, training_memory
from selftrain.plan.known import known_shape
from selftrain.recipe import listed_recipes, load_config, recipe_names, recipe_text


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


# As published. What a recipe says of its memory is counted from these.
SHAPES = {name: known_shape(load_config(name).model) for name in recipe_names() if name.startswith("gsm8k-")}


def gigabytes(shape: Any, training: TrainingConfig, num_processes: int = 1, **changes: Any) -> int:
    need = training_memory(shape, training.model_copy(update=changes), num_processes=num_processes)
    return round(need.total / 1e9)


@pytest.mark.parametrize("name", SHAPES)
def test_a_recipe_says_what_it_needs(name: str) -> None:
    shape, training = SHAPES[name], load_config(name).training
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
    listed = next(recipe for recipe in listed_recipes() if recipe.name == name)
    cards = re.findall(r"(\d+)(?: or \d+)? GB", listed.hardware)
    assert found[0] < int(cards[0])
    number, unit = listed.size.split()
    counted = shape_of(shape)
    head = counted.vocabulary * counted.width if shape.is_encoder_decoder else 0  # Flan-T5's own; the shape ties it
    assert float(number) * {"M": 1e6, "B": 1e9}[unit] == pytest.approx(counted.parameters + head, rel=0.04)


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


def test_a_run_that_cannot_train_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """random-llama: 96,320 weights of 16 bytes are more than the 1.5 MB that are said to be there."""
    monkeypatch.setattr("selftrain.bench.device_memory_bytes", lambda device: 1_500_000)
    with pytest.raises(ConfigError, match="Training 0.1 of 0.1 million weights"):
        api.run("smoke", ["compute.device=cpu"], out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("*/manifest.json"))


@pytest.mark.parametrize(("rank", "processes", "needs"), [(0, 1, 32.0), (0, 2, 16.0), (16, 1, None)])
def test_both_numbers_are_told(rank: int, processes: int, needs: float | None) -> None:
    """About 2,000 million weights on 9.3 GB: 16 bytes each, shared out over processes; adapters fit."""
    config = llama(vocab_size=1000, intermediate_size=11_008, num_hidden_layers=10, num_key_value_heads=32)
    parameters = shape_of(config).parameters
    training = TrainingConfig(lora=LoRAConfig(rank=rank), sharded=processes > 1)
    options: dict[str, Any] = {"num_processes": processes, "precision": "bf16"}
    if needs is None:
        check_training_room(config, training, 9_300_000_000, **options)
        return
    told = f"{16 * parameters / processes / 1e9:,.1f} GB .*9.3 GB are there"
    assert 16 * parameters / processes / 1e9 == pytest.approx(needs, rel=0.05)
    with pytest.raises(ConfigError, match=told):
        check_training_room(config, training, 9_300_000_000, **options)
    check_training_room(config, training, None, **options)
    check_training_room(config, training, 16 * parameters, **options)
