"""The compiled pieces of a step against torch's, in fp32 and in bf16: C, and Triton (interpreted without a GPU)."""

from __future__ import annotations

import math
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selftrain import native
from selftrain.sampling.cache import Batch, SlotCache
from selftrain.sampling.kernels import Kernels, compiled
from selftrain.sampling.llama_body import TorchPieces, rotate
from selftrain.sampling.triton_kernels import TritonKernels, triton_kernels

HEADS = 2  # key heads
SLOTS, ROOM = 5, 100
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
kinds = pytest.mark.parametrize("kind", ["c", "triton"])


def kernels_for(dtype: torch.dtype, width: int = 16, group: int = 3, kind: str = "c") -> Kernels | TritonKernels:
    if kind == "triton" and dtype == torch.bfloat16 and not torch.cuda.is_available():
        pytest.skip("needs a GPU: interpreted, Triton neither rounds to bf16 nor multiplies in it")
    found, why_not = (compiled if kind == "c" else triton_kernels)(dtype, width, group)
    if found is None:
        pytest.skip(f"no kernels here: {why_not}")
    return found


def device_for(kind: str) -> torch.device:
    return torch.device("cuda" if kind == "triton" and torch.cuda.is_available() else "cpu")


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 1e-5 if found.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float().cpu(), expected.float().cpu(), rtol=tolerance, atol=tolerance)


@dtypes
@kinds
@pytest.mark.parametrize(("width", "group"), [(16, 3), (64, 1), (8, 16), (96, 2)])
@torch.inference_mode()
def test_attention_is_that_of_gathered_rows(dtype: torch.dtype, kind: str, width: int, group: int) -> None:
    """Rows of all lengths, a forced run of two earlier tokens of one slot, and an idle slot at position 0."""
    torch.manual_seed(1)
    found, device = kernels_for(dtype, width, group, kind), device_for(kind)
    positions = torch.tensor([7, ROOM - 1, 0, 80, 3, 78, 79]).to(device)
    slots = torch.tensor([0, 1, 2, 3, 4, 3, 3]).to(device)
    ours, theirs = (SlotCache(SLOTS, ROOM, 1, HEADS, width, dtype, device) for _ in range(2))
    for cache in (ours, theirs):
        torch.manual_seed(2)
        cache.keys[0].normal_()
        cache.values[0].normal_()
    angles = (torch.rand(ROOM, width // 2).repeat(1, 2) * 6).to(device)
    cos, sin = angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]
    projected = torch.randn(len(slots), (group + 2) * HEADS * width).to(device, dtype)

    out = found.attend(projected, cos, sin, ours.keys[0], ours.values[0], slots, positions)

    parts = projected.unflatten(-1, (-1, width))
    turned = rotate(parts[:, : (group + 1) * HEADS], cos[positions], sin[positions])
    theirs.begin(Batch(torch.zeros_like(slots), positions, slots, SLOTS, ROOM))
    theirs.write(0, turned[:, group * HEADS :], parts[:, (group + 1) * HEADS :])
    query = turned[:, : group * HEADS].unflatten(1, (HEADS, group))
    close(out, theirs.attend(0, query, theirs.causal_mask()[:, None, None]).flatten(1))
    close(ours.keys[0], theirs.keys[0])
    assert torch.equal(ours.values[0], theirs.values[0])


@dtypes
@kinds
@pytest.mark.parametrize("with_bias", [True, False])
@torch.inference_mode()
def test_looking_with_a_bias_by_distance_is_that_of_a_mask(dtype: torch.dtype, kind: str, with_bias: bool) -> None:
    torch.manual_seed(5)
    found, group, width, device = kernels_for(dtype, kind=kind), 3, 16, device_for(kind)
    keys, values = torch.randn(2, SLOTS, HEADS, ROOM, width).to(device, dtype)
    slots, lengths = torch.tensor([0, 1, 3, 4, 3]).to(device), torch.tensor([1, ROOM, 7, 82, 8]).to(device)
    query = torch.randn(5, HEADS * group * width).to(device, dtype)
    bias = torch.randn(HEADS * group, ROOM).to(device, dtype)
    out = found.look(query, keys, values, slots, lengths, scale=0.5, bias=bias if with_bias else None)
    distance = lengths[:, None] - 1 - torch.arange(ROOM, device=device)[None]  # [N, room]
    mask = bias[:, distance.clamp_min(0)].transpose(0, 1) * float(with_bias)
    mask = mask.float().masked_fill((distance < 0)[:, None], float("-inf")).unflatten(1, (HEADS, group))
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.float().view(5, HEADS, group, 1, width), keys[slots].float()[:, :, None],
        values[slots].float()[:, :, None], mask[:, :, :, None], scale=0.5,
    )  # fmt: skip
    close(out, expected.flatten(1).to(dtype))


@kinds
@torch.inference_mode()
def test_a_row_does_not_depend_on_its_neighbours_or_the_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, device = kernels_for(torch.float32, kind=kind), device_for(kind)
    torch.manual_seed(3)
    keys, values = torch.randn(2, SLOTS, HEADS, ROOM, 16).to(device)
    cos, sin = torch.ones(ROOM, 1, 16, device=device), torch.zeros(ROOM, 1, 16, device=device)
    projected, positions = torch.randn(SLOTS, 5 * HEADS * 16).to(device), torch.tensor([5, 39, 0, 11, 70]).to(device)
    slots = torch.arange(SLOTS, device=device)
    whole = found.attend(projected, cos, sin, keys, values, slots, positions)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for row in range(SLOTS):
        pick = slice(row, row + 1)
        alone = found.attend(projected[pick], cos, sin, keys, values, slots[pick], positions[pick])
        assert torch.equal(alone[0], whole[row])


@kinds
@torch.inference_mode()
def test_scores_far_apart_neither_overflow_nor_lose_the_best(kind: str) -> None:
    found, device = kernels_for(torch.float32, 8, 1, kind), device_for(kind)
    keys, values = torch.zeros(1, 1, ROOM, 8), torch.arange(ROOM).float()[None, None, :, None].repeat(1, 1, 1, 8)
    keys[0, 0, :ROOM, 0] = torch.linspace(-1e4, 1e4, ROOM)
    keys[0, 0, 30, 0] = 1e6
    projected = torch.zeros(1, 24)
    projected[0, 0] = 1e3
    cos, sin = torch.ones(ROOM, 1, 8), torch.zeros(ROOM, 1, 8)
    given = (projected, cos, sin, keys, values, torch.tensor([0]), torch.tensor([ROOM - 1]))
    out = found.attend(*(tensor.to(device) for tensor in given))
    assert out.tolist() == [[30.0] * 8]


@dtypes
@kinds
@torch.inference_mode()
def test_norm_and_gate_are_the_modules(dtype: torch.dtype, kind: str) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(4)
    found, device = kernels_for(dtype, kind=kind), device_for(kind)
    norm: Any = LlamaRMSNorm(48, eps=1e-5)
    norm.weight.data.uniform_(0.5, 2.0)
    norm.to(device, dtype)
    layer = types.SimpleNamespace(mlp=types.SimpleNamespace(act_fn=nn.SiLU()))
    pieces = TorchPieces(types.SimpleNamespace(base_model=types.SimpleNamespace(layers=[layer])))
    hidden, delta = (torch.randn(7, 48) * 3).to(device, dtype), torch.randn(7, 48).to(device, dtype)
    for given in (None, delta):
        expected, normed = pieces.add_norm(hidden, given, norm)
        found_hidden, found_normed = found.add_norm(hidden.clone(), given, norm)
        assert torch.equal(found_hidden, expected)
        close(found_normed, normed)
    gate_up = (torch.randn(7, 2 * 33) * 8).to(device, dtype)
    gate_up[0, :3] = torch.tensor([-100.0, 100.0, 0.0])
    close(found.gate(gate_up), pieces.gate(gate_up))


def test_rounding_to_bf16_is_torchs() -> None:
    """Ties go to even, as `gate` shows with up = 1 and a large gate, where silu is the identity."""
    found = kernels_for(torch.bfloat16)
    up = torch.tensor([1.0 + 2**-7, 1.0 + 3 * 2**-7, math.pi, 1e-30, 3e38]).bfloat16()
    gate = torch.full_like(up, 64.0)
    expected = (gate * up)[None]
    assert torch.equal(found.gate(torch.cat([gate, up])[None]), expected)


def test_what_is_not_contiguous_is_refused() -> None:
    found = kernels_for(torch.float32)
    with pytest.raises(ValueError, match="contiguous"):
        found.gate(torch.zeros(4, 8).T)


def test_without_kernels_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    native.library.cache_clear()
    monkeypatch.setenv("SELFTRAIN_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "/no/such/compiler")
    try:
        assert compiled(torch.float32, 24, 2) == (None, "kernels.c could not be compiled (FileNotFoundError)")
        monkeypatch.setenv("SELFTRAIN_NATIVE", "0")
        assert compiled(torch.float32, 40, 2) == (None, "SELFTRAIN_NATIVE=0")
        assert compiled(torch.float16, 24, 2)[0] is None and compiled(torch.float32, 24, 17)[0] is None
        assert not list(tmp_path.rglob("*.so"))
    finally:
        native.library.cache_clear()
