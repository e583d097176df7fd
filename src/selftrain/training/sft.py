"""Supervised fine-tuning: imitate targets, prompt masked (the paper's equation 2, as a mean over tokens).

    objective = SFTObjective(examples, config.training.sft, seed=7, pad_id=0, encoder_decoder=False)
    result = fit(module, objective, folder=folder)

The targets are stored token ids, end token included; text is never tokenised here. Dropout is the model's
own or `SFTConfig.dropout`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from selftrain.config import SFTConfig
from selftrain.errors import DataError
from selftrain.forwards import Layout, Tree
from selftrain.models import set_dropout
from selftrain.records import Example
from selftrain.training.batches import ItemShape, MicroBatch, Plan, row_batches
from selftrain.training.losses import sft_loss
from selftrain.training.objective import Forced, Measure, Stats, json_digest, target_log_probs, token_counts


class SFTObjective:
    """Mean negative log-likelihood of the target tokens of an effective batch; an item is an `Example`.

    A row's weight multiplies each of its tokens, in the sum and in the denominator. `forced`, where given, finds tokens
    that count for nothing.

    Raises:
        DataError: no examples, or one without prompt, target or a weight above 0.
    """

    name = "sft"
    stat_names: tuple[str, ...] = ()
    forward_tokens = 0

    def __init__(
        self,
        examples: Sequence[Example],
        config: SFTConfig,
        *,
        seed: int,
        pad_id: int,
        encoder_decoder: bool,
        micro_batch_tokens: int = 2048,
        layout: Layout = "rows",
        forced: Forced | None = None,
    ) -> None:
        _check(examples)
        self.counts = [[row.weight * count for count in token_counts(row.target_ids, forced)] for row in examples]
        self.examples, self.config, self.seed, self.pad_id = examples, config, seed, pad_id
        batches = row_batches(len(examples), config.batch_size, config.epochs, config.max_steps, seed)
        shapes = [ItemShape.of(len(row.prompt_ids), [len(row.target_ids)]) for row in examples]
        weights = [math.fsum(counts) for counts in self.counts]
        self.plan = Plan(batches, shapes, weights, micro_batch_tokens, encoder_decoder, layout)

    def digest(self) -> str:
        """SHA-256 of the rows, in order."""
        return json_digest([[row.prompt_ids, row.target_ids, row.weight] for row in self.examples])

    def set_mode(self, module: nn.Module) -> None:
        """Training mode; the model's dropout, overridden where the config says so."""
        set_dropout(module, self.config.dropout)
        module.train()

    def loss(self, module: nn.Module, micro_batch: MicroBatch) -> tuple[Tensor, Stats]:
        """This micro-batch's part of the mean over the effective batch's tokens; nothing more to log."""
        log_probs, _ = target_log_probs(module, self.trees(micro_batch.items), self.pad_id, self.plan.layout)
        weights = log_probs.new_tensor([count for item in micro_batch.items for count in self.counts[item]])  # [N]
        return sft_loss(log_probs, weights, micro_batch.denominator), {}

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        """Nothing beyond the loss."""
        return {}

    def names(self, items: Iterable[int]) -> list[str]:
        """The problems' ids."""
        return [self.examples[item].problem_id for item in items]

    def trees(self, items: Iterable[int]) -> list[Tree]:
        """A prompt and its target each."""
        return [Tree(row.prompt_ids, [row.target_ids]) for row in (self.examples[item] for item in items)]

    def before(self, module: nn.Module, measure: Measure) -> dict[str, Tensor]:
        """Nothing to measure."""
        return {}

    def restore(self, constants: dict[str, Tensor]) -> None:
        """Nothing to take."""

    def after(self, module: nn.Module, measure: Measure) -> dict[str, float]:
        """Nothing to measure."""
        return {}


def _check(examples: Sequence[Example]) -> None:
    if not examples:
        raise DataError("SFT needs at least one example, got none.")
    for row in examples:
        if not row.prompt_ids or not row.target_ids or not row.weight > 0:
            raise DataError(f"example {row.problem_id}: expected prompt and target tokens and a weight above 0.")
