"""What this machine computes with: device, precision, processor features, memory, disk.

`default_device` and `default_precision` are what `compute.device: auto` and `compute.precision: auto` mean.
bf16 is chosen only where the hardware computes in it: a processor that emulates it is slower than fp32.
torch is imported where it is needed, never at import.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import time
from pathlib import Path
from typing import Literal

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
# x86: AVX-512 or AMX dot products in bf16; Arm: the BF16 extension.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "MPS backend out of memory")  # in the words of torch's RuntimeErrors


def default_device() -> Device:
    """The device that `auto` means: cuda, then mps, then cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_precision(device: str) -> Precision:
    """The precision that `auto` means on a device: bf16 where the hardware computes in it, else fp32."""
    if device == "cuda":
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device == "cpu" and cpu_has_bf16() else "fp32"


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies in bf16. Known on Linux only; elsewhere the answer is no."""
    try:
        return cpuinfo_has_bf16(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False


def cpuinfo_has_bf16(cpuinfo: str) -> bool:
    """Whether the text of /proc/cpuinfo names a bf16 instruction set.

    >>> cpuinfo_has_bf16("flags\\t\\t: fpu avx512f avx512_bf16")
    True
    """
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features") and not _BF16_FLAGS.isdisjoint(value.split()):
            return True
    return False


def matrix_flops(device: str, precision: str, seconds: float = 0.1) -> float:
    """FLOP/s of square matrix products now, on average over some time: a shared machine is not always as fast."""
    import torch

    size = 4096 if device == "cuda" else 768
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    float(torch.mm(left, right)[0, 0])  # the first call sets things up
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not count:
        float(torch.mm(left, right)[0, 0])  # waits for the device
        count += 1
    return count * 2.0 * size**3 / passed


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: a GPU's, or main memory, which torch tells of by a RuntimeError of its allocator."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def num_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_bytes() -> int | None:
    """Main memory in bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def available_memory_bytes() -> int | None:
    """Main memory that a new allocation can have, in bytes: on Linux what the kernel says, elsewhere all there is."""
    try:
        for line in _MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return total_memory_bytes()


def free_disk_bytes(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or would hold it once it is made."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
