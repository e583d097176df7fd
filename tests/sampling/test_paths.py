"""Every body against the model's own forward, and which models take which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from selftrain.errors import ModelError
from selftrain.models import LanguageModel, load_tokenizer
from selftrain.sampling import kernels
from selftrain.sampling.base import Request, SamplingParams
from selftrain.sampling.bodies import CausalBody
from selftrain.sampling.engine import Engine
from selftrain.sampling.llama_body import LlamaBody
from selftrain.sampling.paths import check_config, make_products, plain_path_reason
from selftrain.sampling.t5_body import T5Body
from selftrain.toy import make_toy

GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=20, calculator=False)
SMALL: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
    "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": 512, "d_model": 48, "d_kv": 8, "d_ff": 96, "num_layers": 3, "num_heads": 6, "eos_token_id": 0,
    "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip

# Prompts and answers go beyond the window; one layer of three, or none, sees everything. Gemma 2 adds masks to scores.
WINDOW: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)),
    "llama, every head its own": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=6)),
    "llama 3 positions": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, rope_parameters=LLAMA3)),
    "llama with biases": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, num_key_value_heads=2, attention_bias=True, mlp_bias=True)
    ),
    "mistral": lambda: MistralForCausalLM(
        MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=None, head_dim=12)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**SMALL, **WINDOW, layer_types=MIXED, query_pre_attn_scalar=8)
    ),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, **WINDOW, query_pre_attn_scalar=8)),
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SMALL, **WINDOW)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    "t5 gated": lambda: T5ForConditionalGeneration(T5Config(**T5, feed_forward_proj="gated-gelu")),
}
PLAIN = ("gpt-neox", "qwen3", "gemma3", "gemma2", "mistral with a window")
FAST = [name for name in MODELS if name not in PLAIN]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("toy")
    make_toy("random-llama", folder)
    return load_tokenizer(folder)


def model_of(name: str, tokenizer: Any) -> LanguageModel:
    torch.manual_seed(1)
    module = MODELS[name]().eval()
    for parameter in module.parameters():  # wider weights, so that greedy outputs differ between prompts
        if parameter.ndim == 2:
            parameter.data.mul_(4.0)
        elif parameter.ndim == 1 and parameter.abs().sum() == 0:
            parameter.data.normal_(std=0.05)  # biases, which begin at 0
    return LanguageModel(module, tokenizer, Path("toy"), "toy")


def prompts(count: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(7)
    sizes = torch.randint(3, 40, (count,), generator=generator).tolist()
    return [tuple(torch.randint(1, 500, (size,), generator=generator).tolist()) for size in sizes]


@pytest.mark.parametrize(("name", "native"), [*((name, True) for name in MODELS), *((name, False) for name in FAST)])
def test_greedy_equals_generate(name: str, native: bool, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled kernels, where they can be had, and without."""
    if not native:
        monkeypatch.setattr(kernels, "library", lambda *_: (None, "switched off"))
    model = model_of(name, tokenizer)
    asked = prompts(12)
    expected = []
    for prompt in asked:
        out = model.module.generate(  # type: ignore[operator]
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=GREEDY.max_new_tokens, do_sample=False, eos_token_id=0, pad_token_id=0,
        )[0].tolist()  # fmt: skip
        expected.append(out[1:] if name.startswith("t5") else out[len(prompt) :])
    requests = [Request(f"q{number}", 0, prompt, number) for number, prompt in enumerate(asked)]
    said: list[str] = []
    outputs = Engine(model, num_slots=5, style="angle", say=said.append).generate(requests, GREEDY)
    assert ("no fast path" in "".join(said)) == (name in PLAIN)
    assert native or ("switched off" in "".join(said)) == (name in FAST)
    assert [list(output.token_ids) for output in outputs] == expected
    assert len({output.token_ids for output in outputs}) > 6


@pytest.mark.parametrize("name", FAST)
def test_the_fast_path_never_calls_the_models_own_decoder(
    name: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(name, tokenizer)
    decoder: Any = model.module.get_decoder() if name.startswith("t5") else model.module.base_model  # type: ignore[operator]

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the slow path ran")

    for part in (decoder, model.module):
        monkeypatch.setattr(part, "forward", forbidden)
    monkeypatch.setattr(model.module, "generate", forbidden)
    outputs = Engine(model, num_slots=4, style="angle").generate(
        [Request(f"q{number}", 0, prompt, number) for number, prompt in enumerate(prompts(6))], GREEDY
    )
    assert all(output.token_ids for output in outputs)


def test_which_models_take_the_fast_path(tokenizer: Any) -> None:
    assert {name: bool(plain_path_reason(model_of(name, tokenizer).module)) for name in MODELS} == {
        name: name in PLAIN for name in MODELS
    }
    assert "sliding" in plain_path_reason(model_of("mistral with a window", tokenizer).module)
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert "rotary" in plain_path_reason(LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=dynamic)))


def test_bodies_have_the_class_that_their_models_need(tokenizer: Any) -> None:
    engine = Engine(model_of("t5", tokenizer), num_slots=2, style="angle")
    asked = [Request("q", 0, (3, 4, 5), 1)]
    assert isinstance(engine.body(engine.shape(asked, GREEDY)), T5Body)
    llama = Engine(model_of("llama", tokenizer), num_slots=2, style="angle")
    assert isinstance(llama.body(llama.shape(asked, GREEDY)), LlamaBody)


def test_layers_without_keys_and_values_are_refused_by_name() -> None:
    mixed = Lfm2ForCausalLM(Lfm2Config(**SMALL, num_key_value_heads=2, layer_types=["conv", "full_attention", "conv"]))
    with pytest.raises(ModelError, match="lfm2 .* layers of kind conv"):
        make_products(mixed)
    with pytest.raises(ModelError, match="mamba cannot be sampled here: .* no num_attention_heads") as caught:
        check_config(MambaConfig())
    assert "Llama" in str(caught.value.hint)


def test_a_forward_that_cannot_go_over_our_storage_is_refused() -> None:
    sizes: dict[str, Any] = {"vocab_size": 512, "hidden_size": 48, "n_layer": 2, "n_head": 6}
    with pytest.raises(ModelError, match="bloom cannot be sampled here"):
        make_products(BloomForCausalLM(BloomConfig(**sizes)))


def test_a_wrong_mask_is_noticed(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is no formality: a forward that sees less than it should is refused."""
    module = model_of("qwen3", tokenizer).module
    assert make_products(module) is None
    monkeypatch.setattr(CausalBody, "_masks", lambda _, cache: cache.causal_mask(1)[:, None, None])
    with pytest.raises(ModelError, match="off by"):
        make_products(module)
