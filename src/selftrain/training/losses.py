"""The training losses as pure functions of log-probabilities, each with its equation and source.

Letters: N target tokens of all rows together, V vocabulary, R rows (completions), P pairs. Everything is
in nats and fp32, whatever precision the model computed in. What is left out: how log-probabilities come
about (`objective.py`), and losses without a reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

PreferenceLoss = Literal["dpo", "ipo", "hinge"]
CHUNK_ROWS = 16  # of logits handled at once on a CPU: in fp32 they stay in its cache


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """log pi(label) of each token: log softmax(logits)[label], in fp32.

    Args:
        logits: [N, V].
        labels: [N] token ids.

    Returns:
        [N], at most 0.
    """
    found: Tensor = _TokenLogProbs.apply(logits, labels)  # type: ignore[no-untyped-call]
    return found


class _TokenLogProbs(torch.autograd.Function):
    """log p = (z - max) - log sum exp(z - max); its gradient onehot(label) - p is computed again from the logits.

    So nothing of size [N, V] is made in fp32, and only the logits, which the head's gradient needs anyway, are kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        tops, sums = [], []
        for part in _chunks(logits):
            top = part.amax(dim=-1, keepdim=True)
            tops.append(top)
            sums.append(part.sub_(top).exp_().sum(dim=-1, keepdim=True))
        top, log_sum = torch.cat(tops), torch.cat(sums).log_()
        ctx.save_for_backward(logits, labels, top, log_sum)
        return (logits.gather(1, labels[:, None]).to(top.dtype) - top - log_sum)[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, labels, top, log_sum = ctx.saved_tensors
        found, start = torch.empty_like(logits), 0
        for part in _chunks(logits):
            rows = slice(start, start + len(part))
            weights = -gradient[rows, None].to(part.dtype)
            part.sub_(top[rows]).sub_(log_sum[rows]).exp_().mul_(weights)
            part.scatter_add_(1, labels[rows, None], -weights)
            found[rows] = part
            start = rows.stop
        return found, None


def _chunks(logits: Tensor) -> Iterator[Tensor]:
    """Copies of some rows at a time, in fp32 (fp64 stays)."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    rows = CHUNK_ROWS if logits.device.type == "cpu" else max(1, len(logits))
    for part in logits.split(rows):
        yield part.to(wide, copy=True)


def sum_by_row(token_values: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """Sums of the tokens' values a row: log pi(y|x) = sum over t of log pi(y_t | x, y_<t).

    Args:
        token_values: [N].
        rows: [N] the row of each token, from 0 to num_rows - 1.

    Returns:
        [R]; 0 for a row without tokens.
    """
    return token_values.new_zeros(num_rows).index_add(0, rows, token_values)


def sft_loss(log_probs: Tensor, weights: Tensor, denominator: float) -> Tensor:
    """-(1 / M) * sum over tokens of w_t log pi(y_t | x, y_<t): one micro-batch's part of the batch's mean.

    The paper's equation 2 sums over tokens; its code takes the mean over the batch's tokens, and so do we.

    Args:
        log_probs: [N] of this micro-batch's target tokens.
        weights: [N] the weight of each token's row (1 unless a record says otherwise).
        denominator: M, the weights summed over all target tokens of the effective batch.

    Returns:
        A scalar. Summed over the micro-batches of an effective batch it is that batch's loss.
    """
    return -(weights * log_probs).sum() / denominator


def preference_loss(kind: PreferenceLoss, differences: Tensor, beta: float) -> Tensor:
    """Pairs' losses from h = log(pi(y_w|x) / pi_ref(y_w|x)) - log(pi(y_l|x) / pi_ref(y_l|x)).

    - "dpo": -log sigmoid(beta h). Rafailov et al. 2023 (arXiv 2305.18290), equation 7; the paper's DPO step.
    - "ipo": (h - 1 / (2 beta))^2. Azar et al. 2023 (arXiv 2310.12036), equation 17; meant for log-probabilities a
      token, which TRL always takes here and we where `length_normalised` says so.
    - "hinge": max(0, 1 - beta h). Liu et al. 2023 (arXiv 2309.06657), SLiC's loss in normalised form.

    Args:
        differences: h [P], from log-probabilities summed over tokens, or means over them.
        beta: strength of the pull to the reference, above 0.

    Returns:
        [P], in nats for "dpo".
    """
    if kind == "ipo":
        return (differences - 1 / (2 * beta)) ** 2
    if kind == "hinge":
        return functional.relu(1 - beta * differences)
    return -functional.logsigmoid(beta * differences)


def chosen_nll(
    policy_chosen: Tensor, lengths: Tensor, weights: Tensor, per: Literal["sequence", "token"], denominator: float
) -> Tensor:
    """The winners' negative log-likelihood, which keeps DPO from lowering right answers with the wrong ones.

    - per "sequence": (1 / M) sum over pairs of w_p (-log pi(y_w|x)) / |y_w|; M the pairs' summed weight. Pang et al.
      2024 (arXiv 2404.19733), equation 2.
    - per "token": (1 / M) sum over pairs of w_p (-log pi(y_w|x)); M the summed w_p |y_w|. What TRL's `rpo_alpha` does.

    Args:
        policy_chosen: [P] log pi(y_w|x), summed over tokens.
        lengths: [P] tokens of the winners.
        weights: [P].
        denominator: M of the effective batch.

    Returns:
        A scalar. Summed over the micro-batches of an effective batch it is that batch's mean.
    """
    nll = -policy_chosen / lengths if per == "sequence" else -policy_chosen
    return (weights * nll).sum() / denominator


def reward_accuracy(margins: Tensor) -> Tensor:
    """Share of pairs whose margin is above 0, as a scalar; a margin of exactly 0 counts half.

    So an untrained policy, whose margins are all 0, scores the 0.5 of chance and not 0.
    """
    return ((margins > 0).float() + 0.5 * (margins == 0).float()).mean()
