"""The process that vLLM runs in, seen from its parent: two pipes of JSON lines, a log, and an end.

    child = Child(command, environment, log=None)
    child.send({...})
    answer = child.receive()
    child.close()

It is ended by `close`, by the collector or at exit: its input is closed, which ends it, and it is killed where it takes
longer than `PATIENCE_S`. A child that fails becomes a `VllmError` with the end of its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from selftrain.sampling.vllm_support import VllmError

LAST_LINES, LAST_BYTES = 12, 4096  # of the child's log, in an error
PATIENCE_S = 10.0  # for a child that was asked to end


class Child:
    """The child process with its two pipes and its log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> None:
        self._path = log
        self._opened = contextlib.ExitStack()
        self._log: IO[bytes] = self._opened.enter_context(log.open("ab+") if log else tempfile.TemporaryFile())  # noqa: SIM115
        self._log_start = os.fstat(self._log.fileno()).st_size
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=dict(environment),
            encoding="utf-8",
        )
        self._opened.enter_context(_open(self._process.stdout))
        self._finalizer = weakref.finalize(self, _end, self._process, self._opened)

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line."""
        pipe = _open(self._process.stdin)
        try:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> dict[str, Any]:
        """Read one line.

        Raises:
            VllmError: the child told of an error, or ended.
        """
        line = _open(self._process.stdout).readline()
        if not line.endswith("\n"):
            raise self._ended()
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise VllmError(f"vLLM failed: {message['error']}", self._last_words())
        return message

    def _ended(self) -> VllmError:
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            return VllmError("vLLM's process no longer answers.", self._last_words())
        how = f"was killed by signal {-code} (9: often for want of memory)" if code < 0 else f"ended with code {code}"
        return VllmError(f"vLLM's process {how}.", self._last_words())

    def _last_words(self) -> str:
        """The end of what the child wrote to its log."""
        size = os.fstat(self._log.fileno()).st_size
        start = max(self._log_start, size - LAST_BYTES)
        text = os.pread(self._log.fileno(), size - start, start).decode("utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
        where = f"Its log is {self._path}." if self._path else "Its last lines:" if lines else "It wrote nothing."
        return "\n".join([where, *lines])

    def close(self) -> None:
        """End the process, and wait for it."""
        self._finalizer()


def _open(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the child was started without pipes")
    return pipe


def _end(process: subprocess.Popen[str], opened: contextlib.ExitStack) -> None:
    """Close the child's input, which ends it; kill it where it doesn't end."""
    with opened:
        with contextlib.suppress(BrokenPipeError):  # it is gone already, with something still to be written to it
            _open(process.stdin).close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
