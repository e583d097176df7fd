"""The lock on a file: between processes as the system has it, and over a stand-in for Windows' module."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from selftrain import locking
from selftrain.claim import LOCK, take_lock
from selftrain.errors import RunError

HOLDER = """
import os, sys
from selftrain.locking import lock
lock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), wait=False)
print("held", flush=True)
sys.stdin.readline()
"""
Open = Callable[[], int]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens one file, once more each time."""
    made: list[int] = []

    def open_it() -> int:
        made.append(os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
        return made[-1]

    yield open_it
    for descriptor in made:
        os.close(descriptor)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """No fcntl, and an msvcrt that knows who holds which byte (of one file)."""
    held: dict[int, int] = {}

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        if held.setdefault(os.lseek(descriptor, 0, os.SEEK_CUR), descriptor) != descriptor:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    return held


def test_a_killed_process_holds_nothing(opened: Open, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(OSError):
            locking.lock(opened(), wait=False)
        holder.kill()
        locking.lock(opened(), wait=True)
    with pytest.raises(OSError):
        locking.lock(opened(), wait=False)


def test_on_windows_the_lock_is_a_byte_that_nobody_reads(windows: dict[int, int], opened: Open) -> None:
    first, second = opened(), opened()
    os.write(first, b"123")
    locking.lock(first, wait=False)
    assert windows == {locking.PLACE: first}
    assert os.lseek(first, 0, os.SEEK_CUR) == 3
    with pytest.raises(PermissionError):
        locking.lock(second, wait=False)
    assert os.read(second, 64) == b"123"


def test_on_windows_too_one_can_wait(windows: dict[int, int], opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = opened(), opened()
    locking.lock(first, wait=False)
    looked = threading.Event()
    monkeypatch.setattr(locking.time, "sleep", lambda _: (looked.set(), windows.clear()))
    locking.lock(second, wait=True)
    assert looked.is_set() and windows == {locking.PLACE: second}


def test_on_windows_too_the_holder_is_named(windows: dict[int, int], tmp_path: Path) -> None:
    descriptor = take_lock(tmp_path)
    with pytest.raises(RunError, match=f"in use by process {os.getpid()}"):
        take_lock(tmp_path)
    assert (tmp_path / LOCK).read_text() == str(os.getpid())
    os.close(descriptor)
