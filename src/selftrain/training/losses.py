"""The training losses as pure functions of log-probabilities, each with its equation and source.

Letters: N target tokens of all rows together, V vocabulary, R rows (completions), P pairs. Everything is
in nats and fp32, whatever precision the model computed in. What is left out: how log-probabilities come
about (`objective.py`), and other members of the DPO family.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """log pi(label) of each token: log softmax(logits)[label], in fp32.

    Args:
        logits: [N, V].
        labels: [N] token ids.

    Returns:
        [N], at most 0.
    """
    return -functional.cross_entropy(logits.float(), labels, reduction="none")


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


def dpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(r(y_w) - r(y_l)) with r(y) = beta * log(pi(y|x) / pi_ref(y|x)).

    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7; the paper's DPO step is the same.

    Args:
        policy_chosen: [P] log pi(y_w|x), summed over tokens; likewise the three others.
        beta: strength of the pull to the reference, above 0.

    Returns:
        losses [P] in nats, and margins [P] = r(y_w) - r(y_l), beta included.
    """
    margins = beta * ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected))
    return -functional.logsigmoid(margins), margins


def reward_accuracy(margins: Tensor) -> Tensor:
    """Share of pairs whose margin is above 0, as a scalar; a margin of exactly 0 counts half.

    So an untrained policy, whose margins are all 0, scores the 0.5 of chance and not 0.
    """
    return ((margins > 0).float() + 0.5 * (margins == 0).float()).mean()
