"""Decoding by segments: the calculator for a backend that can stop at given tokens and go on from a prompt.

    rows = [SegmentedRow(request, room, eos_id, forcer) for request in requests]
    for index, generated in run_segments(backend, rows, window=141):
        ...

A segment is drawn up to a stop token (`calculator.stops`), the end token or the room that is left. Its tokens are read
by the same automaton as in `engine`, and are booked the same way. Where an annotation's `=` was reached, what was drawn
after it is dropped, the calculator's tokens are put there, and the rest is drawn from the longer prompt, whose keys
and values the backend still has. So every annotation is closed by the calculator whatever the vocabulary; stop
tokens only see to it that next to nothing is dropped.

Each segment has a seed of its own, derived from the request's and from its place: a seed that is used again would
replay its draws.

Leaves out: what draws the tokens. Nothing here knows vLLM.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

from selftrain.calculator.forcing import Forcer
from selftrain.sampling.base import Generated, Request
from selftrain.seeding import derive_seed


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """What to draw next: at most `max_tokens` tokens after `prompt_ids`, with `seed`; `position` of them are there."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    seed: int
    position: int


class SegmentBackend(Protocol):
    """What draws segments."""

    def add(self, key: int, segment: Segment) -> None:
        """Take on a segment; its end is told under `key`."""
        ...

    def step(self) -> Sequence[tuple[int, Sequence[int]]]:
        """Compute a little; the segments that ended, each with its tokens, the one it stopped at included."""
        ...


class SegmentedRow:
    """One request on its way: what is written, and where its calculator stands.

    Args:
        request: the draw to make.
        room: tokens that it may write.
        eos_id: the token that ends it.
        forcer: the automaton; None with the calculator off.
    """

    def __init__(self, request: Request, room: int, eos_id: int, forcer: Forcer | None) -> None:
        self.request, self.room, self.eos_id = request, room, eos_id
        self.num_dropped = 0  # drawn tokens that the calculator took the place of
        self._forcer, self._state = forcer, Forcer.start()
        self._ids: list[int] = []
        self._forced: list[tuple[int, int]] = []

    def segment(self) -> Segment:
        """The segment to draw now."""
        position = len(self._ids)
        seed = derive_seed(self.request.seed, "segment", position)
        return Segment((*self.request.prompt_ids, *self._ids), self.room - position, seed, position)

    def take(self, token_ids: Sequence[int]) -> Segment | Generated:
        """Read a segment's tokens; the next segment, or the finished completion.

        Raises:
            RuntimeError: no token came, so this would never end.
        """
        if not token_ids:
            raise RuntimeError(f"an empty segment for {self.request.problem_id!r}, sample {self.request.k}")
        for number, token in enumerate(token_ids, 1):
            was_computed = self._write(token)
            if self._ids[-1] == self.eos_id or len(self._ids) >= self.room:
                return self._finished()
            if was_computed:
                self.num_dropped += len(token_ids) - number
                break
        return self.segment()

    def _write(self, token: int) -> bool:
        """Write a drawn token and what the calculator puts after it; whether it put anything."""
        step = None
        if self._forcer is not None and (self._state.is_open or self._forcer.tables.interesting[token]):
            step = self._forcer.feed(self._state, token)
        if step is None:
            self._ids.append(token)
            return False
        self._ids.extend((token,) if step.replace is None else step.replace)
        if step.forced:
            self._forced.append((len(self._ids), len(self._ids) + len(step.forced)))
            self._ids.extend(step.forced)
        return True

    def _finished(self) -> Generated:
        ids = tuple(self._ids[: self.room])
        forced = tuple((start, min(end, len(ids))) for start, end in self._forced if start < len(ids))
        stop: Literal["eos", "length"] = "eos" if ids[-1] == self.eos_id else "length"
        return Generated(ids, stop, forced, self._state.calls, self._state.uncalculated)


def run_segments(backend: SegmentBackend, rows: Sequence[SegmentedRow], window: int) -> Iterator[tuple[int, Generated]]:
    """Draw all rows, at most `window` of them at a time; (index, completion) as each one ends.

    A row that goes on is handed over at once, so with a window little above what the backend draws at a time it
    waits for no row that has not begun, and its keys and values are still there.
    """
    waiting = iter(range(len(rows)))
    num_running = 0
    for index in itertools.islice(waiting, window):
        backend.add(index, rows[index].segment())
        num_running += 1
    while num_running:
        for index, token_ids in backend.step():
            following = rows[index].take(token_ids)
            if isinstance(following, Segment):
                backend.add(index, following)
                continue
            num_running -= 1
            for fresh in itertools.islice(waiting, 1):
                backend.add(fresh, rows[fresh].segment())
                num_running += 1
            yield index, following
