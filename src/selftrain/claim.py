"""Taking a run folder: one process at a time, and for one run only.

    lock = take_lock(path)                     # RunError: another process works in it
    warnings = check_identity(path, config)    # RunError: it holds another run

A folder says in `run.json` what its run is (`identity`), with the digest of its `config.yaml`. A run that broke off
before its first work (a wrong column, a template without its slot) leaves the folder to the next one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain import __version__, durable, locking
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.identity import as_yaml, from_yaml, identity
from selftrain.provenance import changes, code_digests
from selftrain.stagefolder import MANIFEST, STARTED, file_digest, own_files, read_sealed, write_sealed

READING = ("data", "samples")  # stages that read files, and ask no model
LOCK = ".lock"
RUN, CONFIG = "run.json", "config.yaml"  # the first says what the run is, and has the second's digest


def take_lock(path: Path) -> int:
    """Hold a folder for this process; the open lock file's descriptor.

    Raises:
        RunError: another process holds it, or nothing can be written there.
    """
    with durable.explained(path / LOCK):
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        locking.lock(lock, wait=False)
    except OSError as error:
        owner = os.read(lock, 64).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunError(
            f"{path} is in use by process {owner}.", "Wait for it, stop it, or choose another folder with --out."
        ) from error
    try:
        with durable.explained(path / LOCK):
            if not os.path.samestat(os.fstat(lock), os.stat(path / LOCK)):  # removed while it was waited for
                raise FileNotFoundError(errno.ENOENT, "another process has just removed the folder")
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
    except RunError:
        os.close(lock)
        raise
    return lock


def check_identity(path: Path, config: RunConfig) -> list[str]:
    """Refuse a folder that holds a different run; record this one in a new folder, or one without work in it.

    Returns:
        Warnings: what has changed in the code since the last start there, and a damaged config.yaml.

    Raises:
        RunError: the folder holds another run (the differing keys are named), or something else, or is damaged.
    """
    mine, code, text = identity(config), code_digests(), as_yaml(config).encode(errors="backslashreplace")
    known = read_sealed(path / RUN)
    if (path / RUN).exists() and not (known is not None and isinstance(known.get("identity"), dict)):
        raise RunError(f"{path / RUN} is damaged.", "Bring it back, or choose another folder with --out.")
    if known is None and any(entry.name != LOCK and not durable.is_temporary(entry) for entry in path.iterdir()):
        raise RunError(f"{path} is not empty and holds no run.", "Choose another folder with --out.")
    theirs = {} if known is None else known["identity"]
    keys = _differing_keys(path, mine, theirs)
    if known is not None and keys and holds_work(path):
        shown = ", ".join(f"{key} ({theirs.get(key)!r} there, {mine.get(key)!r} asked)" for key in keys[:8])
        raise RunError(
            f"{path} holds a different run: {shown}.", "Choose another folder with --out, or remove that one."
        )
    before: dict[str, Any] = {} if known is None or keys else known
    if keys:
        _clear(path)
    now = {
        "identity": mine, "version": __version__, "created": before.get("created", time.time()), "code": code,
        "config": hashlib.sha256(text).hexdigest(),
    }  # fmt: skip
    noticed = []
    if before.get("code") and (changed := changes(before, now)):
        noticed.append(f"the code has changed since the last start: {changed}")
    if not is_config(path, before):
        noticed.append(f"{CONFIG} is gone or is not what was written; it is written again")
    if before != now:
        write_sealed(path / RUN, now)
    durable.write(path / CONFIG, text)
    return noticed


def is_config(path: Path, run: Mapping[str, Any]) -> bool:
    """Whether a run's config.yaml is what was written, by what its run.json says; older versions said nothing."""
    if "config" not in run:
        return True
    return (path / CONFIG).is_file() and file_digest(path / CONFIG) == run["config"]


def _differing_keys(path: Path, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The keys in which two runs differ; a setting that an older version did not have counts as its default there."""
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if all(key in theirs for key in keys):
        return keys
    try:
        completed = identity(from_yaml((path / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return keys
    return [key for key in keys if key in theirs or key not in completed or completed[key] != mine.get(key)]


def holds_work(path: Path) -> bool:
    """Whether a run came further than reading its data, by the files that its stages left."""
    stages = [started.parent for started in path.rglob(STARTED)]
    return any(
        stage.relative_to(path).as_posix() not in READING and ((stage / MANIFEST).exists() or any(own_files(stage)))
        for stage in stages
    )


def _clear(path: Path) -> None:
    """Remove what a run left that holds no work: data, notes, the random model that it would have started from."""
    for started in sorted(path.rglob(STARTED)):
        shutil.rmtree(started.parent, ignore_errors=True)
    shutil.rmtree(path / "base", ignore_errors=True)
    for name in ("journal.jsonl", "weights.json", "warmup-weights.json", "results.json", "report.html"):
        (path / name).unlink(missing_ok=True)
