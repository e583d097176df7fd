"""C sources of ours, compiled by the system's compiler at first use, and called through ctypes.

    found, why_not = library("sampling", "kernels.c", ("WIDTH=64",))        # None where there is no compiler, and why
    found.gate_bf16(*pointers(gate_up, out), *sizes(rows, size), threads())

The library lies in selftrain's cache, under a digest of the source, the compiler and the processor; one that cannot be
loaded is compiled again. SELFTRAIN_NATIVE=0 does without.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from selftrain import durable
from selftrain.errors import RunError
from selftrain.weights import default_cache

COMPILE_S = 60.0
FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
    "-freciprocal-math", "-ffinite-math-only", "-fopenmp", "-shared", "-fPIC",
)  # fmt: skip


def pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Where the tensors' numbers are; of none, a null pointer.

    Raises:
        ValueError: one is not contiguous.
    """
    for tensor in tensors:
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"expected a contiguous tensor, got strides {tensor.stride()} of {tuple(tensor.shape)}")
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def sizes(*numbers: int) -> list[ctypes.c_int64]:
    """As the C code takes them."""
    return [ctypes.c_int64(number) for number in numbers]


def threads() -> ctypes.c_int:
    """As many as torch uses."""
    return ctypes.c_int(torch.get_num_threads())


@functools.cache
def library(package: str, name: str, defines: Sequence[str] = ()) -> tuple[ctypes.CDLL | None, str]:
    """A C source of a package of ours, compiled where it was not before; or None, and why.

    Args:
        defines: of the preprocessor, each NAME=VALUE; a tuple.
    """
    if os.environ.get("SELFTRAIN_NATIVE") == "0":
        return None, "SELFTRAIN_NATIVE=0"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None, "there is no C compiler (cc)"
    source = _read("selftrain", "numbers.h") + _read(f"selftrain.{package}", name)
    known = "\n".join([source, *FLAGS, compiler, platform.machine(), _processor(), *defines])
    target = default_cache() / "native" / f"{Path(name).stem}-{hashlib.sha256(known.encode()).hexdigest()[:16]}.so"
    try:
        if target.is_file():
            with contextlib.suppress(OSError):
                return ctypes.CDLL(str(target)), ""
        _compile(compiler, source, defines, target)
        return ctypes.CDLL(str(target)), ""
    except (OSError, subprocess.SubprocessError, RunError) as error:
        return None, f"{name} could not be compiled ({type(error).__name__})"


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="ascii")


def _compile(compiler: str, source: str, defines: Sequence[str], target: Path) -> None:
    """Compile under a temporary name, then rename: another process may do the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = durable.temporary_of(target)
    macros = [f"-D{define}" for define in defines]
    command = [*compiler.split(), *FLAGS, *macros, "-x", "c", "-", "-o", str(temporary), "-lm"]
    try:
        subprocess.run(command, input=source.encode(), capture_output=True, timeout=COMPILE_S, check=True)
        durable.place(temporary, target)
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
