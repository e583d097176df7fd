"""The slots' bookkeeping by hand."""

from __future__ import annotations

import numpy as np

from selftrain.calculator.forcing import RowState
from selftrain.sampling.slots import Slots


def slots_with(*starts: int, room: int = 6) -> Slots:
    slots = Slots(4, room)
    for slot, start in enumerate(starts):
        slots.fill(slot, request=10 + slot, seed=slot, start=start, state=RowState())
    return slots


def test_a_feed_holds_the_newest_tokens_and_then_the_rest_of_forced_runs() -> None:
    slots = slots_with(5, 9)
    slots.append(np.array([0, 1]), np.array([100, 200]))
    first = slots.feed()
    assert first.tokens.tolist() == [100, 200, 0, 0] and first.positions.tolist() == [5, 9, 0, 0]
    assert first.num_rows == 4 and first.extra_slots.tolist() == []
    slots.append_run(0, [101, 102, 103])
    slots.append(np.array([1]), np.array([201]))
    second = slots.feed()
    assert second.tokens.tolist() == [103, 201, 0, 0, 101, 102]
    assert second.positions.tolist() == [8, 10, 0, 0, 6, 7]
    assert second.extra_slots.tolist() == [0, 0] and second.num_rows == 4
    slots.append(np.array([0, 1]), np.array([104, 202]))
    assert slots.feed().positions.tolist() == [9, 11, 0, 0]


def test_a_run_is_cut_at_the_room_of_its_row() -> None:
    slots = slots_with(0, room=3)
    slots.append_run(0, [1, 2])
    slots.append_run(0, [3, 4, 5])
    assert slots.length[0] == 3 and slots.ids[0].tolist() == [1, 2, 3]


def test_rows_move_with_all_that_is_theirs() -> None:
    slots = slots_with(5, 6, 7)
    slots.request[[0, 1]] = -1
    slots.append(np.array([2]), np.array([42]))
    slots.forced[2] = [(0, 1)]
    state = slots.state[2]
    slots.move(np.array([2]), np.array([0]))
    slots.truncate(1)
    assert len(slots) == 1 and slots.busy.tolist() == [0] and slots.request[0] == 12
    assert slots.state[0] is state and slots.forced[0] == [(0, 1)]
    assert slots.feed().positions.tolist() == [7]


def test_a_slot_that_is_filled_again_remembers_nothing() -> None:
    slots = slots_with(5)
    slots.append_run(0, [1, 2, 3])
    slots.is_open[0] = True
    slots.feed()
    slots.fill(0, request=3, seed=1, start=2, state=RowState())
    slots.append(np.array([0]), np.array([9]))
    feed = slots.feed()
    assert feed.positions[0] == 2 and not len(feed.extra_slots) and not slots.is_open[0]
