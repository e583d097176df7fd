"""What this machine computes with: device, precision, processor features, memory, disk.

`default_device` and `default_precision` are what `compute.device: auto` and `compute.precision: auto` mean.
bf16 is chosen only where the hardware computes in it: a processor that emulates it is slower than fp32.
torch is imported where it is needed, never at import.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import Any, Literal

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# x86: AVX-512 or AMX dot products in bf16; Arm: the BF16 extension.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "MPS backend out of memory")  # in the words of torch's RuntimeErrors


def default_device() -> Device:
    """The device that `auto` means: cuda, then mps, then cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def has_gpu() -> bool:
    """Whether a CUDA device can be used here."""
    import torch

    return bool(torch.cuda.is_available())


def device_note(device: str) -> str:
    """What a user should know of a device before a run; nothing for those that runs were measured on."""
    return "mps: never measured here; compute.device=cpu takes the processor instead." if device == "mps" else ""


def device_memory_bytes(device: str) -> int | None:
    """Memory that a run can have at most: of the CPU what is available, of a GPU all; None where not known."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None
    return available_memory_bytes() if device == "cpu" else None


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
    available = _told(_MEMINFO, "MemAvailable")
    return total_memory_bytes() if available is None else available


def resident_bytes() -> int | None:
    """Main memory that this process holds now; None where the system does not tell."""
    return _told(_STATUS, "VmRSS")


def _told(file: Path, name: str) -> int | None:
    """A size in one of the kernel's files, in bytes; None where there is none."""
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def forget_peak_memory() -> None:
    """Let the peaks of `peak_memory` begin anew from what is held now, where the system can do that."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5", encoding="ascii")
    if torch := _torch_on_gpu():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """The most bytes that this process held: `host` of main memory, `gpu` of tensors there; nothing where not known."""
    found = {}
    if (host := _peak_host_bytes()) is not None:
        found["host"] = host
    if torch := _torch_on_gpu():
        found["gpu"] = int(torch.cuda.max_memory_allocated())
    return found


def _peak_host_bytes() -> int | None:
    peak = _told(_STATUS, "VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _torch_on_gpu() -> Any:
    """torch, where this process has begun to use a GPU; never begins with it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; of several names of one file it is counted once."""
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state = path.lstat()
            if stat.S_ISREG(state.st_mode):
                sizes[state.st_dev, state.st_ino] = state.st_size
    return sum(sizes.values())


def free_disk_bytes(path: Path) -> int:
    """Free bytes on the disk that holds `path`, or would hold it once it is made."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
