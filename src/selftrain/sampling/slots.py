"""The rows that are being decoded, one a slot, as arrays: which request, what is written, where it goes next.

A row's tokens are in two parts: those whose keys and values are stored (`stored` of them) and those still to go
through the model. After a draw that is one token; after a forced run (`24>>`) it is the whole run, which goes in with
one forward. The loop in `engine` touches rows one by one only where something happens: an annotation, an end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selftrain.calculator.forcing import RowState

Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True)
class Feed:
    """What one forward gets: R slots' newest tokens, then E earlier tokens of forced runs.

    An idle slot repeats a harmless write of token 0 at position 0.
    """

    tokens: Ints  # [R + E]
    positions: Ints  # [R + E]
    extra_slots: Ints  # [E] the slot of each of the last E tokens

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.tokens) - len(self.extra_slots)


class Slots:
    """S slots of at most `room` new tokens each."""

    def __init__(self, num_slots: int, room: int) -> None:
        self.ids = np.zeros((num_slots, room), dtype=np.int64)
        self.request = np.full(num_slots, -1, dtype=np.int64)  # -1: idle
        self.seed = np.zeros(num_slots, dtype=np.uint64)
        self.length = np.zeros(num_slots, dtype=np.int64)  # tokens written so far
        self.stored = np.zeros(num_slots, dtype=np.int64)  # of them, tokens that went through the model
        self.start = np.zeros(num_slots, dtype=np.int64)  # position of the first token
        self.is_open = np.zeros(num_slots, dtype=np.bool_)  # inside an annotation, or perhaps about to be
        self.state: list[RowState] = [RowState() for _ in range(num_slots)]
        self.forced: list[list[tuple[int, int]]] = [[] for _ in range(num_slots)]

    def __len__(self) -> int:
        return len(self.request)

    @property
    def busy(self) -> Ints:
        """Slots that hold a row, ascending."""
        return np.flatnonzero(self.request >= 0)

    @property
    def idle(self) -> Ints:
        """Slots that hold none, ascending."""
        return np.flatnonzero(self.request < 0)

    @property
    def room(self) -> int:
        """Tokens that a row may write."""
        return int(self.ids.shape[1])

    def fill(self, slot: int, request: int, seed: int, start: int, state: RowState) -> None:
        """Begin a row."""
        self.request[slot], self.seed[slot], self.start[slot] = request, seed, start
        self.length[slot] = self.stored[slot] = 0
        self.is_open[slot] = False
        self.state[slot], self.forced[slot] = state, []

    def append(self, slots: Ints, tokens: Ints) -> None:
        """Write one token a slot."""
        self.ids[slots, self.length[slots]] = tokens
        self.length[slots] += 1

    def append_run(self, slot: int, tokens: Sequence[int]) -> None:
        """Write several tokens to one slot, as many as there is room for."""
        begin = int(self.length[slot])
        kept = tokens[: self.room - begin]
        self.ids[slot, begin : begin + len(kept)] = kept
        self.length[slot] += len(kept)

    def feed(self) -> Feed:
        """The tokens that haven't been through the model; they count as stored from now on."""
        busy = self.busy
        last = self.length[busy] - 1
        tokens, positions = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        tokens[busy], positions[busy] = self.ids[busy, last], self.start[busy] + last
        runs = busy[last > self.stored[busy]]
        extra = [(slot, index) for slot in runs for index in range(self.stored[slot], self.length[slot] - 1)]
        extra_slots = np.array([slot for slot, _ in extra], dtype=np.int64)
        indices = np.array([index for _, index in extra], dtype=np.int64)
        self.stored[busy] = self.length[busy]
        return Feed(
            np.concatenate([tokens, self.ids[extra_slots, indices]]),
            np.concatenate([positions, self.start[extra_slots] + indices]),
            extra_slots,
        )

    def move(self, sources: Ints, targets: Ints) -> None:
        """Put rows into other slots; their own become idle."""
        for array in (self.ids, self.request, self.seed, self.length, self.stored, self.start, self.is_open):
            array[targets] = array[sources]
        for source, target in zip(sources, targets, strict=True):
            self.state[target], self.forced[target] = self.state[source], self.forced[source]
        self.request[sources] = -1

    def truncate(self, size: int) -> None:
        """Keep the first `size` slots."""
        for name in ("ids", "request", "seed", "length", "stored", "start", "is_open"):
            setattr(self, name, getattr(self, name)[:size])
        self.state, self.forced = self.state[:size], self.forced[:size]
