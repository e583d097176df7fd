"""The DPO objective against pairs one by one with a separate frozen reference model."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from selftrain.config import DPOConfig
from selftrain.errors import DataError
from selftrain.records import Pair
from selftrain.training.dpo import DPOObjective, group_pairs
from selftrain.training.objective import Forward

Oracle = Callable[..., torch.Tensor]


def _measure(forwards: Sequence[Forward]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [forward() for _, forward in forwards]


def _measured(objective: DPOObjective, module: nn.Module) -> DPOObjective:
    objective.restore(objective.before(module, _measure))
    return objective


def _moved(module: nn.Module) -> nn.Module:
    """A policy away from its reference."""
    moved = copy.deepcopy(module)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return moved


def test_group_pairs_forwards_each_distinct_completion_once() -> None:
    a, b, x, y = (2, 1), (3, 1), (4, 1), (5, 1)
    sides = [("q", a, x), ("r", a, x), ("q", a, y), ("q", b, x)]
    found = group_pairs([Pair(q, w, z, "gold", "s#0", 0.0) for q, w, z in sides], {"q": (9,), "r": (8,)})
    assert [question.problem_id for question in found] == ["q", "r"]
    assert found[0].completions == (a, x, y, b)
    assert found[0].pairs == ((0, 1, 1.0), (0, 2, 1.0), (3, 1, 1.0))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (Pair("q", (2, 1), (2, 1), "gold", "s#0", 1.0), "two different"),
        (Pair("q", (2, 1), (), "gold", "s#0", 1.0), "non-empty"),
        (Pair("z", (2, 1), (3, 1), "gold", "s#0", 1.0), "no prompt"),
        (Pair("q", (2, 1), (3, 1), "gold", "s#0", 1.0, weight=0.0), "weight above 0"),
    ],
)
def test_unusable_pairs_are_named(pair: Pair, message: str) -> None:
    with pytest.raises(DataError, match=message):
        group_pairs([pair], {"q": (9,)})


def test_an_empty_pair_set_is_refused(llama: Any) -> None:
    with pytest.raises(DataError, match="at least one pair"):
        llama.dpo([])


def test_margins_are_zero_before_step_1(family: Any, pairs: list[Pair]) -> None:
    module = family.model()
    objective = _measured(family.dpo(pairs, micro_batch_tokens=128), module)
    for step in range(objective.plan.num_steps):
        for micro_batch in objective.plan.step(step):
            _, stats = objective._compare(objective.log_probs(module, micro_batch), micro_batch)
            assert abs(float(stats["margin"])) / objective.config.beta < 1e-4
            assert abs(float(stats["chosen_change"])) < 1e-4


def test_the_reference_has_no_dropout(family: Any, pairs: list[Pair]) -> None:
    module = family.model(dropout=0.5).train()
    objective = family.dpo(pairs)
    first, second = (objective.before(module, _measure)["reference"] for _ in range(2))
    assert torch.equal(first, second)
    assert not module.training


def test_tokens_of_the_calculator_can_be_left_out(
    family: Any, pairs: list[Pair], prompts: Mapping[str, tuple[int, ...]], oracle: Oracle
) -> None:
    """Every second token of a completion is said to be forced: neither sums nor lengths have it."""

    def forced(ids: Any) -> list[tuple[int, int]]:
        return [(place, place + 1) for place in range(1, len(ids) - 1, 2)]

    module = family.model()
    settings = DPOConfig(learning_rate=1e-3, batch_size=100)
    objective = DPOObjective(
        group_pairs(pairs, prompts), settings, seed=3, pad_id=1, encoder_decoder=family.encoder_decoder,
        layout=family.layout, forced=forced,
    )  # fmt: skip
    objective.plan = dataclasses.replace(objective.plan, worth_a_forward=2048)
    (micro_batch,) = objective.plan.step(0)
    found = objective.log_probs(module, micro_batch).tolist()
    expected, lengths = [], []
    for question in (objective.questions[item] for item in micro_batch.items):
        for ids in question.completions:
            own = [place for place in range(len(ids)) if not (place % 2 and place < len(ids) - 1)]
            expected.append(float(oracle(module, family.encoder_decoder, question.prompt_ids, ids)[own].sum().detach()))
            lengths.append(len(own))
    assert found == pytest.approx(expected, rel=1e-4)
    assert objective._pairs(micro_batch, torch.device("cpu"))[3].tolist() == lengths


def _by_hand(settings: dict[str, Any], rows: list[dict[str, Any]]) -> torch.Tensor:
    """The loss of an effective batch from each pair's log-probabilities, lengths and weight, equation by equation."""
    total, nll = torch.zeros(()), torch.zeros(())
    weight = sum(row["weight"] for row in rows)
    tokens = sum(row["weight"] * row["chosen_length"] for row in rows)
    for row in rows:
        ratio = {}
        for side in ("chosen", "rejected"):
            ratio[side] = row[side] - row[f"reference_{side}"]
            if settings.get("length_normalised"):
                ratio[side] = ratio[side] / row[f"{side}_length"]
        h = ratio["chosen"] - ratio["rejected"]
        pair = {
            "dpo": -torch.log(torch.sigmoid(0.3 * h)),
            "ipo": (h - 1 / 0.6) ** 2,
            "hinge": torch.clamp(1 - 0.3 * h, min=0),
        }[settings.get("loss", "dpo")]
        total = total + row["weight"] * pair / weight
        per_sequence = settings.get("nll_norm", "sequence") == "sequence"
        nll = nll - row["weight"] * row["chosen"] / (weight * row["chosen_length"] if per_sequence else tokens)
    return total + settings.get("nll_alpha", 0.0) * nll


LOSSES: list[dict[str, Any]] = [
    {},
    {"loss": "ipo"},
    {"loss": "ipo", "length_normalised": True},
    {"loss": "hinge"},
    {"length_normalised": True, "nll_alpha": 0.5},
    {"nll_alpha": 1.0, "nll_norm": "sequence"},
    {"nll_alpha": 1.0, "nll_norm": "token"},
]


@pytest.mark.parametrize("settings", LOSSES, ids=str)
@pytest.mark.parametrize("micro_batch_tokens", [64, 4096])
def test_loss_and_gradient_equal_pairs_one_by_one(
    family: Any,
    pairs: list[Pair],
    prompts: Mapping[str, tuple[int, ...]],
    oracle: Oracle,
    gradients: Callable[..., dict[str, torch.Tensor]],
    micro_batch_tokens: int,
    settings: dict[str, Any],
) -> None:
    reference = family.model()
    objective = _measured(family.dpo(pairs, micro_batch_tokens, beta=0.3, batch_size=100, **settings), reference)
    module = _moved(reference)
    (batch,) = [objective.plan.step(index) for index in range(objective.plan.num_steps)]
    found_loss = torch.stack([objective.loss(module, micro_batch)[0] for micro_batch in batch]).sum()
    torch.autograd.backward(found_loss)
    found = gradients(module)

    module.zero_grad()
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {"weight": pair.weight}
        for side, ids in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
            asked = (family.encoder_decoder, prompts[pair.problem_id], ids)
            row |= {side: oracle(module, *asked).sum(), f"reference_{side}": oracle(reference, *asked).sum().detach()}
            row[f"{side}_length"] = len(ids)
        rows.append(row)
    expected = _by_hand(settings, rows)
    torch.autograd.backward(expected)
    assert found_loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs(found_loss.item() - math.log(2)) > 1e-3
    for name, gradient in gradients(module).items():
        size = max(1.0, float(gradient.abs().max()))  # ipo's losses are squares of tens
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * size, msg=name)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


def test_statistics_equal_pairs_one_by_one(
    family: Any, pairs: list[Pair], prompts: Mapping[str, tuple[int, ...]], oracle: Oracle
) -> None:
    reference = family.model()
    objective = _measured(family.dpo(pairs, micro_batch_tokens=128, beta=0.3, max_steps=1), reference)
    module = _moved(reference)
    found = objective.after(module, _measure)
    reached = {question.problem_id for question in objective.questions}
    assert 0 < len(reached) < len({pair.problem_id for pair in pairs}), "questions that no step reaches are left out"
    pairs = [pair for pair in pairs if pair.problem_id in reached]

    margins, losses, changes = [], [], {"chosen": 0.0, "rejected": 0.0}
    log_probs, tokens = dict(changes), {"chosen": 0, "rejected": 0}
    for pair in pairs:
        ratios = []
        for side, ids in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
            row = (family.encoder_decoder, prompts[pair.problem_id], ids)
            policy = oracle(module, *row).sum().item()
            ratios.append(policy - oracle(reference, *row).sum().item())
            changes[side] += ratios[-1]
            log_probs[side] += policy
            tokens[side] += len(ids)
        margins.append(0.3 * (ratios[0] - ratios[1]))
        losses.append(pair.weight * math.log(1 + math.exp(-margins[-1])))
    assert found["loss"] == pytest.approx(sum(losses) / sum(pair.weight for pair in pairs), rel=1e-4)
    assert found["margin"] == pytest.approx(sum(margins) / len(pairs), abs=1e-4)
    assert found["reward_accuracy"] == pytest.approx(sum(margin > 0 for margin in margins) / len(pairs))
    for side in ("chosen", "rejected"):
        assert found[f"{side}_change_per_token"] == pytest.approx(changes[side] / tokens[side], abs=1e-4)
        assert found[f"{side}_log_prob_per_token"] == pytest.approx(log_probs[side] / tokens[side], rel=1e-4)


def test_tokens_are_those_of_distinct_completions(llama: Any, pairs: list[Pair]) -> None:
    objective = llama.dpo(pairs)
    rows = [(q.prompt_ids, ids) for q in objective.questions for ids in q.completions]
    real = sum(len(prompt) + len(ids) for prompt, ids in rows)
    assert len(rows) < 2 * len(pairs)
    assert objective.forward_tokens == 2 * real
    steps = [objective.plan.step(index) for index in range(objective.plan.num_steps)]
    assert sum(micro_batch.tokens for step in steps for micro_batch in step) == real


def test_the_digest_covers_the_weights_of_pairs(llama: Any, pairs: list[Pair]) -> None:
    changed = [dataclasses.replace(pairs[0], weight=0.7), *pairs[1:]]
    assert llama.dpo(pairs).digest() != llama.dpo(changed).digest()


def test_a_loss_without_reference_is_a_bug(llama: Any, pairs: list[Pair]) -> None:
    objective = llama.dpo(pairs)
    with pytest.raises(RuntimeError, match="reference"):
        objective.loss(llama.model(), objective.plan.step(0)[0])
