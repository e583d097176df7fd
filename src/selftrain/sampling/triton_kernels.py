"""What lies between a decoding step's matrix products, on an NVIDIA GPU in Triton: the counterpart of kernels.py.

    kernels, why_not = triton_kernels(torch.bfloat16, width=64, group=3)     # None without Triton, and why
    out = kernels.attend(projected, cos, sin, keys, values, slots, positions)

Each token's attention reads its own slot as far as its own position, not as far as the longest row's, and a layer is
eight launches instead of some thirty. Prompts go through the same kernels, as forced runs. Triton comes with torch's
CUDA builds on Linux. SELFTRAIN_NATIVE=0 does without.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

MAX_GROUP, MAX_WIDTH = 16, 256
KEYS = 64  # positions that attention reads at once
GATE = 1024  # numbers of a row that one program of `gate` does


class TritonKernels:
    """The functions of `kernels.Kernels` for one shape of heads; all tensors on one GPU, contiguous, of one dtype."""

    def __init__(self, group: int) -> None:
        from selftrain.sampling import triton_source

        self.group = group
        self.source: Any = triton_source

    def attend(
        self, projected: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, slots: Tensor,
        positions: Tensor,
    ) -> Tensor:  # fmt: skip
        """See `kernels.Kernels.attend`."""
        tokens, (_, heads, room, width) = len(projected), keys.shape
        query = projected.new_empty(tokens, heads * self.group * width)
        self.source.turn_and_store[tokens, (self.group + 2) * heads](
            projected, cos, sin, query, keys, values, slots, positions, room,
            HEADS=heads, GROUP=self.group, WIDTH=width, BLOCK=_power(width), num_warps=1,
        )  # fmt: skip
        return self._look(query, keys, values, slots, positions, width**-0.5, None, extra=1)

    def look(
        self, query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, *, scale: float,
        bias: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """See `kernels.Kernels.look`."""
        return self._look(query, keys, values, slots, lengths, scale, bias, extra=0)

    def add_norm(self, hidden: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """See `kernels.Kernels.add_norm`."""
        normed, size = torch.empty_like(hidden), hidden.shape[1]
        self.source.add_norm[len(hidden),](
            hidden, delta, norm.weight, normed, size, norm.variance_epsilon,
            HAS_DELTA=delta is not None, BLOCK=_power(size),
        )  # fmt: skip
        return hidden, normed

    def gate(self, gate_up: Tensor) -> Tensor:
        """See `kernels.Kernels.gate`."""
        rows, size = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, size)
        self.source.gate[rows, -(-size // GATE)](gate_up, out, size, BLOCK=GATE)
        return out

    def _look(
        self, query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, scale: float,
        bias: Tensor | None, extra: int,
    ) -> Tensor:  # fmt: skip
        _, heads, room, width = keys.shape
        out = torch.empty_like(query)
        self.source.look[len(query), heads](
            query, keys, values, bias, out, slots, lengths, room, scale,
            EXTRA=extra, HEADS=heads, GROUP=self.group, WIDTH=width, HAS_BIAS=bias is not None,
            ROWS=16, BLOCK_D=max(16, _power(width)), BLOCK=KEYS,
            PRECISION="ieee" if query.dtype == torch.float32 else "tf32", num_warps=2,
        )  # fmt: skip
        return out


def triton_kernels(dtype: torch.dtype, width: int, group: int) -> tuple[TritonKernels | None, str]:
    """The kernels for heads of `width` numbers, `group` query heads a key head; or None, and why."""
    if (
        dtype not in (torch.float32, torch.bfloat16, torch.float16)
        or width % 2
        or width > MAX_WIDTH
        or group > MAX_GROUP
    ):
        return None, f"there are none for {dtype}, heads of {width}, groups of {group}"
    if os.environ.get("SELFTRAIN_NATIVE") == "0":
        return None, "SELFTRAIN_NATIVE=0"
    if importlib.util.find_spec("triton") is None:
        return None, "Triton is not installed"
    return TritonKernels(group), ""


def _power(size: int) -> int:
    """The next power of two."""
    return 1 << max(0, size - 1).bit_length()
