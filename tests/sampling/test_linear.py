"""Products against plain linear layers, packed and side by side."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selftrain.sampling import linear
from selftrain.sampling.linear import Product, side_by_side


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_product_is_its_layers_side_by_side(packed: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if packed and not linear.can_pack(torch.zeros(1)):
        pytest.skip("no packed products on this machine")
    monkeypatch.setattr(linear, "can_pack", lambda weight: packed)
    layers = [nn.Linear(24, size, bias=bias) for size in (40, 8, 16)]
    hidden = torch.randn(7, 24)
    expected = torch.cat([layer(hidden) for layer in layers], dim=-1)
    product = Product(*layers)
    assert product.is_packed is packed
    assert torch.allclose(product(hidden), expected, atol=1e-5)
    assert torch.allclose(product(hidden[:1]), expected[:1], atol=1e-5)
    assert torch.allclose(torch.cat([layer(hidden) for layer in layers], dim=-1), expected)


def test_weights_side_by_side_share_the_modules_memory_and_are_made_once() -> None:
    first, second = nn.Linear(4, 3), nn.Linear(4, 5)
    before = torch.cat([first.weight, second.weight]).detach().clone()
    whole = side_by_side([first.weight, second.weight])
    assert torch.equal(whole, before)
    whole[0, 0] += 1
    assert first.weight[0, 0] == whole[0, 0]
    again = side_by_side([first.weight, second.weight])
    assert again.data_ptr() == whole.data_ptr() and torch.equal(again, whole)
    first(torch.ones(1, 4)).sum().backward()
    assert first.weight.grad is not None
