"""A file whose making can be cut off: it appears whole or not at all, and the same job, started again, goes on.

    out = OutFile(Path("samples.jsonl"))
    out.check_place()                          # before anything that costs time
    if out.finished(identity) is None:
        with out.open(identity) as parts:      # a folder, locked, for finished pieces of the work
            out.deliver(rows, identity, {"sets": ...})

    FILE.parts           what is finished so far; `started.json` in it says what of. Removed once FILE is there.
    FILE.manifest.json   what FILE was made from, and its digest. Written just before FILE appears.

`identity` says what a job is: flat, JSON-ready, and two starts are the same job exactly when theirs are equal. Another
job on the same file is refused, finished or half done, with the keys that differ; nothing of others is ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain import durable
from selftrain.claim import LOCK, take_lock
from selftrain.errors import RunError, listed
from selftrain.records import write_jsonl
from selftrain.stagefolder import file_digest, read_json, write_json

STARTED = "started.json"
WHOLE = "whole.jsonl"
ANOTHER = "Choose another file with --out, or remove that one."
SHOWN_DIFFERENCES = 8

Identity = Mapping[str, Any]


class OutFile:
    """A file to be made, with its parts and its manifest beside it."""

    def __init__(self, path: Path) -> None:
        if not path.name:
            raise RunError(f"Expected a file to write, got {str(path)!r}.", "Name one, such as --out samples.jsonl.")
        self.path = path
        self.parts = path.with_name(f"{path.name}.parts")
        self.manifest = path.with_name(f"{path.name}.manifest.json")

    def check_place(self) -> None:
        """See that the file can be written where it is to be.

        Raises:
            RunError: no such folder, one that cannot be written to, or something there that this didn't make.
        """
        _check_folder(self.path)
        if self.path.exists() and _identity(self.manifest) is None:
            raise RunError(f"{self.path} is there already and has no manifest {self.manifest.name} beside it.", ANOTHER)
        if self.parts.exists() and not self._parts_are_ours():
            raise RunError(f"{self.parts} is there already and holds something else.", ANOTHER)

    def finished(self, identity: Identity) -> dict[str, Any] | None:
        """The manifest of the finished file; None where the job is to be begun or gone on with.

        Raises:
            RunError: the file, or what is half done of it, belongs to another job; or it was changed afterwards.
        """
        if not self.path.exists():
            self._check_started(identity)
            return None
        _check_same(f"{self.path} is finished and was made", _identity(self.manifest), identity, ANOTHER)
        manifest: dict[str, Any] = read_json(self.manifest)
        if file_digest(self.path) != manifest.get("sha256"):
            raise RunError(f"{self.path} was changed after it was made (its digest is not the manifest's).", ANOTHER)
        self._remove_parts()
        return manifest

    @contextlib.contextmanager
    def open(self, identity: Identity) -> Iterator[Path]:
        """The folder for finished pieces, with those of an earlier start, locked for as long as this lasts.

        Raises:
            RunError: another process works on this file or has just finished it, or what is half done is another job's.
        """
        self.parts.mkdir(exist_ok=True)
        lock = take_lock(self.parts)
        try:
            if self.finished(identity) is not None:
                raise RunError(f"{self.path} was finished by another process just now.", "Run the same command again.")
            self._check_started(identity)
            if not (self.parts / STARTED).exists():
                write_json(self.parts / STARTED, {"identity": dict(identity)})
            yield self.parts
        finally:
            os.close(lock)

    def deliver(self, rows: Iterable[Any], identity: Identity, account: Mapping[str, Any]) -> None:
        """Write records as the file, with a manifest that holds `account` too; the parts are no longer needed."""
        num_rows = write_jsonl(self.parts / WHOLE, rows)
        digest = file_digest(self.parts / WHOLE)
        write_json(self.manifest, {"identity": dict(identity), "sha256": digest, "rows": num_rows, **account})
        durable.move(self.parts / WHOLE, self.path)
        self._remove_parts()

    def _check_started(self, identity: Identity) -> None:
        started = _identity(self.parts / STARTED)
        if started is not None:
            hint = f"Say the same as then to go on, choose another --out, or remove {self.parts} to begin anew."
            _check_same(f"{self.path} is half done and was begun", started, identity, hint)

    def _parts_are_ours(self) -> bool:
        if not self.parts.is_dir():
            return False
        return _identity(self.parts / STARTED) is not None or all(
            entry.name == LOCK or entry.suffix == ".tmp" for entry in self.parts.iterdir()
        )

    def _remove_parts(self) -> None:
        if self._parts_are_ours():
            shutil.rmtree(self.parts, ignore_errors=True)


def check_new(path: Path) -> None:
    """See that a file which is made in one go can be written, and that none is there.

    Raises:
        RunError: one is there, or it cannot be written.
    """
    _check_folder(path)
    if path.exists():
        raise RunError(f"{path} is there already.", ANOTHER)


def _check_folder(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise RunError(f"{path}: there is no folder {folder}.", f"Make it first: mkdir -p {folder}")
    if path.exists() and not path.is_file():
        raise RunError(f"{path}: expected a file to write, got a folder or device.", "Name a file with --out.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(
            f"{path}: nothing can be written into {folder} ({error.strerror}).", "Choose another --out."
        ) from error


def differences(there: Identity, asked: Identity) -> list[str]:
    """The keys in which two jobs differ, each with both values; digests are cut short.

    >>> differences({"seed": 1, "slots": 8}, {"seed": 2, "slots": 8})
    ['seed (1 there, 2 asked)']
    """
    keys = sorted(key for key in there.keys() | asked.keys() if there.get(key) != asked.get(key))
    return [f"{key} ({_shown(there, key)} there, {_shown(asked, key)} asked)" for key in keys]


def _shown(identity: Identity, key: str) -> str:
    if key not in identity:
        return "nothing"
    value = identity[key]
    return value[:12] if isinstance(value, str) and len(value) == 64 else repr(value)


def _check_same(what: str, there: Identity | None, asked: Identity, hint: str) -> None:
    found = differences(there or {}, asked)
    if found:
        raise RunError(f"{what} otherwise: {listed(found, SHOWN_DIFFERENCES)}.", hint)


def _identity(path: Path) -> dict[str, Any] | None:
    """The identity that a file of ours holds; None where there is no such file."""
    content = read_json(path)
    identity = content.get("identity") if isinstance(content, dict) else None
    return identity if isinstance(identity, dict) else None
