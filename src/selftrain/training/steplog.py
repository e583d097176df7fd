"""The training log: one JSON row an optimiser step, appended and flushed; cut back when a run resumes."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from selftrain import durable

Row = dict[str, Any]


class StepLog:
    """A JSONL file of step rows, opened at a step.

    Rows of later steps, and a torn last line, are cut off: they will be written again. With `writes` off it only
    remembers, for a process whose rows another one writes.
    """

    def __init__(self, path: Path, step: int, writes: bool = True) -> None:
        self.path = path
        kept = [row for row in read_steps(path) if row["step"] <= step]
        self.first: Row = kept[0] if kept else {}
        self.last: Row = kept[-1] if kept else {}
        if writes:
            durable.write(path, "".join(_line(row) for row in kept).encode("ascii"))
        self._stream = (path if writes else Path(os.devnull)).open("a", encoding="utf-8")

    def append(self, row: Row) -> None:
        """Write a row and flush it.

        Raises:
            RunError: it cannot be written.
        """
        with durable.explained(self.path):
            self._stream.write(_line(row))
            self._stream.flush()
        self.first, self.last = self.first or row, row

    def sync(self) -> None:
        """Bring the rows to disk, before a checkpoint counts on them."""
        durable.sync(self._stream, self.path)

    def close(self) -> None:
        """Close the file; a row that could not be written is lost, as `append` said."""
        with contextlib.suppress(OSError):
            self._stream.close()


def read_steps(path: Path) -> list[Row]:
    """The rows of a log, up to the first line that is not one; none if there is no file."""
    rows: list[Row] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def _line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
