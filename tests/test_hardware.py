"""What `auto` means on a machine."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain import hardware

X86 = "processor\t: 0\nflags\t\t: fpu sse2 avx512f {}\nbugs\t\t: spectre_v1 bf16\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (X86.format("avx512_vnni"), False),
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_bf16 amx_tile"), True),
        (X86.format("avx512_bf16_not"), False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_cpuinfo_has_bf16(cpuinfo: str, expected: bool) -> None:
    assert hardware.cpuinfo_has_bf16(cpuinfo) is expected


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp32")])
def test_cpu_precision_follows_the_processor(has_bf16: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: has_bf16)
    assert hardware.default_precision("cpu") == precision
    assert hardware.default_precision("mps") == "fp32"


@pytest.mark.parametrize(("cuda", "mps", "device"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_device_order(cuda: bool, mps: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert hardware.default_device() == device
    assert bool(hardware.device_note(device)) == (device == "mps")


def test_cuda_that_only_emulates_bf16_gets_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert hardware.default_precision("cuda") == "fp32"


def test_free_disk_of_a_folder_yet_to_be_made(tmp_path: Path) -> None:
    assert hardware.free_disk_bytes(tmp_path / "not" / "there") > 0


def test_memory_and_processors() -> None:
    memory = hardware.total_memory_bytes()
    assert memory is None or memory > 1e8
    assert hardware.num_cpus() >= 1


def test_matrix_products_are_timed() -> None:
    assert 1e7 < hardware.matrix_flops("cpu", "fp32", seconds=0.01) < 1e14


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(1 << 50), lambda: mmap.mmap(-1, 1 << 50), lambda: bytearray(1 << 62)],
    ids=["torch", "mmap", "python"],
)
def test_memory_that_runs_out_is_known_whoever_asked_for_it(allocate: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, OSError, MemoryError)) as caught:
        allocate()
    assert hardware.is_out_of_memory(caught.value)
    assert hardware.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.ENOSPC, "No space"), ValueError("DefaultCPUAllocator")]
)
def test_other_errors_are_none_of_memory(error: Exception) -> None:
    assert not hardware.is_out_of_memory(error)


def test_peak_memory_begins_anew_and_holds_what_was_held_between() -> None:
    hardware.forget_peak_memory()
    before = hardware.peak_memory()["host"]
    held = bytearray(b"x") * (200 * 2**20)  # every page is written
    assert hardware.peak_memory()["host"] > before + 150 * 2**20 and len(held)
    assert "gpu" not in hardware.peak_memory()


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").hardlink_to(tmp_path / "inner" / "a")
    (tmp_path / "c").write_bytes(b"x" * 10)
    (tmp_path / "d").symlink_to(tmp_path / "c")
    assert hardware.folder_bytes(tmp_path) == 1010
