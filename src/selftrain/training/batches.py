"""Which items make up each optimiser step, and how a step is cut into micro-batches.

    batches = row_batches(len(rows), batch_size=96, epochs=8, max_steps=None, seed=7)   # SFT
    batches = group_batches(pairs_a_question, batch_size=96, epochs=1, max_steps=150, seed=7)   # DPO
    plan = Plan(batches, shapes, weights, micro_batch_tokens=2048, encoder_decoder=False, layout="trees")
    for micro_batch in plan.step(0): ...

An item is a row (SFT) or a question with all its completions (DPO). An effective batch, and with it the
gradient, does not depend on how it is cut: every micro-batch carries the whole batch's denominator. What an
item costs depends on the layout of the forward (`forwards.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from selftrain.forwards import Layout
from selftrain.seeding import stream

# An encoder-decoder's micro-batches are cut while more than this share is padding, but not below so many tokens: on a
# GPU a forward of fewer costs as much.
PADDING_ALLOWED = 0.03
WORTH_A_FORWARD = {"cpu": 512, "cuda": 4096, "mps": 4096}


@dataclasses.dataclass(frozen=True, slots=True)
class ItemShape:
    """What an item costs to forward: completions, the prompt, the longest target and all targets, in tokens."""

    num_rows: int
    prompt: int
    target: int
    all_targets: int

    @staticmethod
    def of(prompt_tokens: int, target_tokens: Sequence[int]) -> ItemShape:
        """One prompt under each of the targets."""
        return ItemShape(len(target_tokens), prompt_tokens, max(target_tokens), sum(target_tokens))

    def tokens(self, layout: Layout) -> int:
        """Real tokens that a forward computes: in trees the prompt once, in rows once a completion."""
        return self.prompt * (1 if layout == "trees" else self.num_rows) + self.all_targets


@dataclasses.dataclass(frozen=True, slots=True)
class MicroBatch:
    """Items that are forwarded together.

    `batch` are all items of the effective batch, `denominator` their summed weight; `tokens` counts real prompt and
    target tokens, `padded_tokens` those that the forward computes.
    """

    items: tuple[int, ...]
    batch: tuple[int, ...]
    denominator: float
    tokens: int
    padded_tokens: int


def permutation(num_items: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch, from a stream of its own."""
    order = list(range(num_items))
    stream(seed, "epoch", epoch).shuffle(order)
    return order


def row_batches(num_rows: int, batch_size: int, epochs: float, max_steps: int | None, seed: int) -> list[list[int]]:
    """Effective batches of `batch_size` rows.

    The epochs' permutations follow one another and are cut every `batch_size` rows, so a batch may
    straddle two epochs and only the very last may be smaller: `epochs` passes are exactly that many.
    `max_steps`, where given, replaces `epochs`, downwards and upwards.
    """
    total = max(1, round(epochs * num_rows)) if max_steps is None else max_steps * batch_size
    order: list[int] = []
    for epoch in range(math.ceil(total / num_rows)):
        order += permutation(num_rows, seed, epoch)
    return [order[start : min(start + batch_size, total)] for start in range(0, total, batch_size)]


def group_batches(sizes: Sequence[int], batch_size: int, epochs: float, max_steps: int, seed: int) -> list[list[int]]:
    """Effective batches of at most about `batch_size` pairs, no question split.

    Each epoch's permutation of the questions is filled into batches greedily; a question with more
    pairs than `batch_size` is a batch of its own. An epoch's last batch stands if it holds at least half
    of `batch_size`, else it joins the one before. A fraction of an epoch is rounded up to whole batches.

    Args:
        sizes: pairs of each question.
        epochs: passes at most.
        max_steps: batches at most.
    """
    batches: list[list[int]] = []
    for epoch in range(math.ceil(epochs)):
        filled = _fill(permutation(len(sizes), seed, epoch), sizes, batch_size)
        share = min(1.0, epochs - epoch)
        batches += filled[: math.ceil(share * len(filled) - 1e-9)]
        if len(batches) >= max_steps:
            break
    return batches[:max_steps]


def _fill(order: Iterable[int], sizes: Sequence[int], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = [[]]
    held = 0
    for item in order:
        if batches[-1] and held + sizes[item] > batch_size:
            batches.append([])
            held = 0
        batches[-1].append(item)
        held += sizes[item]
    if len(batches) > 1 and 2 * held < batch_size:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def padded_tokens(shapes: Sequence[ItemShape], encoder_decoder: bool, layout: Layout) -> int:
    """Tokens that one forward of these items computes, padding included.

    Rows are padded to the longest, prompts and targets apart in encoder-decoder models; trees of a decoder-only model
    have no padding.
    """
    num_rows = sum(shape.num_rows for shape in shapes)
    if encoder_decoder:
        num_prompts = len(shapes) if layout == "trees" else num_rows
        return num_prompts * max(shape.prompt for shape in shapes) + num_rows * max(shape.target for shape in shapes)
    if layout == "trees":
        return sum(shape.tokens(layout) for shape in shapes)
    return num_rows * max(shape.prompt + shape.target for shape in shapes)


def _growing(shapes: Iterable[ItemShape], layout: Layout) -> list[int]:
    """`padded_tokens` of the first item, of the first two, ..., in an encoder-decoder."""
    found: list[int] = []
    num_prompts = num_rows = prompt = target = 0
    for shape in shapes:
        num_prompts += 1 if layout == "trees" else shape.num_rows
        num_rows += shape.num_rows
        prompt, target = max(prompt, shape.prompt), max(target, shape.target)
        found.append(num_prompts * prompt + num_rows * target)
    return found


@dataclasses.dataclass(frozen=True)
class Plan:
    """The whole course of a training: which items each step sees, and in which micro-batches.

    Args:
        batches: item numbers of each step's effective batch.
        shapes: of each item.
        weights: of each item, in the unit that the loss is a mean over (tokens, pairs).
        micro_batch_tokens: tokens forwarded at once, padding included; a single item may exceed it.
        layout: of the forward.
        worth_a_forward: tokens up to which an encoder-decoder's micro-batch is not cut to save padding.
    """

    batches: Sequence[Sequence[int]]
    shapes: Sequence[ItemShape]
    weights: Sequence[float]
    micro_batch_tokens: int
    encoder_decoder: bool
    layout: Layout
    worth_a_forward: int = WORTH_A_FORWARD["cpu"]

    @property
    def num_steps(self) -> int:
        """Optimiser steps."""
        return len(self.batches)

    def step(self, index: int) -> list[MicroBatch]:
        """The micro-batches of step `index`, counted from 0."""
        return self._cut(self.batches[index])

    def covering(self) -> list[MicroBatch]:
        """Micro-batches that hold every item, cut as the steps cut them wherever a step reaches it."""
        seen: set[int] = set()
        covering: list[MicroBatch] = []
        for index in range(self.num_steps):
            if len(seen) == len(self.shapes):
                break
            for micro_batch in self.step(index):
                if not seen.issuperset(micro_batch.items):
                    covering.append(micro_batch)
                    seen.update(micro_batch.items)
        left = [item for item in range(len(self.shapes)) if item not in seen]
        return covering + (self._cut(left) if left else [])

    def pass_tokens(self, layout: Layout) -> tuple[int, int]:
        """Of one pass over all items in a layout: real tokens, and those that its forwards compute with padding."""
        micro_batches = dataclasses.replace(self, layout=layout).covering()
        return sum(one.tokens for one in micro_batches), sum(one.padded_tokens for one in micro_batches)

    def _cut(self, batch: Sequence[int]) -> list[MicroBatch]:
        """In parts that the budget holds, the longest first; an item that it cannot hold is one by itself."""
        denominator = math.fsum(self.weights[item] for item in batch)
        cuts = self._bisected(batch) if self.encoder_decoder else self._filled(batch)
        return [self._micro_batch(items, batch, denominator) for items in cuts]

    def _filled(self, batch: Sequence[int]) -> list[list[int]]:
        """By length, as many items as the budget holds."""
        cuts: list[list[int]] = []
        for item in sorted(batch, key=lambda item: -(self.shapes[item].prompt + self.shapes[item].target)):
            grown = [*cuts[-1], item] if cuts else [item]
            if cuts and self._padded(grown) <= self.micro_batch_tokens:
                cuts[-1] = grown
            else:
                cuts.append([item])
        return cuts

    def _bisected(self, batch: Sequence[int]) -> list[list[int]]:
        """Cut in two where that saves most, until the budget holds each part and little of a large one is padding.

        Prompts and targets are padded apart, so an order by length alone brings unlike ones together.
        """
        cuts: list[list[int]] = []
        left = [list(batch)]
        while left:
            items = left.pop()
            if self._is_whole(items):
                cuts.append(items)
            else:
                left += self._halves(items)
        return sorted(cuts, key=lambda items: -self._padded(items))

    def _is_whole(self, items: Sequence[int]) -> bool:
        padded = self._padded(items)
        real = sum(self.shapes[item].tokens(self.layout) for item in items)
        is_dense = padded <= self.worth_a_forward or padded - real <= PADDING_ALLOWED * padded
        return len(items) == 1 or (padded <= self.micro_batch_tokens and is_dense)

    def _halves(self, items: Sequence[int]) -> tuple[list[int], list[int]]:
        """The two parts, by prompt or by target, that compute the fewest tokens together."""
        shapes = self.shapes
        found: list[tuple[int, int, list[int]]] = []
        for order in (
            sorted(items, key=lambda item: (shapes[item].prompt, shapes[item].target)),
            sorted(items, key=lambda item: (shapes[item].target, shapes[item].prompt)),
        ):
            firsts = _growing([shapes[item] for item in order], self.layout)
            lasts = _growing([shapes[item] for item in reversed(order)], self.layout)[::-1]
            tokens, at = min((firsts[at - 1] + lasts[at], at) for at in range(1, len(order)))
            found.append((tokens, at, order))
        _, at, order = min(found)
        return order[:at], order[at:]

    def _padded(self, items: Sequence[int]) -> int:
        return padded_tokens([self.shapes[item] for item in items], self.encoder_decoder, self.layout)

    def _micro_batch(self, items: Sequence[int], batch: Sequence[int], denominator: float) -> MicroBatch:
        tokens = sum(self.shapes[item].tokens(self.layout) for item in items)
        return MicroBatch(tuple(items), tuple(batch), denominator, tokens, self._padded(items))
