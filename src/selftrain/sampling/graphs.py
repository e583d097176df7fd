"""Steps as CUDA graphs: one launch a step instead of hundreds, which is what a small model's step is made of.

A graph is captured per shape (rows, forced tokens, visible positions) at first use; forced tokens are filled up to
a few sizes, so that shapes come back. Prefills have shapes of their own each time and run as they are. Captures
share one memory pool. Not run on a GPU yet: what a CPU can check (that filling up changes nothing) is tested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selftrain.sampling.bodies import Body, Prompts
from selftrain.sampling.cache import Batch, rounded

EXTRA_SIZES = (0, 16, 64, 256, 1024)
MAX_GRAPHS = 256  # beyond, steps run as they are


class GraphedBody:
    """See `bodies.Body`; wraps another on a CUDA device."""

    def __init__(self, body: Body, length: int) -> None:
        self.body, self.length = body, length
        self.graphs: dict[tuple[int, int, int], tuple[Any, Batch, Tensor]] = {}
        self.pool: Any = None

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`."""
        return self.body.prefill(prompts, slots)

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Body`."""
        self.body.move(sources, targets)

    def step(self, batch: Batch) -> Tensor:
        """See `Body`; the logits are overwritten by the next step."""
        batch = filled_up(batch, self.length)
        key = (batch.num_rows, len(batch.tokens), batch.longest)
        if key not in self.graphs:
            if len(self.graphs) >= MAX_GRAPHS:
                return self.body.step(batch)
            self.graphs[key] = self._capture(batch)
        graph, static, logits = self.graphs[key]
        for name in ("tokens", "positions", "slots"):
            getattr(static, name).copy_(getattr(batch, name))
        graph.replay()
        return logits

    def _capture(self, batch: Batch) -> tuple[Any, Batch, Tensor]:
        """Run once on a side stream, as CUDA asks for, then capture the same work."""
        static = dataclasses.replace(
            batch, tokens=batch.tokens.clone(), positions=batch.positions.clone(), slots=batch.slots.clone()
        )
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.body.step(static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            logits = self.body.step(static)
        self.pool = self.pool or graph.pool()
        return graph, static, logits


def filled_up(batch: Batch, length: int) -> Batch:
    """The same batch in one of few shapes: its first forced token repeated, its reach rounded up.

    Writing the same key and value to the same place twice changes nothing, and the logits are those of the rows.
    """
    num_extra = len(batch.extra_slots)
    size = next((size for size in EXTRA_SIZES if size >= num_extra), num_extra)
    index = torch.arange(len(batch.tokens), device=batch.tokens.device)
    filling = index[batch.num_rows : batch.num_rows + 1].expand(size - num_extra)
    index = torch.cat([index, filling])
    return Batch(
        batch.tokens[index],
        batch.positions[index],
        batch.slots[index],
        batch.num_rows,
        rounded(batch.longest, length, batch.tokens.device),
    )
