"""The decode loop: slots that are refilled the moment a row ends, with the calculator inside.

    engine = Engine(model, num_slots=128, style="angle")
    outputs = engine.generate(requests, SamplingParams(temperature=0.7, ...))

Each step draws one token for every busy slot, except where the calculator has tokens queued for a row:
those are written instead, and the model's own logits count again after them. The samples of one question
share one prefill. When requests run out, the rows that are left move together and the batch halves.
A tokeniser-independent automaton (`calculator.forcing`) decides what is forced, in O(1) a token.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftrain.calculator.annotation import Style
from selftrain.calculator.forcing import Forcer, ForcingTables, build_tables
from selftrain.models import LanguageModel, is_encoder_decoder, max_positions
from selftrain.sampling.base import Generated, OnFinished, Request, SamplingParams
from selftrain.sampling.bodies import PREFILL_TOKENS, Body, CausalBody
from selftrain.sampling.draw import pick_tokens
from selftrain.sampling.t5_body import T5Body
from selftrain.seeding import uniforms

MIN_ROWS = 8  # the batch is not halved below this


@dataclasses.dataclass(slots=True)
class Row:
    """A busy slot."""

    index: int  # of its request
    request: Request
    position: int  # where its next token is written
    state: Any  # the calculator's automaton
    token_ids: list[int] = dataclasses.field(default_factory=list)
    queue: deque[int] = dataclasses.field(default_factory=deque)
    forced: list[tuple[int, int]] = dataclasses.field(default_factory=list)


class Engine:
    """A `Sampler` for models that transformers loads: decoder-only, and encoder-decoder of the T5 kind."""

    def __init__(
        self, model: LanguageModel, *, num_slots: int, style: Style, tables: ForcingTables | None = None
    ) -> None:
        self.model = model
        self.num_slots = num_slots
        self.tables = tables or build_tables(model.tokenizer, style)
        self.forcer = Forcer(self.tables)

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
    ) -> list[Generated]:
        """See `base.Sampler`. Requests of one problem should be neighbours, so that they share their prefill."""
        if not requests:
            return []
        loop = _Loop(self, requests, params, on_finished)
        loop.run()
        return [loop.finished[index] for index in range(len(requests))]

    def body(self, requests: Sequence[Request], params: SamplingParams) -> Body:
        """Storage and forwards for these requests; the storage is allocated once."""
        prompt = max(len(request.prompt_ids) for request in requests)
        slots = min(self.num_slots, max(len(requests), 1))
        if is_encoder_decoder(self.model.module):
            return T5Body(self.model.module, slots, params.max_new_tokens + 1, prompt)
        length = prompt + params.max_new_tokens
        limit = max_positions(self.model.module)
        return CausalBody(self.model.module, slots, min(length, limit) if limit else length)


class _Loop:
    """One call of `generate`."""

    def __init__(
        self, engine: Engine, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None
    ) -> None:
        self.engine, self.params, self.on_finished = engine, params, on_finished
        self.body = engine.body(requests, params)
        self.device = engine.model.device
        self.waiting = deque(enumerate(requests))
        self.num_slots = min(engine.num_slots, len(requests))
        self.rows: list[Row | None] = [None] * self.num_slots
        self.finished: dict[int, Generated] = {}

    def run(self) -> None:
        """Refill, step, and take tokens until every request is finished."""
        while True:
            if self.waiting and self._num_free() >= self._refill_at():
                self._refill()
            busy = [slot for slot, row in enumerate(self.rows) if row is not None]
            if not busy:
                if not self.waiting:
                    return
                continue
            if not self.waiting:
                busy = self._shrink(busy)
            self._step(busy)

    def _num_free(self) -> int:
        return sum(row is None for row in self.rows)

    def _refill_at(self) -> int:
        """Free slots to wait for before a prefill, so that prompts are computed several at a time."""
        return max(1, len(self.rows) // 16)

    def _refill(self) -> None:
        """Give waiting requests to free slots, each distinct prompt computed once."""
        free = [slot for slot, row in enumerate(self.rows) if row is None]
        groups: dict[tuple[int, ...], list[tuple[int, int, Request]]] = {}
        while free and self.waiting:
            index, request = self.waiting.popleft()
            groups.setdefault(request.prompt_ids, []).append((free.pop(0), index, request))
        for chunk in _chunks(sorted(groups, key=len), PREFILL_TOKENS):
            logits, lengths = self.body.prefill(chunk, [[slot for slot, _, _ in groups[prompt]] for prompt in chunk])
            fresh, sources = [], []
            for number, (prompt, length) in enumerate(zip(chunk, lengths, strict=True)):
                for slot, index, request in groups[prompt]:
                    self.rows[slot] = Row(index, request, length, self.engine.forcer.start())
                    fresh.append(slot)
                    sources.append(number)
            self._take(fresh, logits[torch.tensor(sources, device=logits.device)])

    def _shrink(self, busy: list[int]) -> list[int]:
        """Move the busy rows to the first half of the slots when they fit there."""
        size = len(self.rows)
        while size // 2 >= max(len(busy), MIN_ROWS):
            size //= 2
        if size < len(self.rows):
            homes = [slot for slot in range(size) if self.rows[slot] is None]
            movers = [slot for slot in busy if slot >= size]
            targets = homes[: len(movers)]
            if movers:
                self.body.move(movers, targets)
            for source, target in zip(movers, targets, strict=True):
                self.rows[target] = self.rows[source]
            self.rows = self.rows[:size]
        return [slot for slot, row in enumerate(self.rows) if row is not None]

    def _step(self, busy: list[int]) -> None:
        """Write each busy row's newest token and take the next; idle slots repeat a harmless write at position 0."""
        tokens = np.zeros(len(self.rows), dtype=np.int64)
        positions = np.zeros(len(self.rows), dtype=np.int64)
        for slot in busy:
            row = self._row(slot)
            tokens[slot], positions[slot] = row.token_ids[-1], row.position
            row.position += 1
        logits = self.body.step(
            len(self.rows), torch.from_numpy(tokens).to(self.device), torch.from_numpy(positions).to(self.device)
        )
        self._take(busy, logits if len(busy) == len(self.rows) else logits[torch.tensor(busy, device=logits.device)])

    def _take(self, slots: Sequence[int], logits: Tensor) -> None:
        """Give each slot its next token: the calculator's where one is queued, else a draw from logits [R, V]."""
        drawn = self._draw(slots, logits)
        for slot, token in zip(slots, drawn, strict=True):
            row = self._row(slot)
            if row.queue:
                row.token_ids.append(row.queue.popleft())
            else:
                self._accept(row, token)
            self._finish_if_done(slot, row)

    def _draw(self, slots: Sequence[int], logits: Tensor) -> list[int]:
        if self.params.temperature == 0:
            return pick_tokens(logits, self.params, None).tolist()
        seeds = np.array([self._row(slot).request.seed for slot in slots], dtype=np.uint64)
        places = np.array([len(self._row(slot).token_ids) for slot in slots], dtype=np.int64)
        numbers = torch.from_numpy(uniforms(seeds, places)).to(logits.device, torch.float32)
        return pick_tokens(logits, self.params, numbers).tolist()

    def _accept(self, row: Row, token: int) -> None:
        """Append a drawn token and let the calculator see it."""
        if not self.params.calculator or not (row.state.is_open or self.engine.tables.interesting[token]):
            row.token_ids.append(token)
            return
        step = self.engine.forcer.feed(row.state, token)
        written = (token,) if step is None or step.replace is None else step.replace
        row.token_ids.append(written[0])
        row.queue.extend(written[1:])
        if step is not None and step.forced:
            start = len(row.token_ids) + len(row.queue)
            row.forced.append((start, start + len(step.forced)))
            row.queue.extend(step.forced)

    def _finish_if_done(self, slot: int, row: Row) -> None:
        ended = row.token_ids[-1] == self.engine.model.eos_id and not row.queue
        if not ended and len(row.token_ids) < self._room(row):
            return
        stop: Literal["eos", "length"] = "eos" if ended else "length"
        size = len(row.token_ids)
        forced = tuple((start, min(end, size)) for start, end in row.forced if start < size)
        result = Generated(tuple(row.token_ids), stop, forced, row.state.calls, row.state.uncalculated)
        self.finished[row.index] = result
        self.rows[slot] = None
        if self.on_finished is not None:
            self.on_finished(result)

    def _room(self, row: Row) -> int:
        """Tokens this row may write: the setting, or what the model's positions leave after its prompt."""
        limit = max_positions(self.engine.model.module)
        if limit is None:
            return self.params.max_new_tokens
        return min(self.params.max_new_tokens, limit - len(row.request.prompt_ids))

    def _row(self, slot: int) -> Row:
        row = self.rows[slot]
        if row is None:
            raise RuntimeError(f"slot {slot} is not busy")
        return row


def _chunks(prompts: Sequence[tuple[int, ...]], tokens: int) -> list[list[tuple[int, ...]]]:
    """Prompts, sorted by length, in groups of at most `tokens` padded tokens (one prompt at least)."""
    chunks: list[list[tuple[int, ...]]] = []
    for prompt in prompts:
        if chunks and len(prompt) * (len(chunks[-1]) + 1) <= tokens:
            chunks[-1].append(prompt)
        else:
            chunks.append([prompt])
    return chunks
