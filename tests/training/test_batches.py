"""Effective batches and micro-batches."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.forwards import Layout
from selftrain.training.batches import ItemShape, Plan, _growing, group_batches, padded_tokens, row_batches


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


def _drawn_shapes(number: int) -> list[ItemShape]:
    """Lengths about those of GSM8K in T5's tokens: log-normal, prompts of 58 and targets of 105 in the median."""
    draw = random.Random(1)
    found = []
    for _ in range(number):
        about = draw.gauss(0, 1)
        prompt, target = 0.38 * about, 0.42 * (0.5 * about + 0.87 * draw.gauss(0, 1))
        found.append(ItemShape.of(max(10, round(58 * math.exp(prompt))), [max(8, round(105 * math.exp(target)))]))
    return found


@pytest.mark.parametrize(("batch_size", "bound"), [(8, 0.06), (16, 0.05), (96, 0.03)])
def test_little_of_an_encoder_decoders_micro_batches_is_padding(batch_size: int, bound: float) -> None:
    shapes = _drawn_shapes(960)
    batches = [list(range(start, start + batch_size)) for start in range(0, 960, batch_size)]
    plan = Plan(batches, shapes, [1.0] * 960, 2048, True, "trees")
    real, computed = plan.pass_tokens("trees")
    assert real == sum(shape.prompt + shape.all_targets for shape in shapes)
    assert 0 < computed - real <= bound * computed
    cuts = [micro_batch for step in range(plan.num_steps) for micro_batch in plan.step(step)]
    assert max(micro_batch.padded_tokens for micro_batch in cuts) <= 2048
    assert sum(micro_batch.padded_tokens for micro_batch in cuts) / len(cuts) > 256  # not one by one
    large = dataclasses.replace(plan, worth_a_forward=4096)  # a GPU's: fewer forwards, more padding
    assert len(large.covering()) < 0.7 * len(plan.covering())
    if batch_size == 96:
        real, computed = large.pass_tokens("trees")
        assert 0.03 * computed < computed - real <= 0.12 * computed
    assert sorted(item for micro_batch in cuts for item in micro_batch.items) == list(range(960))


def test_growing_counts_are_those_of_a_forward() -> None:
    shapes = [ItemShape.of(10, [2, 5]), ItemShape.of(3, [9]), ItemShape.of(12, [1, 1, 4])]
    layouts: tuple[Layout, Layout] = ("rows", "trees")
    for layout in layouts:
        whole = [padded_tokens(shapes[:number], True, layout) for number in (1, 2, 3)]
        assert _growing(shapes, layout) == whole
