"""Tiny random models of both families and random rows for them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from selftrain.config import DPOConfig, SFTConfig
from selftrain.forwards import Layout
from selftrain.records import Example, Pair
from selftrain.training.dpo import DPOObjective, group_pairs
from selftrain.training.sft import SFTObjective

VOCABULARY = 97


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _llama(dropout: float) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_dropout=dropout,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config)


def _t5(dropout: float) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    settings: dict[str, Any] = {"decoder_start_token_id": 0}
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        dropout_rate=dropout,
        feed_forward_proj="gated-gelu",
        **settings,
    )
    return T5ForConditionalGeneration(config)


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of model, with what its objectives need."""

    name: str
    build: Callable[[float], nn.Module]
    encoder_decoder: bool
    layout: Layout = "rows"

    def model(self, dropout: float = 0.0, seed: int = 0) -> nn.Module:
        """A random model, always the same for a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build(dropout).eval()

    def sft(self, examples: list[Example], micro_batch_tokens: int = 2048, **settings: Any) -> SFTObjective:
        config = SFTConfig.model_validate({"learning_rate": 1e-2, "batch_size": 8, "epochs": 1, **settings})
        return SFTObjective(
            examples,
            config,
            seed=3,
            pad_id=1,
            encoder_decoder=self.encoder_decoder,
            micro_batch_tokens=micro_batch_tokens,
            layout=self.layout,
        )

    def dpo(self, pairs: list[Pair], micro_batch_tokens: int = 2048, **settings: Any) -> DPOObjective:
        config = DPOConfig.model_validate({"learning_rate": 1e-2, "batch_size": 8, "max_epochs": 1, **settings})
        return DPOObjective(
            group_pairs(pairs, prompts_of(pairs)),
            config,
            seed=3,
            pad_id=1,
            encoder_decoder=self.encoder_decoder,
            micro_batch_tokens=micro_batch_tokens,
            layout=self.layout,
        )


FAMILIES = {
    "llama": Family("llama", _llama, False),
    "t5": Family("t5", _t5, True),
    "llama-trees": Family("llama", _llama, False, "trees"),
    "t5-trees": Family("t5", _t5, True, "trees"),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Each family in each layout in turn."""
    return FAMILIES[request.param]


@pytest.fixture
def llama() -> Family:
    """The decoder-only family alone."""
    return FAMILIES["llama"]


def _ids(draw: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high)))


@pytest.fixture
def examples() -> list[Example]:
    """16 rows of mixed lengths. Every target ends in 1, which is the pad id too, as in SmolLM2."""
    draw = random.Random(5)
    return [Example(f"p{i}", _ids(draw, 3, 12), (*_ids(draw, 1, 9), 1), "gold") for i in range(16)]


@pytest.fixture
def pairs() -> list[Pair]:
    """26 pairs of 12 questions: 1 to 3 pairs each, completions shared among them, weights 1 and 0.5."""
    draw = random.Random(6)
    found = []
    for number in range(12):
        winners = [(*_ids(draw, 2, 9), 1) for _ in range(2)]
        losers = [(*_ids(draw, 2, 9), 1) for _ in range(2)]
        combinations = [(w, x) for w in winners for x in losers][: 1 + (number + 1) % 3]
        weight = 0.5 if number == 4 else 1.0
        found += [Pair(f"q{number}", w, x, "gold", "s#0", 0.1, weight) for w, x in combinations]
    return found


def prompts_of(pairs: list[Pair]) -> dict[str, tuple[int, ...]]:
    """A prompt for each question, from its name alone."""
    return {pair.problem_id: _ids(random.Random(pair.problem_id), 3, 10) for pair in pairs}


@pytest.fixture
def prompts(pairs: list[Pair]) -> dict[str, tuple[int, ...]]:
    """The questions' prompts."""
    return prompts_of(pairs)


def plain_token_log_probs(module: nn.Module, encoder_decoder: bool, prompt: Any, target: Any) -> torch.Tensor:
    """Oracle: one row, no padding, the model's own full logits, log_softmax."""
    ids = torch.tensor([list(target)])
    if encoder_decoder:
        start = torch.tensor([[0, *target[:-1]]])
        logits = module(input_ids=torch.tensor([list(prompt)]), decoder_input_ids=start).logits[0]
    else:
        logits = module(input_ids=torch.tensor([[*prompt, *target]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(1, ids.T)[:, 0]


@pytest.fixture
def oracle() -> Callable[..., torch.Tensor]:
    """`plain_token_log_probs`."""
    return plain_token_log_probs


def gradients_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the gradients, by parameter name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.fixture
def gradients() -> Callable[[nn.Module], dict[str, torch.Tensor]]:
    """`gradients_of`."""
    return gradients_of
