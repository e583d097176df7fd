"""A model's blocks compiled for training (`compute.compile`), for GPUs: elementwise work becomes a few kernels.

    compile_blocks(module)            # at the first forward; some 20 to 40 seconds a process
    token_log_probs_of(module)        # the head's part, compiled where the blocks are

On an H100, SmolLM2's eager training spends most of its time in elementwise kernels (docs/log.md has the figures).
Shapes are dynamic, so that micro-batches of all lengths share what was compiled. Not used for sampling, which has its
graphs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.models import blocks_of, has_compiled_blocks
from selftrain.training.losses import token_log_probs


def compile_blocks(module: nn.Module) -> None:
    """Have each block compiled, in place; names of parameters stay."""
    for block in blocks_of(module):
        block.compile(dynamic=True)


def token_log_probs_of(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """`losses.token_log_probs`, compiled where the module's blocks are."""
    return _compiled_log_probs() if has_compiled_blocks(module) else token_log_probs


@functools.cache
def _compiled_log_probs() -> Any:
    """Casts, sums and gradient in one pass each over the logits."""

    def log_probs(logits: Tensor, labels: Tensor) -> Tensor:
        return -functional.cross_entropy(logits.float(), labels, reduction="none")

    return torch.compile(log_probs, dynamic=True)
