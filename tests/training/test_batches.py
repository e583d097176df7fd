"""Effective batches and micro-batches."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.training.batches import ItemShape, Plan, group_batches, padded_tokens, row_batches


def _flat(batches: list[list[int]]) -> list[int]:
    return [item for batch in batches for item in batch]


def test_row_batches_visit_each_row_once_an_epoch_in_a_new_order() -> None:
    batches = row_batches(10, 4, epochs=2, max_steps=None, seed=0)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4]
    order = _flat(batches)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]
    assert batches == row_batches(10, 4, epochs=2, max_steps=None, seed=0)
    assert batches != row_batches(10, 4, epochs=2, max_steps=None, seed=1)


def test_row_batches_take_fractions_of_an_epoch_exactly() -> None:
    batches = row_batches(10, 4, epochs=1.5, max_steps=None, seed=0)
    assert [len(batch) for batch in batches] == [4, 4, 4, 3]
    assert len(set(_flat(batches)[:10])) == 10


@pytest.mark.parametrize("max_steps", [1, 9])
def test_max_steps_replaces_epochs_in_both_directions(max_steps: int) -> None:
    batches = row_batches(10, 4, epochs=1, max_steps=max_steps, seed=0)
    assert [len(batch) for batch in batches] == [4] * max_steps


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 9))
def test_group_batches_split_no_question_and_lose_none(sizes: list[int], batch_size: int, seed: int) -> None:
    batches = group_batches(sizes, batch_size, epochs=1, max_steps=1000, seed=seed)
    assert Counter(_flat(batches)) == Counter(range(len(sizes)))
    held = [sum(sizes[item] for item in batch) for batch in batches]
    for batch, pairs in zip(batches[:-1], held[:-1], strict=True):
        assert pairs <= batch_size or len(batch) == 1
    assert len(batches) == 1 or 2 * held[-1] >= batch_size


def test_a_small_last_batch_joins_the_one_before() -> None:
    assert [len(batch) for batch in group_batches([1] * 9, 4, epochs=1, max_steps=9, seed=0)] == [4, 5]
    assert [len(batch) for batch in group_batches([1] * 10, 4, epochs=1, max_steps=9, seed=0)] == [4, 4, 2]


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"), [(1, 2, 2), (0.5, 99, 3), (0.6, 99, 3), (2.2, 99, 11), (2.3, 99, 12)]
)
def test_group_batches_take_the_smaller_of_epochs_and_steps(epochs: float, max_steps: int, expected: int) -> None:
    assert len(group_batches([1] * 20, 4, epochs=epochs, max_steps=max_steps, seed=0)) == expected


def test_padded_tokens_of_both_families() -> None:
    shapes = [ItemShape.of(10, [2, 5]), ItemShape.of(3, [9])]
    assert padded_tokens(shapes, False, "rows") == 3 * 15
    assert padded_tokens(shapes, True, "rows") == 3 * (10 + 9)
    assert shapes[0].tokens("rows") == 10 + 10 + 2 + 5


def test_trees_count_a_prompt_once_and_need_no_padding() -> None:
    shapes = [ItemShape.of(10, [2, 5]), ItemShape.of(3, [9])]
    assert shapes[0].tokens("trees") == 10 + 2 + 5
    assert padded_tokens(shapes, False, "trees") == 10 + 2 + 5 + 3 + 9
    assert padded_tokens(shapes, True, "trees") == 2 * 10 + 3 * 9


def _plan(budget: int, batches: list[list[int]] | None = None) -> Plan:
    shapes = [ItemShape.of(prompt, [4]) for prompt in (2, 30, 4, 28, 6, 26)]
    return Plan(batches or [[0, 1, 2, 3, 4, 5]], shapes, [1, 2, 3, 4, 5, 6], budget, False, "rows")


def test_micro_batches_sort_by_length_and_keep_to_the_budget() -> None:
    found = _plan(68).step(0)
    assert [micro_batch.items for micro_batch in found] == [(1, 3), (5, 4), (2, 0)]
    assert [micro_batch.padded_tokens for micro_batch in found] == [68, 60, 16]
    assert [micro_batch.tokens for micro_batch in found] == [66, 40, 14]
    assert {micro_batch.denominator for micro_batch in found} == {21.0}


def test_a_row_over_the_budget_is_forwarded_alone() -> None:
    assert [micro_batch.items for micro_batch in _plan(1).step(0)] == [(1,), (3,), (5,), (4,), (2,), (0,)]


def test_covering_holds_every_item_once_and_cuts_as_the_steps_do() -> None:
    plan = _plan(68, batches=[[4, 0], [1, 5], [0, 1]])
    found = plan.covering()
    assert found[:2] == [*plan.step(0), *plan.step(1)]
    assert [micro_batch.items for micro_batch in found[2:]] == [(3, 2)]
    assert sorted(item for micro_batch in found for item in micro_batch.items) == [0, 1, 2, 3, 4, 5]
