"""Steps as CUDA graphs: one launch a step instead of hundreds, which is what a small model's step is made of.

A graph is captured per shape (rows, forced tokens, visible positions) when it comes for the second time; rows and
forced tokens are filled up to a few sizes, so that shapes come back. Where the step reads every token's own slot, as
the compiled kernels do, prompts are steps too and visible positions make no shapes. Captures share one memory pool.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from selftrain.sampling.bodies import Body, Prompts, as_step
from selftrain.sampling.cache import Batch, rounded

SMALLEST = 16  # sizes are powers of two from here
MAX_GRAPHS = 256  # beyond, steps run as they are


class GraphedBody:
    """See `bodies.Body`; wraps another on a CUDA device.

    Args:
        length: positions of a slot.
        cache: the body's storage, where its steps can be of any slots: prompts are then steps.
    """

    def __init__(self, body: Body, length: int, cache: Any = None) -> None:
        self.body, self.length, self.cache = body, length, cache
        self.graphs: dict[tuple[int, int, int], tuple[Any, Batch, Tensor]] = {}
        self.seen: set[tuple[int, int, int]] = set()
        self.pool: Any = None

    def prefill(self, prompts: Prompts, slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`; the logits are overwritten by the next step."""
        if self.cache is None:
            return self.body.prefill(prompts, slots)
        batch = as_step(prompts, slots, self.cache.storage.device)
        logits = self._step(filled_up(batch, self.length, power(len(prompts))))[: len(prompts)]
        copies = [(first, other) for first, *others in slots for other in others]
        if copies:
            self.cache.move(*zip(*copies, strict=True), length=batch.longest)
        return logits, [len(prompt) for prompt in prompts]

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """See `Body`."""
        self.body.move(sources, targets, length)

    def step(self, batch: Batch) -> Tensor:
        """See `Body`; the logits are overwritten by the next step."""
        return self._step(filled_up(batch, self.length, batch.num_rows))

    def _step(self, batch: Batch) -> Tensor:
        if self.cache is not None:  # the kernels look at each token's own position
            batch = dataclasses.replace(batch, longest=self.length)
        key = (batch.num_rows, len(batch.tokens), batch.longest)
        if key not in self.graphs:
            if key not in self.seen or len(self.graphs) >= MAX_GRAPHS:
                self.seen.add(key)
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


def filled_up(batch: Batch, length: int, num_rows: int) -> Batch:
    """The same batch in one of few shapes: `num_rows` rows, a power of two of forced tokens, its reach rounded up.

    It is filled with its first token. Writing the same key and value to the same place twice changes nothing, and the
    logits of the rows that were there are the first ones.
    """
    num_extra = len(batch.extra_slots)
    index = torch.zeros(num_rows + (power(num_extra) if num_extra else 0), dtype=torch.long)
    index[: batch.num_rows] = torch.arange(batch.num_rows)
    index[num_rows : num_rows + num_extra] = torch.arange(batch.num_rows, batch.num_rows + num_extra)
    index = index.to(batch.tokens.device)
    return Batch(
        batch.tokens[index],
        batch.positions[index],
        batch.slots[index],
        num_rows,
        rounded(batch.longest, length, batch.tokens.device),
    )


def power(size: int) -> int:
    """The next power of two, at least `SMALLEST`."""
    return max(SMALLEST, 1 << (size - 1).bit_length())
