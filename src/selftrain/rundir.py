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
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain import __version__
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.identity import as_yaml, identity
from selftrain.processes import ALONE, Team

MANIFEST, STARTED = "manifest.json", "started.json"
READING = ("data", "samples")  # stages that read files, and ask no model
Figures = dict[str, Any]
Work = Callable[[Path], Figures]


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-ready value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8"))


def read_json(path: Path) -> Any:
    """The value in a JSON file; None where there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


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

    def __init__(self, path: Path, lock: int | None, config: RunConfig, team: Team) -> None:
        self.path, self._lock, self.config, self.team = path, lock, config, team

    @classmethod
    def open(cls, path: Path, config: RunConfig, team: Team = ALONE) -> RunDir:
        """Open or create the folder for this run; a team's main process opens it for all.

        Raises:
            RunError: another process works in it, or it holds a different run (the differing keys are named).
        """
        lock = None
        if team.is_main:
            path.mkdir(parents=True, exist_ok=True)
            lock = take_lock(path)
            try:
                _check_identity(path, config)
            except RunError:
                os.close(lock)
                raise
        team.wait()
        run = cls(path, lock, config, team)
        run.journal("start", version=__version__, pid=os.getpid())
        return run

    def close(self) -> None:
        """Let other processes in."""
        if self._lock is not None:
            os.close(self._lock)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def journal(self, event: str, **details: Any) -> None:
        """Append one line to journal.jsonl: what happened, when."""
        if not self.team.is_main:
            return
        line = json.dumps({"time": round(time.time(), 3), "event": event, **details}, ensure_ascii=False)
        with (self.path / "journal.jsonl").open("a", encoding="utf-8") as out:
            out.write(line + "\n")

    def finished(self, name: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> StageResult | None:
        """The stage's result if it is finished for just these inputs and settings, else None."""
        folder = self.path / name
        manifest = read_json(folder / MANIFEST)
        if manifest is None or manifest["key"] != _key(name, inputs, settings):
            return None
        if not all((folder / file).is_file() for file in manifest["outputs"] if file not in manifest["released"]):
            return None
        return StageResult(name, folder, manifest["digest"], manifest["figures"], manifest["seconds"], skipped=True)

    def stage(
        self, name: str, *, inputs: Mapping[str, str], settings: Mapping[str, Any], work: Work, together: bool = False
    ) -> StageResult:
        """Run `work(folder)` unless the stage is finished; write its manifest last.

        The stage key is the digest of name, inputs and settings. What an earlier, broken attempt with the same
        key left in the folder stays there for `work` to go on from; with another key it is removed. In a team the main
        process works, and with `together` all do; every process gets what the manifest says.
        """
        done = self.finished(name, inputs, settings)
        if not self.team.any(done is None) and done is not None:
            return done
        folder = self.path / name
        key = _key(name, inputs, settings)
        if self.team.is_main:
            _prepare(folder, key)
        self.team.wait()
        if not self.team.is_main:
            return self._stage_of_main(name, inputs, settings, work if together else None)
        self.journal("stage-start", stage=name)
        started = time.monotonic()
        before = float((read_json(folder / "spent.json") or {}).get("seconds", 0.0))
        try:
            figures = work(folder)
        except BaseException:
            write_json(folder / "spent.json", {"seconds": before + time.monotonic() - started})
            raise
        seconds = before + time.monotonic() - started
        (folder / "spent.json").unlink(missing_ok=True)
        outputs = {str(file.relative_to(folder)): file_digest(file) for file in _own_files(folder)}
        manifest: dict[str, Any] = {
            "stage": name, "key": key, "digest": digest_of(outputs), "inputs": dict(inputs),
            "settings": dict(settings), "outputs": outputs, "released": [], "figures": figures,
            "seconds": round(seconds, 3), "version": __version__,
        }  # fmt: skip
        write_json(folder / MANIFEST, manifest)
        self.journal("stage-end", stage=name, seconds=round(seconds, 3))
        self.team.wait()
        return StageResult(name, folder, manifest["digest"], figures, seconds, skipped=False)

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
        return dict(read_json(self.path / name / MANIFEST)["figures"])

    def release(self, name: str) -> None:
        """Delete a finished stage's weights; its manifest remembers that they were there."""
        folder = self.path / name
        manifest = read_json(folder / MANIFEST)
        if not self.team.is_main or manifest is None or not (folder / "model").is_dir():
            return
        manifest["released"] = [file for file in manifest["outputs"] if file.startswith("model/")]
        write_json(folder / MANIFEST, manifest)
        shutil.rmtree(folder / "model")

    def forget(self, name: str) -> None:
        """Make a stage unfinished, so that it is redone (its released weights are wanted again)."""
        self.team.wait()
        if self.team.is_main:
            (self.path / name / MANIFEST).unlink(missing_ok=True)
        self.team.wait()


def _key(name: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    return digest_of({"stage": name, "inputs": dict(inputs), "settings": dict(settings)})


def _prepare(folder: Path, key: str) -> None:
    if read_json(folder / STARTED) != {"key": key}:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / STARTED, {"key": key})


def _own_files(folder: Path) -> Iterator[Path]:
    """The files that a stage made, other than its bookkeeping."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in (MANIFEST, STARTED, "spent.json") and file.suffix != ".tmp":
            yield file


def take_lock(path: Path) -> int:
    """Hold a folder for this process; the open lock file's descriptor.

    Raises:
        RunError: another process holds it.
    """
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(lock, 64).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunError(
            f"{path} is in use by process {owner}.", "Wait for it, stop it, or choose another folder with --out."
        ) from error
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _check_identity(path: Path, config: RunConfig) -> None:
    """Refuse a folder that holds a different run; record this one in a new folder, or one without work in it."""
    mine = identity(config)
    known = read_json(path / "run.json")
    if known is None and any(entry.name != ".lock" for entry in path.iterdir()):
        raise RunError(f"{path} is not empty and holds no run.", "Choose another folder with --out.")
    theirs = {} if known is None else known["identity"]
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if known is not None and keys and holds_work(path):
        shown = ", ".join(f"{key} ({theirs.get(key)!r} there, {mine.get(key)!r} asked)" for key in keys[:8])
        raise RunError(
            f"{path} holds a different run: {shown}.", "Choose another folder with --out, or remove that one."
        )
    if keys:
        _clear(path)
        write_json(path / "run.json", {"identity": mine, "version": __version__, "created": time.time()})
    (path / "config.yaml").write_text(as_yaml(config), encoding="utf-8")


def holds_work(path: Path) -> bool:
    """Whether a run came further than reading its data, by the files that its stages left."""
    stages = [started.parent for started in path.rglob(STARTED)]
    return any(
        stage.relative_to(path).as_posix() not in READING and ((stage / MANIFEST).exists() or any(_own_files(stage)))
        for stage in stages
    )


def _clear(path: Path) -> None:
    """Remove what a run left that holds no work: data, notes, the random model that it would have started from."""
    for started in sorted(path.rglob(STARTED)):
        shutil.rmtree(started.parent, ignore_errors=True)
    shutil.rmtree(path / "base", ignore_errors=True)
    for name in ("journal.jsonl", "weights.json", "warmup-weights.json", "results.json", "report.html"):
        (path / name).unlink(missing_ok=True)
