"""The run folder: which stages are finished, what they were made from, and who is writing now.

    with RunDir.open(path, config) as run:
        done = run.stage("1-iteration/pair", inputs={"samples": digest}, settings={...}, work=make_pairs)

A stage is a folder. Its manifest is written last, so a folder with a manifest is whole, and one whose
manifest names the same inputs and settings is skipped. Everything else in a run folder is made again when
in doubt. Weights that later stages no longer need are released (`release`); a stage whose weights are
wanted again is simply redone. A run that broke off before its first work (a wrong column, a template without its
slot) leaves the folder to the next one.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain import __version__, durable, locking
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.identity import as_yaml, from_yaml, identity
from selftrain.processes import ALONE, Team
from selftrain.provenance import changes, code_digests
from selftrain.redaction import redacted
from selftrain.spent import counted
from selftrain.stagefolder import (
    MANIFEST,
    SPENT,
    STARTED,
    damaged_outputs,
    differing,
    digest_of,
    file_digest,
    is_weights,
    key_of,
    own_files,
    prepare,
    read_manifest,
    read_sealed,
    write_manifest,
    write_sealed,
)  # fmt: skip

READING = ("data", "samples")  # stages that read files, and ask no model
LOCK = ".lock"
RUN, CONFIG = "run.json", "config.yaml"  # the first says what the run is, and has the second's digest
Figures = dict[str, Any]
Work = Callable[[Path], Figures]


@dataclasses.dataclass(frozen=True)
class StageResult:
    """A finished stage: its folder, the digest of what it made, its figures, and whether it ran just now."""

    name: str
    folder: Path
    digest: str
    figures: Figures
    seconds: float
    skipped: bool


class RunDir:
    """One run folder, locked while it is open. Of a team's processes only the main one writes to it."""

    def __init__(
        self, path: Path, lock: int | None, config: RunConfig, team: Team, noticed: Sequence[str] = ()
    ) -> None:
        self.path, self.lock, self.config, self.team = path, lock, config, team
        self.noticed = noticed  # when it was opened; to be warned of
        self.say: Callable[[str], None] = lambda message: None  # hears the warnings too

    @classmethod
    def open(cls, path: Path, config: RunConfig, team: Team = ALONE) -> RunDir:
        """Open or create the folder for this run; a team's main process opens it for all.

        Raises:
            RunError: another process works in it, or it holds a different run (the differing keys are named).
        """
        lock: int | None = None
        noticed: list[str] = []
        if team.is_main:
            with durable.explained(path):
                path.mkdir(parents=True, exist_ok=True)
            lock = take_lock(path)
            try:
                durable.sweep(path)
                noticed = _check_identity(path, config)
            except RunError:
                os.close(lock)
                raise
        team.wait()
        run = cls(path, lock, config, team, noticed)
        run.journal("start", version=__version__, pid=os.getpid())
        return run

    def close(self) -> None:
        """Let other processes in."""
        if self.lock is not None:
            os.close(self.lock)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def journal(self, event: str, **details: Any) -> None:
        """Append one line to journal.jsonl: what happened, when."""
        if not self.team.is_main:
            return
        line = json.dumps({"time": round(time.time(), 3), "event": event, **redacted(details)}, ensure_ascii=False)
        durable.append(self.path / "journal.jsonl", line)

    def warn(self, message: str, stage: str) -> None:
        """Say it now and keep it for the report."""
        self.say(f"warning: {message}")
        self.journal("warning", stage=stage, message=message)

    def finished(self, name: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> StageResult | None:
        """The stage's result if it is finished for just these inputs and settings, else None.

        Its files must be what was written; weights are looked at where they are loaded (`ModelStore.restore`).
        """
        folder = self.path / name
        manifest = read_manifest(folder)
        if manifest is None and (folder / MANIFEST).exists():
            self.warn(f"{MANIFEST} is not what was written; {name} is redone", name)
        if manifest is None or manifest["key"] != key_of(name, inputs, settings):
            return None
        damaged = next(damaged_outputs(folder, manifest), None)
        if damaged is not None:
            self.warn(f"{damaged} is gone or is not what was written; {name} is redone", name)
            return None
        return StageResult(name, folder, manifest["digest"], manifest["figures"], manifest["seconds"], skipped=True)

    def stage(
        self,
        name: str,
        *,
        inputs: Mapping[str, str],
        settings: Mapping[str, Any],
        work: Work,
        together: bool = False,
        scratch: Sequence[str] = (),
    ) -> StageResult:
        """Run `work(folder)` unless the stage is finished; write its manifest last.

        The stage key is the digest of name, inputs and settings. What an earlier, broken attempt with the same
        key left in the folder stays there for `work` to go on from; with another key it is removed, and what was
        finished is put aside. In a team the main process works, and with `together` all do; every process gets what the
        manifest says.

        Args:
            scratch: folders in the stage's that only a resume needs; removed once the manifest is there.
        """
        key = key_of(name, inputs, settings)
        self.before_stage(name, key)
        done = self.finished(name, inputs, settings)
        folder = self.path / name
        if not self.team.any(done is None) and done is not None:
            self._remove_scratch(folder, scratch)
            return done
        if self.team.is_main and (aside := prepare(folder, key)):
            ways = ", ".join(differing(aside, inputs, settings))
            message = f"what was finished there was made otherwise ({ways}); it is in {aside.name} now"
            self.warn(message, name)
        self.team.wait()
        if not self.team.is_main:
            return self._stage_of_main(name, inputs, settings, work if together else None)
        self.journal("stage-start", stage=name)
        with counted(folder / SPENT) as spent:
            figures = work(folder)
        seconds = spent()
        (folder / SPENT).unlink(missing_ok=True)
        outputs = {str(file.relative_to(folder)): file_digest(file) for file in own_files(folder, scratch)}
        manifest: dict[str, Any] = {
            "stage": name, "key": key, "digest": digest_of(outputs), "inputs": dict(inputs),
            "settings": dict(settings), "outputs": outputs, "released": [], "figures": figures,
            "seconds": round(seconds, 3), "version": __version__,
        }  # fmt: skip
        write_manifest(folder, manifest)
        self._remove_scratch(folder, scratch)
        self.journal("stage-end", stage=name, seconds=round(seconds, 3))
        self.team.wait()
        return StageResult(name, folder, manifest["digest"], figures, seconds, skipped=False)

    def before_stage(self, name: str, key: str) -> None:
        """What is to happen before a stage of this key is looked for; nothing here (`sharing` has something)."""

    def _remove_scratch(self, folder: Path, scratch: Sequence[str]) -> None:
        for name in scratch if self.team.is_main else ():
            durable.remove(folder / name)

    def _stage_of_main(
        self, name: str, inputs: Mapping[str, str], settings: Mapping[str, Any], work: Work | None
    ) -> StageResult:
        """Help with a stage, or wait for it, and read what the main process wrote."""
        if work is not None:
            work(self.path / name)
        self.team.wait()
        done = self.finished(name, inputs, settings)
        if done is None:
            raise RunError(f"{name}: the main process finished it, and its files cannot be seen from here.")
        return done

    def figures(self, name: str) -> Figures:
        """The figures of a finished stage."""
        manifest = read_manifest(self.path / name)
        if manifest is None:
            raise RunError(f"{self.path / name}: expected a finished stage, its {MANIFEST} is missing or damaged.")
        return dict(manifest["figures"])

    def release(self, name: str) -> None:
        """Delete a finished stage's weights; its manifest remembers that they were there."""
        folder = self.path / name
        manifest = read_manifest(folder)
        if not self.team.is_main or manifest is None or not (folder / "model").is_dir():
            return
        manifest["released"] = [file for file in manifest["outputs"] if is_weights(file)]
        write_manifest(folder, manifest)
        durable.remove(folder / "model")

    def forget(self, name: str) -> None:
        """Make a stage unfinished, so that it is redone (its released weights are wanted again)."""
        self.team.wait()
        if self.team.is_main:
            durable.remove(self.path / name / MANIFEST)
        self.team.wait()


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


def _check_identity(path: Path, config: RunConfig) -> list[str]:
    """Refuse a folder that holds a different run; record this one in a new folder, or one without work in it.

    Returns warnings: what has changed in the code since the last start there, and a damaged config.yaml.
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
