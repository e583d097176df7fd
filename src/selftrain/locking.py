"""A lock on an open file: one process holds it, until it closes the file or ends in whatever way.

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    lock(descriptor, wait=False)                  # OSError: another process holds it
    os.close(descriptor)

Nothing stale can be left: the system gives a dead process's locks back. What the file holds stays readable for others.
"""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

PLACE = 1 << 30  # of the byte that Windows locks, which nobody else can read then: far beyond what such a file holds
LOOK_S = 0.2  # Windows does not wait by itself for longer than 10 seconds


def lock(descriptor: int, *, wait: bool) -> None:
    """Hold an open file's lock.

    Args:
        wait: until nobody else holds it.

    Raises:
        OSError: without `wait`, another process holds it; or there are no locks on this disk.
    """
    try:
        import fcntl
    except ImportError:
        _lock_on_windows(descriptor, wait)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_on_windows(descriptor: int, wait: bool) -> None:
    windows: Any = importlib.import_module("msvcrt")
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, PLACE, os.SEEK_SET)
    try:
        while True:
            try:
                windows.locking(descriptor, windows.LK_NBLCK, 1)
                return
            except PermissionError:
                if not wait:
                    raise
            time.sleep(LOOK_S)
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)
