"""The decode loop: slots that are refilled while other rows go on, with the calculator inside.

    engine = Engine(model, num_slots=128, style="angle")
    outputs = engine.generate(requests, SamplingParams(temperature=0.7, ...))

Each step sends every busy slot's new tokens through the model and draws one token for it. Where that token reaches
the `=` of an annotation, the calculator's result follows at once, and the whole run goes in with the next
step's forward. A sixteenth of the slots may stand idle before they are refilled, so that prompts are computed several
at a time; the samples of one question share one prefill. When requests run out, the rows that are left move together
and the batch halves. The automaton (`calculator.forcing`) decides what is forced, in O(1) a token, and
rows outside an annotation are not looked at one by one.

Leaves out: beams, penalties, stop strings.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftrain.calculator.annotation import Style
from selftrain.calculator.forcing import Forcer, ForcingTables, build_tables
from selftrain.errors import ConfigError
from selftrain.hardware import is_out_of_memory
from selftrain.models import LanguageModel
from selftrain.sampling.base import Generated, OnFinished, Request, SamplingParams
from selftrain.sampling.bodies import PREFILL_TOKENS, Body
from selftrain.sampling.cache import Batch
from selftrain.sampling.draw import pick_tokens
from selftrain.sampling.paths import (
    MIN_SLOTS,
    Products,
    Shape,
    auto_slots,
    check_memory,
    check_positions,
    make_body,
    make_products,
    plain_path_reason,
    why_without_kernels,
)  # fmt: skip
from selftrain.sampling.slots import Ints, Slots
from selftrain.seeding import uniforms

PROMPT_ROUND = 64  # tokens


class Engine:
    """A `Sampler` for models that transformers loads: decoder-only, and encoder-decoder of the T5 kind.

    Args:
        model: in evaluation mode; its projections are fused in place where it has a fast path.
        num_slots: rows decoded at once, or "auto" (see `paths.auto_slots`); halved where memory does not hold them.
        style: writing of annotations.
        tables: of the tokenizer, where they are known already.
        say: hears what a user should know: the slow path and why.
        warn: hears of fewer slots; by default `say` does.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        num_slots: int | Literal["auto"],
        style: Style,
        tables: ForcingTables | None = None,
        say: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.model = model
        self.num_slots = num_slots
        self.tables = tables or build_tables(model.tokenizer, style)
        self.forcer = Forcer(self.tables)
        self.say, self.warn = say, warn or say
        self._kept: tuple[Shape, Body] | None = None
        self.config: Any = model.module.config
        self.dtype = next(model.module.parameters()).dtype

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
    ) -> list[Generated]:
        """See `base.Sampler`. Requests of one problem should be neighbours, so that they share their prefill.

        Raises:
            ConfigError: prompts and new tokens need more positions, or more memory, than there are.
            ModelError: the model is of a kind that cannot be sampled (`paths.make_products`).
        """
        if not requests:
            return []
        finished: dict[int, Generated] = {}
        while True:
            waiting = deque((index, request) for index, request in enumerate(requests) if index not in finished)
            shape = self.shape(requests, params)
            try:
                _Loop(self, shape, waiting, params, finished, on_finished).run()
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._halve(shape.num_slots)  # the rows in flight are freed with the exception
        return [finished[index] for index in range(len(requests))]

    def shape(self, requests: Sequence[Request], params: SamplingParams) -> Shape:
        """What these requests need.

        Raises:
            ConfigError: see `generate`.
        """
        prompt = max(len(request.prompt_ids) for request in requests)
        check_positions(self.config, prompt, params.max_new_tokens)
        is_chosen = self.num_slots == "auto"
        if self.num_slots == "auto":
            self.num_slots = auto_slots(self.model.module, prompt, params.max_new_tokens)
        if self.model.device.type == "cuda":  # few shapes, so that storage and graphs can be taken again
            prompt = -(-prompt // PROMPT_ROUND) * PROMPT_ROUND
        shape = Shape(min(self.num_slots, len(requests)), prompt, params.max_new_tokens)
        if is_chosen and self.model.device.type == "cuda":  # elsewhere it is known, and said, before weights are read
            self.say(f"sampling: {shape.stated(self.config, self.dtype)}")
        return shape

    def storage_bytes(self, requests: Sequence[Request], params: SamplingParams) -> int:
        """Bytes of key/value storage that `generate` would allocate for these requests."""
        return self.shape(requests, params).storage_bytes(self.config, self.dtype)

    def body(self, shape: Shape) -> Body:
        """Storage and forwards of that shape; the storage is allocated once a generation. On a GPU the last one's are
        taken again where they are large enough, with their graphs. On a CPU they are not: questions come in the order
        of their length, so they hardly ever are; a resumed stage would meet other shapes than an unbroken one, which
        it must equal bitwise; and there storage costs nothing before it is written (`cache.zeros`).

        Raises:
            ConfigError: it can't fit in memory.
        """
        if self._kept is not None and self._kept[0].holds(shape):
            return self._kept[1]
        self._kept = None  # first give back the storage that is too small
        products = self._products
        check_memory(self.config, self.dtype, self.model.device.type, shape)
        body = make_body(self.model.module, products, shape)
        if self.model.device.type == "cuda":
            self._kept = shape, body
        return body

    @functools.cached_property
    def _products(self) -> Products:
        """Made at the first generation and kept: they are the weights, in another order."""
        reason = plain_path_reason(self.model.module)
        if reason:
            self.say(f"decoding through the model's own forward, which is slower: {reason}")
        if reason := why_without_kernels(self.model.module):
            self.say(f"decoding without compiled kernels, which is slower: {reason}")
        return make_products(self.model.module)

    def _halve(self, num_slots: int) -> None:
        """Go on with half the slots."""
        if num_slots <= MIN_SLOTS:
            raise ConfigError(
                f"The device's memory holds not even {num_slots} rows.",
                "Lower sampling.max_new_tokens, or take a smaller model.",
            )
        self.num_slots, self._kept = num_slots // 2, None
        self.warn(f"out of memory; going on with {self.num_slots} slots (set sampling.slots to start there)")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Loop:
    """One pass over waiting requests."""

    def __init__(
        self,
        engine: Engine,
        shape: Shape,
        waiting: deque[tuple[int, Request]],
        params: SamplingParams,
        finished: dict[int, Generated],
        on_finished: OnFinished | None,
    ) -> None:
        self.engine, self.params, self.on_finished = engine, params, on_finished
        self.waiting, self.finished = waiting, finished
        self.slots = Slots(min(shape.num_slots, len(waiting)), params.max_new_tokens)
        self.device = engine.model.device
        self.body = engine.body(shape)

    def run(self) -> None:
        """Refill, step, and take tokens until every request is finished."""
        while True:
            if self.waiting and len(self.slots.idle) >= self._refill_at():
                self._refill()
            if len(self.slots.busy):
                if not self.waiting:
                    self._shrink()
                self._step()
            elif not self.waiting:
                return

    def _refill_at(self) -> int:
        """Idle slots to wait for before a prefill, so that prompts are computed several at a time."""
        return max(1, len(self.slots) // 16)

    def _refill(self) -> None:
        """Give waiting requests to idle slots, each distinct prompt computed once."""
        groups: dict[tuple[int, ...], list[tuple[int, int, Request]]] = {}
        for slot in self.slots.idle.tolist():
            if self.waiting:
                index, request = self.waiting.popleft()
                groups.setdefault(request.prompt_ids, []).append((slot, index, request))
        for chunk in _chunks(sorted(groups, key=len), PREFILL_TOKENS):
            logits, lengths = self.body.prefill(chunk, [[slot for slot, _, _ in groups[prompt]] for prompt in chunk])
            fresh, sources = [], []
            for number, (prompt, length) in enumerate(zip(chunk, lengths, strict=True)):
                for slot, index, request in groups[prompt]:
                    self.slots.fill(slot, index, request.seed, length, self.engine.forcer.start())
                    fresh.append(slot)
                    sources.append(number)
            self._take(np.array(fresh), logits[torch.tensor(sources, device=logits.device)])

    def _shrink(self) -> None:
        """Move the busy rows to the first half of the slots, or less, when they fit there."""
        busy, size = self.slots.busy, len(self.slots)
        while size // 2 >= max(len(busy), MIN_SLOTS):
            size //= 2
        if size == len(self.slots):
            return
        movers = busy[busy >= size]
        targets = self.slots.idle[: len(movers)]
        if len(movers):
            reach = int((self.slots.start + self.slots.length)[movers].max())
            self.body.move(movers.tolist(), targets.tolist(), reach)
            self.slots.move(movers, targets)
        self.slots.truncate(size)

    def _step(self) -> None:
        """Send every busy slot's new tokens through the model and take the next."""
        feed = self.slots.feed()
        slots = np.concatenate([np.arange(feed.num_rows), feed.extra_slots])
        tokens, positions, places = (
            torch.from_numpy(array).to(self.device) for array in (feed.tokens, feed.positions, slots)
        )
        logits = self.body.step(Batch(tokens, positions, places, feed.num_rows, int(feed.positions.max()) + 1))
        busy = self.slots.busy
        self._take(busy, logits if len(busy) == len(logits) else logits[torch.from_numpy(busy).to(logits.device)])

    def _take(self, slots: Ints, logits: Tensor) -> None:
        """Give each slot its next token, drawn from logits [R, V]; let the calculator answer where it is asked."""
        drawn = self._draw(slots, logits)
        if self.params.calculator:
            watched = np.flatnonzero(self.slots.is_open[slots] | self.engine.tables.interesting[drawn])
            seen = zip(slots[watched].tolist(), drawn[watched].tolist(), strict=True)
            answered = watched[[self._answer(slot, token) for slot, token in seen]]
            self.slots.append(np.delete(slots, answered), np.delete(drawn, answered))
        else:
            self.slots.append(slots, drawn)
        lengths = self.slots.length[slots]
        ended = self.slots.ids[slots, lengths - 1] == self.engine.model.eos_id
        for slot in slots[ended | (lengths >= self.slots.room)].tolist():
            self._finish(slot)

    def _draw(self, slots: Ints, logits: Tensor) -> Ints:
        numbers = None
        if self.params.temperature > 0:
            places = self.slots.length[slots]
            numbers = torch.from_numpy(uniforms(self.slots.seed[slots], places)).to(torch.float32).to(logits.device)
        drawn: Ints = pick_tokens(logits, self.params, numbers).cpu().numpy()
        return drawn

    def _answer(self, slot: int, token: int) -> bool:
        """Show the calculator a drawn token; where it answers, write what stands for the token and what it forces."""
        slots, state = self.slots, self.slots.state[slot]
        step = self.engine.forcer.feed(state, token)
        slots.is_open[slot] = state.is_open
        if step is None:
            return False
        slots.append_run(slot, [token] if step.replace is None else step.replace)
        start = int(slots.length[slot])
        slots.append_run(slot, step.forced)
        if slots.length[slot] > start:
            slots.forced[slot].append((start, int(slots.length[slot])))
        return True

    def _finish(self, slot: int) -> None:
        slots = self.slots
        ids = tuple(slots.ids[slot, : slots.length[slot]].tolist())
        stop: Literal["eos", "length"] = "eos" if ids[-1] == self.engine.model.eos_id else "length"
        state: Any = slots.state[slot]
        result = Generated(ids, stop, tuple(slots.forced[slot]), state.calls, state.uncalculated)
        self.finished[int(slots.request[slot])] = result
        slots.request[slot] = -1
        if self.on_finished is not None:
            self.on_finished(result)


def _chunks(prompts: Sequence[tuple[int, ...]], tokens: int) -> list[list[tuple[int, ...]]]:
    """Prompts, sorted by length, in groups of at most `tokens` padded tokens (one prompt at least)."""
    chunks: list[list[tuple[int, ...]]] = []
    for prompt in prompts:
        if chunks and len(prompt) * (len(chunks[-1]) + 1) <= tokens:
            chunks[-1].append(prompt)
        else:
            chunks.append([prompt])
    return chunks
