"""The SFT objective against one-row-at-a-time cross-entropy over the model's own full logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from selftrain.config import SFTConfig
from selftrain.errors import DataError
from selftrain.models import checkpoint_activations
from selftrain.recipe import load_config
from selftrain.records import Example, Pair
from selftrain.training.dpo import DPOObjective
from selftrain.training.sft import SFTObjective
from tests.training.conftest import FAMILIES


@pytest.mark.parametrize("micro_batch_tokens", [64, 4096])
def test_loss_and_gradient_equal_a_plain_loop(
    family: Any,
    examples: list[Example],
    oracle: Callable[..., torch.Tensor],
    gradients: Callable[..., dict[str, torch.Tensor]],
    micro_batch_tokens: int,
) -> None:
    examples[2] = dataclasses.replace(examples[2], weight=0.25)
    module = family.model()
    objective = family.sft(examples, micro_batch_tokens, batch_size=16)
    parts = [objective.loss(module, micro_batch)[0] for micro_batch in objective.plan.step(0)]
    assert len(parts) == 1 if micro_batch_tokens == 4096 else len(parts) > 3
    torch.autograd.backward(parts)
    found = gradients(module)

    module.zero_grad()
    total = sum(row.weight * len(row.target_ids) for row in examples)
    losses = [
        -row.weight * oracle(module, family.encoder_decoder, row.prompt_ids, row.target_ids).sum() for row in examples
    ]
    expected = torch.stack(losses).sum() / total
    torch.autograd.backward(expected)
    assert torch.stack(parts).sum().item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in gradients(module).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


def test_tokens_of_the_calculator_can_be_left_out(
    family: Any, examples: list[Example], oracle: Callable[..., torch.Tensor]
) -> None:
    """The second token of every target is said to be forced: it is in neither the sum nor the denominator."""
    module = family.model()
    objective = SFTObjective(
        examples, SFTConfig(batch_size=16, epochs=1), seed=3, pad_id=1, encoder_decoder=family.encoder_decoder,
        layout=family.layout, forced=lambda ids: [(1, 2)] if len(ids) > 2 else [],
    )  # fmt: skip
    found = sum(float(objective.loss(module, micro_batch)[0].detach()) for micro_batch in objective.plan.step(0))
    total = count = 0.0
    for row in examples:
        own = [place for place in range(len(row.target_ids)) if place != 1 or len(row.target_ids) == 2]
        total -= float(oracle(module, family.encoder_decoder, row.prompt_ids, row.target_ids)[own].sum().detach())
        count += len(own)
    assert found == pytest.approx(total / count, rel=1e-5)


def test_config_dropout_is_on_in_training_mode_and_can_be_overridden(
    family: Any, examples: list[Example], request: pytest.FixtureRequest
) -> None:
    module = family.model(dropout=0.5)
    micro_batch = family.sft(examples).plan.step(0)[0]

    def spread(dropout: float | None) -> float:
        objective = family.sft(examples, dropout=dropout)
        objective.set_mode(module)
        torch.manual_seed(0)
        first, second = (objective.loss(module, micro_batch)[0] for _ in range(2))
        return float((first - second).detach().abs())

    assert spread(None) > 1e-3
    assert spread(0.0) == 0.0


@pytest.mark.parametrize(("recipe", "kind"), [("gsm8k-flan-t5-base", "t5"), ("gsm8k-llama-2-7b", "llama")])
def test_the_papers_dropout_is_in_sft_and_not_in_dpo(
    recipe: str, kind: str, examples: list[Example], pairs: list[Pair]
) -> None:
    """T5 keeps its config's 0.1 (transformers' own default too), Llama's attention gets 0.1, and DPO has none."""
    from transformers import LlamaConfig, T5Config

    family, training = FAMILIES[kind], load_config(recipe).training
    own = T5Config().dropout_rate if kind == "t5" else LlamaConfig().attention_dropout
    module = family.model(dropout=float(own or 0.0))
    sft = family.sft(examples, dropout=training.sft.dropout)
    dpo = family.dpo(pairs)
    if training.gradient_checkpointing:
        checkpoint_activations(module)

    def spread(objective: SFTObjective | DPOObjective) -> float:
        objective.set_mode(module)
        torch.manual_seed(0)
        if isinstance(objective, DPOObjective):
            first, second = (objective.log_probs(module, objective.plan.step(0)[0]).sum() for _ in range(2))
        else:
            first, second = (objective.loss(module, objective.plan.step(0)[0])[0] for _ in range(2))
        return float((first - second).detach().abs())

    assert spread(sft) > 1e-5
    places = ["dropout", "p"] if kind == "t5" else ["attention_dropout"]
    found = (getattr(part, name, None) for part in module.modules() for name in places)
    rates = [value for value in found if isinstance(value, float)]
    assert len(rates) >= 2 and set(rates) == {0.1}
    assert spread(dpo) == 0.0


@pytest.mark.parametrize("change", [{"prompt_ids": ()}, {"target_ids": ()}, {"weight": 0.0}])
def test_an_unusable_example_is_named(family: Any, examples: list[Example], change: dict[str, Any]) -> None:
    examples[3] = dataclasses.replace(examples[3], **change)
    with pytest.raises(DataError, match="p3"):
        family.sft(examples)


def test_no_examples_are_refused(family: Any) -> None:
    with pytest.raises(DataError, match="at least one example"):
        family.sft([])


def test_digest_covers_rows_and_order(llama: Any, examples: list[Example]) -> None:
    digest = llama.sft(examples).digest()
    changed = [dataclasses.replace(examples[0], target_ids=(5, 1)), *examples[1:]]
    assert digest == llama.sft(list(examples), micro_batch_tokens=64).digest()
    assert len({digest, llama.sft(changed).digest(), llama.sft(examples[::-1]).digest()}) == 3
