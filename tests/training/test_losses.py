"""Losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from selftrain.training.losses import dpo_loss, reward_accuracy, sft_loss, sum_by_row, token_log_probs


def test_token_log_probs_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    found = token_log_probs(logits, torch.tensor([1, 1]))
    assert found.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 5)], rel=1e-6)


def test_token_log_probs_are_fp32_whatever_comes_in() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.bfloat16)
    found = token_log_probs(logits, torch.tensor([0]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1 - math.log(math.exp(1) + math.exp(2) + math.exp(4)), rel=1e-6)


def test_sum_by_row_keeps_rows_apart_and_empty_rows_at_zero() -> None:
    values = torch.tensor([-1.0, -2.0, -4.0, -8.0])
    assert sum_by_row(values, torch.tensor([0, 2, 2, 0]), 4).tolist() == [-9.0, 0.0, -6.0, 0.0]


def test_sft_loss_is_the_batch_mean_over_tokens() -> None:
    # two micro-batches of one batch: 3 tokens of weight 1, 2 tokens of weight 0.5, so M = 4
    first = sft_loss(torch.tensor([-1.0, -2.0, -3.0]), torch.ones(3), 4.0)
    second = sft_loss(torch.tensor([-4.0, -8.0]), torch.full((2,), 0.5), 4.0)
    assert (first + second).item() == pytest.approx((6 + 6) / 4)


def test_dpo_loss_by_hand() -> None:
    # margin = 0.5 * ((-1 + 1.5) - (-2 + 1.5)) = 0.5; loss = ln(1 + e^-0.5) = 0.474077
    policy_chosen, policy_rejected, reference = torch.tensor([[-1.0], [-2.0], [-1.5]])
    losses, margins = dpo_loss(policy_chosen, policy_rejected, reference, reference, beta=0.5)
    assert margins.item() == pytest.approx(0.5)
    assert losses.item() == pytest.approx(0.474077, abs=1e-6)


def test_dpo_loss_of_an_untrained_policy_is_ln_2() -> None:
    chosen, rejected = torch.tensor([-3.0, -70.0]), torch.tensor([-9.0, -1.0])
    losses, margins = dpo_loss(chosen, rejected, chosen, rejected, beta=0.1)
    assert margins.tolist() == [0.0, 0.0]
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)


def test_dpo_gradient_is_minus_beta_times_sigmoid_of_minus_margin() -> None:
    chosen = torch.tensor([-1.0], requires_grad=True)
    rejected = torch.tensor([-2.0], requires_grad=True)
    losses, _ = dpo_loss(chosen, rejected, torch.tensor([-1.5]), torch.tensor([-1.5]), beta=0.5)
    torch.autograd.backward(losses.sum())
    expected = -0.5 / (1 + math.exp(0.5))
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(expected) and rejected.grad.item() == pytest.approx(-expected)


def test_dpo_loss_stays_finite_far_out() -> None:
    far = torch.tensor([-1e4])
    losses, _ = dpo_loss(far, torch.zeros(1), torch.zeros(1), far, beta=1.0)
    assert losses.item() == pytest.approx(2e4)


def test_reward_accuracy_counts_ties_half() -> None:
    assert reward_accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item() == pytest.approx(2.5 / 4)
