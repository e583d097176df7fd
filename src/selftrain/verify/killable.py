"""A process of ours that may be killed: it answers one JSON line with one JSON line, or is ended.

    worker = Killable([sys.executable, "-m", "selftrain.verify.worker", "5"], limit_s=5)
    worker.ask({"gold": "1/2", "text": "0.5"})     # {"outcome": "right"}; None: none within the limit

It is started by the first question, used for all that follow, and started again after it was killed. Nothing but
text goes through the pipes. It ends with its input: by `close`, by the collector, or with this process.
Leaves out: threads (one question at a time), Windows (whose pipes cannot be waited for).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any

from selftrain.errors import ConfigError

START_LIMIT_S = 120.0  # until it says that it is ready: imports, on a slow or busy machine
LAST_BYTES = 2000  # of what it wrote to stderr, in an error
_SAME_EACH_TIME = {"PYTHONHASHSEED": "0"}  # the order of sets must not change a verdict


class BrokeOff(Exception):
    """The worker ended in the middle of a question."""


class Killable:
    """A worker process that is asked one thing at a time."""

    def __init__(self, command: Sequence[str], limit_s: float) -> None:
        self._command, self._limit_s = list(command), limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes]], Killable] | None = None

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """The worker's answer; None where it gave none within the limit, which ends it.

        Raises:
            BrokeOff: it ended by itself: killed by the system, out of memory, a crash.
            ConfigError: it cannot be started.
        """
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it ended while nothing was asked
        process = self._process or self._start()
        answer = None
        try:
            _send(process, message)
            answer = _receive(process, self._limit_s)
        finally:
            if answer is None:  # also after an interrupt, lest its answer be taken for that of the next question
                self.close()
        return answer

    def close(self) -> None:
        """Kill the process if there is one; the next question starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None

    def _start(self) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **_SAME_EACH_TIME},
            )
            self._process, self._finalizer = process, weakref.finalize(self, _end, process)
            try:
                ready = _receive(process, START_LIMIT_S) is not None
            except BrokeOff:
                ready = False
            if not ready:
                self.close()
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - LAST_BYTES))
                said = errors.read().decode("utf-8", errors="replace").strip()
                raise ConfigError(f"{' '.join(self._command[1:])}: the process could not be started.", said or None)
        return process


def _send(process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
    """Write one line."""
    pipe = _open(process.stdin)
    try:
        pipe.write(json.dumps(message).encode("ascii") + b"\n")
        pipe.flush()
    except BrokenPipeError as error:
        raise BrokeOff from error


def _receive(process: subprocess.Popen[bytes], limit_s: float) -> dict[str, Any] | None:
    """Read one line within the limit; None where none comes."""
    pipe = _open(process.stdout).fileno()
    deadline = time.monotonic() + limit_s
    line = b""
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not ready.select(max(0.0, deadline - time.monotonic())):
                return None
            part = os.read(pipe, 1 << 16)
            if not part:
                raise BrokeOff
            line += part
    answer: dict[str, Any] = json.loads(line)
    return answer


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the process was started without pipes")
    return pipe


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, wait for it, close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # something was still to be written to it
            _open(pipe).close()
