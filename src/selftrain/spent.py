"""How long a stage has taken, over all attempts at it: noted while it runs, so that one that is killed counts too.

    with counted(folder / SPENT) as seconds:
        work(folder)
    seconds()                                # of this attempt and of those before

A kill costs at most `NOTE_S` of it. The note stays until whoever asked removes it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from selftrain.errors import RunError
from selftrain.stagefolder import read_json, write_json

NOTE_S = 10.0


@contextlib.contextmanager
def counted(note: Path) -> Iterator[Callable[[], float]]:
    """Count from what is noted already; what is counted is noted every `NOTE_S`, and when the work breaks off."""
    known = read_json(note)
    before = known.get("seconds", 0.0) if isinstance(known, dict) else 0.0
    started, over = time.monotonic(), threading.Event()

    def seconds() -> float:
        return float(before + time.monotonic() - started)

    def write() -> None:
        with contextlib.suppress(RunError):  # a full disk is told of by what it stops
            write_json(note, {"seconds": seconds()})

    def keep_noting() -> None:
        while not over.wait(NOTE_S):
            write()

    noting = threading.Thread(target=keep_noting, daemon=True)
    noting.start()
    try:
        yield seconds
    except BaseException:
        over.set()
        noting.join()
        write()
        raise
    over.set()
    noting.join()
