"""Storage of keys and values: its pages, and the spare slot that fills a step up."""

from __future__ import annotations

import mmap

import pytest
import torch

from selftrain.sampling.cache import STEP_ROUND, Batch, SlotCache

SLOTS, ROOM, LAYERS, HEADS, WIDTH = 3, 48, 2, 3, 64  # 36,864 bytes a slot and layer: 9 pages of 4 kB


def cache(width: int = WIDTH) -> SlotCache:
    made = SlotCache(SLOTS, ROOM, LAYERS, HEADS, width, torch.float32, torch.device("cpu"))
    made.storage.fill_(1.0)
    return made


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system takes no advice on pages")
def test_a_released_slot_gives_its_pages_back_and_no_other() -> None:
    made = cache()
    made.release(1)
    assert not made.storage[:, :, 1].any(), "pages of the system are zero when they are touched again"
    assert made.storage[:, :, [0, 2, SLOTS]].all()


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system takes no advice on pages")
def test_pages_that_two_slots_share_stay() -> None:
    made = cache(width=60)  # slots end inside pages
    made.release(1)
    assert not made.storage[:, :, 1].all()
    assert made.storage[:, :, [0, 2, SLOTS]].all()


def test_a_slot_smaller_than_a_page_is_kept() -> None:
    made = SlotCache(4, 2, 1, 1, 8, torch.float32, torch.device("cpu"))
    made.storage.fill_(1.0)
    made.release(1)
    assert made.storage.all()


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, STEP_ROUND), (STEP_ROUND, STEP_ROUND), (STEP_ROUND + 1, 2 * STEP_ROUND)]
)
def test_a_step_is_filled_up_with_the_spare_slot(tokens: int, expected: int) -> None:
    made = cache()
    numbers = torch.arange(tokens)
    batch = Batch(numbers + 5, numbers, numbers % SLOTS, min(tokens, SLOTS), ROOM)
    filled = made.filled(batch)
    assert len(filled.tokens) == len(filled.positions) == len(filled.slots) == expected
    assert torch.equal(filled.slots[:tokens], batch.slots) and torch.equal(filled.tokens[:tokens], batch.tokens)
    assert set(filled.slots[tokens:].tolist()) <= {made.spare}
    assert (filled.num_rows, filled.longest) == (batch.num_rows, batch.longest)
    made.begin(filled)
    made.write(0, torch.full((expected, HEADS, WIDTH), 7.0), torch.full((expected, HEADS, WIDTH), 7.0))
    rows = torch.zeros(SLOTS, ROOM, dtype=torch.bool)
    rows[batch.slots, batch.positions] = True
    assert torch.equal(made.keys[0][:SLOTS, 0, :, 0] == 7, rows), "rows hold their own tokens and no other"
