"""The run folder: which stages are finished, what they were made from, and who is writing now.

    with RunDir.open(path, config) as run:
        done = run.stage("1-iteration/pair", inputs={"samples": digest}, settings={...}, work=make_pairs)

A stage is a folder. Its manifest is written last, so a folder with a manifest is whole, and one whose
manifest names the same inputs and settings is skipped. Everything else in a run folder is made again when
in doubt. Weights that later stages no longer need are released (`release`); a stage whose weights are
wanted again is simply redone. Whose the folder is, and which run's: `claim`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain import __version__, durable
from selftrain.claim import check_identity, take_lock
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.processes import ALONE, Team
from selftrain.redaction import redacted
from selftrain.spent import counted
from selftrain.stagefolder import (
    MANIFEST,
    SPENT,
    damaged_outputs,
    differing,
    digest_of,
    file_digest,
    is_weights,
    key_of,
    own_files,
    prepare,
    read_manifest,
    write_manifest,
)  # fmt: skip

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
                noticed = check_identity(path, config)
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
