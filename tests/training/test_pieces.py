"""Fused norms and gates against the model's own: values, gradients, and a whole model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.forwards import Tree
from selftrain.models import load_model
from selftrain.native import library
from selftrain.toy import make_toy
from selftrain.training import pieces
from selftrain.training.objective import target_log_probs

TREES = [Tree([5, 6, 7], [[20, 21, 0], [22, 0], [20, 21, 24, 25, 0]]), Tree([8, 9, 10, 11], [[22, 23, 0]])]
precisions = pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])


@pytest.fixture(autouse=True)
def needs_a_compiler() -> None:
    if library("training", "kernels.c")[0] is None:
        pytest.skip(f"no kernels here: {library('training', 'kernels.c')[1]}")


@pytest.fixture
def module(tmp_path: Path) -> Any:
    make_toy("random-llama", tmp_path)
    return load_model(tmp_path, digest="toy").module


def outcome(module: Any, given: torch.Tensor, part: Any, precision: torch.dtype) -> list[torch.Tensor]:
    """A part's output for `given` [1, N, D], its input's gradient and its weights'."""
    given = given.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        out = part(given)
    steps = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    return [out.detach().float(), *torch.autograd.grad((out * steps).float().sum(), [given, *part.parameters()])]


@precisions
@pytest.mark.parametrize("name", ["input_layernorm", "mlp"])
def test_a_part_and_its_gradients_are_the_models_own(module: Any, name: str, precision: torch.dtype) -> None:
    torch.manual_seed(3)
    part = getattr(module.base_model.layers[0], name)
    if name == "input_layernorm":
        part.weight.data.uniform_(0.5, 2.0)
    given = torch.randn(1, 7, module.config.hidden_size) * 3
    expected = outcome(module, given, part, precision)
    undo = pieces.fuse(module)
    found = outcome(module, given, part, precision)
    undo()
    assert "forward" not in vars(part)
    tolerance = 1e-5 if precision == torch.float32 else 2e-2
    for ours, theirs in zip(found, expected, strict=True):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=tolerance, atol=tolerance)


def test_a_whole_model_trains_alike_and_keeps_less(module: Any) -> None:
    def gradients() -> tuple[list[torch.Tensor], int]:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found, _ = target_log_probs(module, TREES, 0, "trees")
        return [found.detach(), *torch.autograd.grad(found.sum(), list(module.parameters()))], sum(kept.values())

    expected, before = gradients()
    undo = pieces.fuse(module)
    found, after = gradients()
    undo()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert after < before


def test_what_it_cannot_do_goes_the_models_own_way(module: Any) -> None:
    norm = module.base_model.norm
    hidden = torch.randn(1, 3, module.config.hidden_size).bfloat16()
    expected = norm(hidden)
    undo = pieces.fuse(module)
    assert torch.equal(norm(hidden), expected)
    undo()


def test_models_of_other_kinds_are_left_alone(tmp_path: Path) -> None:
    make_toy("random-t5", tmp_path)
    module = load_model(tmp_path, digest="toy").module
    pieces.fuse(module)()
    assert not [part for part in module.modules() if "forward" in vars(part)]
