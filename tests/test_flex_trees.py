"""All trees in one kernel against tree by tree. Without a GPU flex_attention runs uncompiled: the same arithmetic."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from selftrain import flex_trees, forwards
from selftrain.flex_trees import BLOCK, flex_tree_attention, tree_mask
from selftrain.forwards import Tree

# four blocks: a tree over two of them, branches that begin and end at and inside blocks, empty branches
TREES = [
    Tree([5] * 60, [[6] * 41, [6] * 100, [6], [6] * 20]),
    Tree([5], [[6]]),
    Tree([5] * 30, [[6], [6] * 7]),
    Tree([5] * 120, [[6] * 9]),
    Tree([5] * 20, [[6] * 30, [6] * 5]),
]


@pytest.fixture(autouse=True)
def without_compiling(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def plain(*args: Any, **kwargs: Any) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not compiled
            return flex_attention(*args, **kwargs)

    if not torch.cuda.is_available():
        monkeypatch.setattr(flex_trees, "compiled", plain)
    yield


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="flex_attention has no backward on a CPU")


@pytest.mark.parametrize("with_gradients", [False, pytest.param(True, marks=on_gpu)])
def test_attention_and_gradients_are_those_tree_by_tree(with_gradients: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ids, _, _, branches = forwards._flatten(TREES)
    length = -(-len(ids) // BLOCK) * BLOCK
    assert length > 3 * BLOCK and length > len(ids)
    torch.manual_seed(7)
    query, key, value = (torch.randn(1, heads, length, 16, device=device) for heads in (6, 2, 2))
    for tensor in (query, key, value):
        tensor.requires_grad_(with_gradients)
    weights = torch.randn(1, 6, len(ids), 16, device=device)

    whole = flex_tree_attention(query, key, value, tree_mask(branches, length, device), 0.3)[:, :, : len(ids)]
    parts, _ = forwards._tree_attention(
        torch.nn.Module(), *(tensor[:, :, : len(ids)] for tensor in (query, key, value)), None, branches=branches,
        scaling=0.3,
    )  # fmt: skip
    parts = parts.transpose(1, 2)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    if not with_gradients:
        return
    found, expected = (torch.autograd.grad((out * weights).sum(), (query, key, value)) for out in (whole, parts))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_branch_that_saw_another_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask's own rule, on a case written by hand: prompt 0 1, branches 2 3 and 4 (5 fills up)."""
    _, _, _, branches = forwards._flatten([Tree([5, 5], [[6, 6, 6], [6, 6]])])
    monkeypatch.setattr(flex_trees, "BLOCK", 6)
    sees = tree_mask(branches, 6, torch.device("cpu")).mask_mod
    at = torch.arange(6)
    table = sees(torch.tensor(0), torch.tensor(0), at[:, None], at[None, :]).int().tolist()
    assert table == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
