"""What lies between a decoding step's matrix products, on a CPU in C: kernels.c, compiled by the system's compiler.

    kernels, why_not = compiled(torch.bfloat16, width=64, group=3)       # None where there is no compiler, and why
    hidden, normed = kernels.add_norm(hidden, delta, layer.input_layernorm)
    out = kernels.attend(projected, cos, sin, keys, values, slots, positions)
    out = kernels.look(query, keys, values, slots, lengths, scale=1.0, bias=bias)        # T5
    inner = kernels.gate(gate_up)

torch's own operations pad every row's attention to the longest, copy what a gather names, and pass over the hidden
states a dozen times a layer (docs/log.md has the times). Leaves out: prompts' attention, GPUs (triton_kernels.py).
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from selftrain.native import library, pointers, sizes, threads

MAX_GROUP = 16  # as in kernels.c
MAX_WIDTH = 512
SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16"}


class Kernels:
    """The compiled functions for one dtype and shape of heads; all tensors on the CPU, contiguous, of that dtype."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype, group: int) -> None:
        suffix = SUFFIX[dtype]
        self._attend, self._look = getattr(library, f"attend_{suffix}"), getattr(library, f"look_{suffix}")
        self._add_norm, self._gate = getattr(library, f"add_norm_{suffix}"), getattr(library, f"gate_{suffix}")
        self.group = group

    def attend(
        self, projected: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, slots: Tensor,
        positions: Tensor,
    ) -> Tensor:  # fmt: skip
        """Store N tokens' keys and values, then let each look at positions 0 .. its own of its slot.

        Args:
            projected: [N, (H + 2 KV) D], queries, keys and values before their rotary positions.
            cos, sin: [length, 1, D]; keys, values: [S, KV, room, D]; slots, positions: int64 [N].

        Returns:
            [N, H D].
        """
        tokens, (_, heads, room, width) = len(projected), keys.shape
        out = projected.new_empty(tokens, heads * self.group * width)
        failed = self._attend(
            *pointers(projected, cos, sin, keys, values, out, slots, positions),
            *sizes(tokens, heads, self.group, room), threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for attention scores")
        return out

    def look(
        self, query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor, *, scale: float,
        bias: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Attention of N tokens over the first so many positions of their slots, without rotary positions.

        Args:
            query: [N, H D]; keys, values: [S, KV, room, D]; slots, lengths: int64 [N], lengths from 1 to room.
            bias: [H, room], added to the scores by how far before the last position a position lies.

        Returns:
            [N, H D].
        """
        _, heads, room, _ = keys.shape
        out = torch.empty_like(query)
        failed = self._look(
            *pointers(query, keys, values, bias, out, slots, lengths),
            *sizes(len(query), heads, self.group, room), ctypes.c_float(scale), threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for attention scores")
        return out

    def add_norm(self, hidden: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """hidden + delta, in place, and its RMS norm; both [N, D]."""
        out = torch.empty_like(hidden)
        self._add_norm(
            *pointers(hidden, delta, norm.weight, out), *sizes(*hidden.shape),
            ctypes.c_float(norm.variance_epsilon), threads(),
        )  # fmt: skip
        return hidden, out

    def gate(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of [N, 2 I], gate first: [N, I]."""
        rows, size = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, size)
        self._gate(*pointers(gate_up, out), *sizes(rows, size), threads())
        return out


def compiled(dtype: torch.dtype, width: int, group: int) -> tuple[Kernels | None, str]:
    """The kernels for heads of `width` numbers, `group` query heads a key head; or None, and why."""
    if dtype not in SUFFIX or width % 2 or not 0 < width <= MAX_WIDTH or not 0 < group <= MAX_GROUP:
        return None, f"there are none for {dtype}, heads of {width}, groups of {group}"
    found, why_not = library("sampling", "kernels.c", (f"WIDTH={width}",))
    return (None, why_not) if found is None else (Kernels(found, dtype, group), "")
