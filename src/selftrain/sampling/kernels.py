"""What lies between a decoding step's matrix products, on a CPU in C: kernels.c, compiled by the system's compiler.

    kernels, why_not = compiled(torch.bfloat16, width=64, group=3)       # None where there is no compiler, and why
    hidden, normed = kernels.add_norm(hidden, delta, layer.input_layernorm)
    out = kernels.attend(projected, cos, sin, keys, values, slots, positions)
    out = kernels.look(query, keys, values, slots, lengths, scale=1.0, bias=bias)        # T5
    inner = kernels.gate(gate_up)

torch's own operations pad every row's attention to the longest, copy what a gather names, and pass over the hidden
states a dozen times a layer (docs/log.md has the times). The library lies in selftrain's cache, under a digest of the
source, the compiler and the processor. SELFTRAIN_NATIVE=0 does without. Leaves out: prompts' attention, GPUs.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrain.weights import default_cache

MAX_GROUP = 16  # as in kernels.c
MAX_WIDTH = 512
COMPILE_S = 60.0
FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
    "-freciprocal-math", "-ffinite-math-only", "-fopenmp", "-shared", "-fPIC",
)  # fmt: skip
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
            *_pointers(projected, cos, sin, keys, values, out, slots, positions),
            *_sizes(tokens, heads, self.group, room), _threads(),
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
            *_pointers(query, keys, values, bias, out, slots, lengths),
            *_sizes(len(query), heads, self.group, room), ctypes.c_float(scale), _threads(),
        )  # fmt: skip
        if failed:
            raise MemoryError("no memory for attention scores")
        return out

    def add_norm(self, hidden: Tensor, delta: Tensor | None, norm: Any) -> tuple[Tensor, Tensor]:
        """hidden + delta, in place, and its RMS norm; both [N, D]."""
        out = torch.empty_like(hidden)
        self._add_norm(
            *_pointers(hidden, delta, norm.weight, out), *_sizes(*hidden.shape),
            ctypes.c_float(norm.variance_epsilon), _threads(),
        )  # fmt: skip
        return hidden, out

    def gate(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up of [N, 2 I], gate first: [N, I]."""
        rows, size = len(gate_up), gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, size)
        self._gate(*_pointers(gate_up, out), *_sizes(rows, size), _threads())
        return out


def compiled(dtype: torch.dtype, width: int, group: int) -> tuple[Kernels | None, str]:
    """The kernels for heads of `width` numbers, `group` query heads a key head; or None, and why."""
    if dtype not in SUFFIX or width % 2 or not 0 < width <= MAX_WIDTH or not 0 < group <= MAX_GROUP:
        return None, f"there are none for {dtype}, heads of {width}, groups of {group}"
    library, why_not = _library(width)
    return (None, why_not) if library is None else (Kernels(library, dtype, group), "")


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    for tensor in tensors:
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"expected a contiguous tensor, got strides {tensor.stride()} of {tuple(tensor.shape)}")
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def _sizes(*sizes: int) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(size) for size in sizes]


def _threads() -> ctypes.c_int:
    return ctypes.c_int(torch.get_num_threads())


@functools.cache
def _library(width: int) -> tuple[ctypes.CDLL | None, str]:
    """kernels.c for this width, compiled where it was not before; or None, and why."""
    if os.environ.get("SELFTRAIN_NATIVE") == "0":
        return None, "SELFTRAIN_NATIVE=0"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None, "there is no C compiler (cc)"
    source = resources.files("selftrain.sampling").joinpath("kernels.c").read_text(encoding="ascii")
    known = "\n".join([source, *FLAGS, compiler, platform.machine(), _processor(), str(width)])
    target = default_cache() / "native" / f"kernels-{hashlib.sha256(known.encode()).hexdigest()[:16]}.so"
    try:
        if not target.is_file():
            _compile(compiler, source, width, target)
        return ctypes.CDLL(str(target)), ""
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"kernels.c could not be compiled ({type(error).__name__})"


def _compile(compiler: str, source: str, width: int, target: Path) -> None:
    """Compile under a temporary name, then rename: another process may do the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    command = [*compiler.split(), *FLAGS, f"-DWIDTH={width}", "-x", "c", "-", "-o", str(temporary), "-lm"]
    try:
        subprocess.run(command, input=source.encode(), capture_output=True, timeout=COMPILE_S, check=True)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _processor() -> str:
    """What `-march=native` depends on, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        sorted({line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features")})
    )
