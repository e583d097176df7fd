"""What `fit` asks of an objective: batches, a loss, and what to log. SFT and DPO differ in these only.

An objective holds its rows, its `OptimizerConfig` and the seed of its order. `before` and `after` are
passes without gradient over all items: DPO measures its reference there; SFT does nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selftrain.config import OptimizerConfig
from selftrain.forwards import Layout, Tree, target_hidden
from selftrain.models import HEAD_LOGITS, head_logits
from selftrain.training.batches import MicroBatch, Plan
from selftrain.training.compiling import token_log_probs_of

Stats = dict[str, Tensor]
Forced = Callable[[Sequence[int]], Iterable[tuple[int, int]]]  # where a completion's tokens are not the model's own
Forward = tuple[int, Callable[[], Tensor]]  # the length of its result [R], and the forward
Measure = Callable[[Sequence[Forward]], list[Tensor]]


class Objective(Protocol):
    """A loss over items that come in planned micro-batches; `plan` is cut finer when memory runs out."""

    plan: Plan
    stat_names: tuple[str, ...]  # of the sums that `loss` gives beside the loss

    @property
    def name(self) -> str:
        """A word for logs and messages; part of the dropout stream's name."""
        ...

    @property
    def config(self) -> OptimizerConfig:
        """How to optimise."""
        ...

    @property
    def seed(self) -> int:
        """Root of the order's and the dropout's streams."""
        ...

    def digest(self) -> str:
        """SHA-256 of the training data, in order."""
        ...

    def set_mode(self, module: nn.Module) -> None:
        """Put the module into the mode to train in: with or without dropout."""
        ...

    def loss(self, module: nn.Module, micro_batch: MicroBatch) -> tuple[Tensor, Stats]:
        """This micro-batch's part of the effective batch's loss, and detached sums for the log."""
        ...

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        """What the log says of a step, from the sums over its micro-batches."""
        ...

    def names(self, items: Iterable[int]) -> list[str]:
        """How a message calls these items."""
        ...

    def trees(self, items: Iterable[int]) -> list[Tree]:
        """Prompt and completions of these items."""
        ...

    def before(self, module: nn.Module, measure: Measure) -> dict[str, Tensor]:
        """Constants of the start weights; `measure` carries out forwards without gradient."""
        ...

    def restore(self, constants: dict[str, Tensor]) -> None:
        """Take the constants that `before` gave, now or before an interruption."""
        ...

    def after(self, module: nn.Module, measure: Measure) -> dict[str, float]:
        """Statistics of the trained module over all items."""
        ...

    @property
    def forward_tokens(self) -> int:
        """Real tokens that `before` and `after` forward without gradient."""
        ...


def probe_trees(objective: Objective) -> list[Tree]:
    """Two items of the run to compare layouts on: with up to three completions where there are such, and short."""
    shapes = objective.plan.shapes
    items = sorted(range(len(shapes)), key=lambda item: (-min(3, shapes[item].num_rows), shapes[item].tokens("trees")))
    return [Tree(prompt, targets[:3]) for prompt, targets in objective.trees(items[:2])]


def token_counts(ids: Sequence[int], forced: Forced | None) -> list[float]:
    """1 for each token that counts, 0 for those that the calculator wrote, where `forced` finds them."""
    counts = [1.0] * len(ids)
    for start, end in forced(ids) if forced else ():
        counts[start:end] = [0.0] * (end - start)
    return counts


def target_log_probs(module: nn.Module, trees: Sequence[Tree], pad_id: int, layout: Layout) -> tuple[Tensor, Tensor]:
    """log pi of every target token [N] in fp32, and the completion of each [N]; the head runs on these tokens only."""
    hidden, labels, rows = target_hidden(module, trees, pad_id, layout)  # [N, D], [N], [N]
    return head_log_probs(module, hidden, labels), rows


def head_log_probs(module: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    """log pi [N] of labels [N] from hidden states [N, D]; at most about `HEAD_LOGITS` logits exist at once.

    Beyond that the tokens are cut into chunks, and each chunk's logits are computed once more in the backward pass:
    2 V D FLOPs a token for N V numbers of memory.
    """
    vocabulary: Any = module.config.vocab_size  # type: ignore[union-attr]
    size = max(1, HEAD_LOGITS // int(vocabulary))

    of_tokens = token_log_probs_of(module)

    def log_probs(hidden: Tensor, labels: Tensor) -> Tensor:
        return of_tokens(head_logits(module, hidden), labels)

    if len(labels) <= size:
        return log_probs(hidden, labels)
    chunks = zip(hidden.split(size), labels.split(size), strict=True)
    return torch.cat([checkpoint(log_probs, *chunk, use_reentrant=False) for chunk in chunks])


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
