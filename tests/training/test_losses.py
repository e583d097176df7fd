"""Losses against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from selftrain.training.losses import (
    PreferenceLoss,
    chosen_nll,
    preference_loss,
    reward_accuracy,
    sft_loss,
    sum_by_row,
    token_log_probs,
)  # fmt: skip


def test_token_log_probs_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]])
    found = token_log_probs(logits, torch.tensor([1, 1]))
    assert found.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 5)], rel=1e-6)


def test_token_log_probs_are_fp32_whatever_comes_in() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.bfloat16)
    found = token_log_probs(logits, torch.tensor([0]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1 - math.log(math.exp(1) + math.exp(2) + math.exp(4)), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_token_log_probs_and_their_gradient_are_cross_entropys(dtype: torch.dtype) -> None:
    """Over several chunks of rows, far and near logits, a weight a row."""
    torch.manual_seed(0)
    logits = (torch.randn(37, 50, dtype=torch.float64) * torch.linspace(0.1, 40, 37)[:, None]).to(dtype)
    labels, weights = torch.randint(50, (37,)), torch.rand(37)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    found = token_log_probs(ours, labels)
    expected = -torch.nn.functional.cross_entropy(theirs, labels, reduction="none")
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=2e-5)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=tolerance, atol=1e-6)
    assert torch.equal(logits, ours.detach()), "the logits are left as they were"


def test_token_log_probs_pass_gradcheck() -> None:
    logits = torch.randn(19, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: token_log_probs(z, torch.arange(19) % 7), logits)


def test_sum_by_row_keeps_rows_apart_and_empty_rows_at_zero() -> None:
    values = torch.tensor([-1.0, -2.0, -4.0, -8.0])
    assert sum_by_row(values, torch.tensor([0, 2, 2, 0]), 4).tolist() == [-9.0, 0.0, -6.0, 0.0]


def test_sft_loss_is_the_batch_mean_over_tokens() -> None:
    # two micro-batches of one batch: 3 tokens of weight 1, 2 tokens of weight 0.5, so M = 4
    first = sft_loss(torch.tensor([-1.0, -2.0, -3.0]), torch.ones(3), 4.0)
    second = sft_loss(torch.tensor([-4.0, -8.0]), torch.full((2,), 0.5), 4.0)
    assert (first + second).item() == pytest.approx((6 + 6) / 4)


def test_dpo_loss_by_hand() -> None:
    # beta h = 0.5 * ((-1 + 1.5) - (-2 + 1.5)) = 0.5; loss = ln(1 + e^-0.5) = 0.474077
    assert preference_loss("dpo", torch.tensor([1.0]), beta=0.5).item() == pytest.approx(0.474077, abs=1e-6)


def test_dpo_loss_of_an_untrained_policy_is_ln_2() -> None:
    assert preference_loss("dpo", torch.zeros(2), beta=0.1).tolist() == pytest.approx([math.log(2)] * 2)


def test_dpo_gradient_is_minus_beta_times_sigmoid_of_minus_margin() -> None:
    difference = torch.tensor([1.0], requires_grad=True)
    torch.autograd.backward(preference_loss("dpo", difference, beta=0.5).sum())
    assert difference.grad is not None
    assert difference.grad.item() == pytest.approx(-0.5 / (1 + math.exp(0.5)))


def test_dpo_loss_stays_finite_far_out() -> None:
    assert preference_loss("dpo", torch.tensor([-2e4]), beta=1.0).item() == pytest.approx(2e4)


def test_ipo_and_hinge_by_hand() -> None:
    # h = 1; beta 0.25: ipo (1 - 2)^2, hinge 1 - 0.25; beta 2: ipo (1 - 0.25)^2, hinge 0
    kinds: list[tuple[PreferenceLoss, float, float]] = [
        ("ipo", 0.25, 1.0), ("hinge", 0.25, 0.75), ("ipo", 2.0, 0.5625), ("hinge", 2.0, 0.0)
    ]  # fmt: skip
    for kind, beta, expected in kinds:
        assert preference_loss(kind, torch.tensor([1.0]), beta).item() == pytest.approx(expected)


def test_nll_of_the_winners_by_hand() -> None:
    # -log-probabilities 6 over 3 tokens and 10 over 2, weights 1 and 0.5
    policy, lengths, weights = torch.tensor([-6.0, -10.0]), torch.tensor([3.0, 2.0]), torch.tensor([1.0, 0.5])
    assert chosen_nll(policy, lengths, weights, "sequence", 1.5).item() == pytest.approx((2 + 0.5 * 5) / 1.5)
    assert chosen_nll(policy, lengths, weights, "token", 4.0).item() == pytest.approx((6 + 0.5 * 10) / 4)


def test_reward_accuracy_counts_ties_half() -> None:
    assert reward_accuracy(torch.tensor([1.0, -1.0, 0.0, 2.0])).item() == pytest.approx(2.5 / 4)
