"""Ctrl-C and SIGTERM: the first one lets an optimiser step end, with a checkpoint; a second one stops at once.

    with handled():                      # around a command, in the main thread
        with deferred():                 # a stretch that asks `requested()` itself
            ...
    exit_code()                          # 130 after Ctrl-C, 143 after SIGTERM

Outside `deferred` a signal is a KeyboardInterrupt where it arrives: sampling then loses the open shard at most.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: int | None = None  # the first signal
_deferring = 0


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Within, both signals stop the work as this module says; other threads than the main one cannot ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _received
    _received = None
    before = {number: signal.signal(number, _arrived) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within, the first signal only sets `requested`."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1


def requested() -> bool:
    """Whether a signal has arrived."""
    return _received is not None


def exit_code() -> int:
    """Of a command that was interrupted: 128 and the signal's number."""
    return 128 + (_received or signal.SIGINT)


def _arrived(number: int, frame: FrameType | None) -> None:
    global _received
    is_first = _received is None
    _received = _received or number
    if not (is_first and _deferring):
        raise KeyboardInterrupt
    os.write(2, b"\nStopping after the step at hand; the same once more stops at once.\n")
