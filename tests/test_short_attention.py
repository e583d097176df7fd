"""Attention as plain products against torch's, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from selftrain.short_attention import is_short, short_attention


def tensors(dtype: torch.dtype, length: int, size: int, requires_grad: bool = True) -> list[torch.Tensor]:
    torch.manual_seed(length)
    shapes = [(1, 6, length, 8), (1, 2, size, 8), (1, 2, size, 8)]
    return [torch.randn(shape, dtype=dtype).mul_(2).requires_grad_(requires_grad) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("length", "size"), [(1, 1), (9, 9), (5, 17), (33, 64)])
def test_it_is_torchs_attention_in_both_directions(dtype: torch.dtype, length: int, size: int) -> None:
    mask = torch.ones(length, size, dtype=torch.bool).tril(size - length)
    ours, theirs = (
        tensors(dtype, length, size),
        [t.detach().double().requires_grad_() for t in tensors(dtype, length, size)],
    )
    found = short_attention(*ours, mask, 0.3)
    expected = functional.scaled_dot_product_attention(*theirs, mask, scale=0.3, enable_gqa=True)
    weights = torch.randn(expected.shape, dtype=torch.float64)
    (found.double() * weights).sum().backward()
    (expected * weights).sum().backward()
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
    for name, our, their in zip(["query", "key", "value"], ours, theirs, strict=True):
        assert our.grad is not None and their.grad is not None
        torch.testing.assert_close(our.grad.double(), their.grad, rtol=tolerance, atol=4 * tolerance, msg=name)


def test_nothing_of_the_scores_size_is_kept() -> None:
    query, key, value = tensors(torch.float32, 64, 64)
    kept: list[int] = []
    mask = torch.ones(64, 64, dtype=torch.bool).tril()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        short_attention(query, key, value, mask, 1.0)
    assert sum(kept) <= 2 * query.nbytes + key.nbytes + value.nbytes + mask.nbytes


def test_long_rows_and_other_types_go_elsewhere() -> None:
    assert is_short(*tensors(torch.bfloat16, 384, 384)) and not is_short(*tensors(torch.bfloat16, 384, 385))
    assert not is_short(*tensors(torch.float32, 8, 8))
