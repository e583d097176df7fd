"""Finished stages of one run for another: taken where they are the same, instead of being computed again.

    with open_beside(siblings, path, config) as run:        # siblings: [Path("runs/study-samples/k3/seed-0")]
        run.stage(...)               # from the sibling, where it has finished a stage with that key

A stage's key names its inputs and the settings that it reads, but not what a run has one of: how prompts are written,
the precision, the data. So runs share only where their settings differ in nothing but `IN_KEYS`, which stand in the
keys (`may_share`); runs of two seeds never do.

A stage is taken whole or not at all. Every file is compared with the digest in its manifest, and the manifest is
written last. A stage whose weights were released is not whole, nor is one that another version made. Weights are linked
where the disk can: they are replaced, never changed in place. All else is copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from selftrain import __version__, durable
from selftrain.config import RunConfig
from selftrain.identity import identity
from selftrain.processes import ALONE, Team
from selftrain.rundir import RunDir
from selftrain.stagefolder import (
    MANIFEST,
    STARTED,
    file_digest,
    is_weights,
    read_manifest,
    write_json,
    write_manifest,
)

IN_KEYS = (
    "method", "sampling.", "pairs.", "labels.", "schedule.", "guard.", "evaluation.", "training.sft.", "training.dpo.",
)  # fmt: skip


def may_share(first: RunConfig, second: RunConfig) -> bool:
    """Whether a stage of two runs is the same where its key is."""
    mine, theirs = identity(first), identity(second)
    differing = (key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    return all(key.startswith(IN_KEYS) for key in differing)


class SharingRunDir(RunDir):
    """A run folder that takes finished stages from others; `siblings` are their paths, there or not."""

    siblings: Sequence[Path] = ()

    def before_stage(self, name: str, key: str) -> None:
        """A sibling's stage of the same key stands in for work."""
        if self.siblings:
            if self.team.is_main:
                self._take(name, key)
            self.team.wait()

    def _take(self, name: str, key: str) -> None:
        folder = self.path / name
        if (folder / MANIFEST).exists():  # finished already, or otherwise: that is the run's own business
            return
        for sibling in self.siblings:
            origin = os.path.relpath(sibling, self.path)
            if take_stage(sibling / name, folder, key, origin):
                self.journal("stage-end", stage=name, seconds=0.0, taken_from=origin)
                return


def open_beside(siblings: Sequence[Path], path: Path, config: RunConfig, team: Team = ALONE) -> RunDir:
    """Open or create a run folder that takes finished stages from others; they need not be there.

    Raises:
        RunError: as `RunDir.open`.
    """
    run = cast(SharingRunDir, SharingRunDir.open(path, config, team))
    run.siblings = siblings
    return run


def take_stage(source: Path, target: Path, key: str, origin: str = "") -> bool:
    """Make `target` the finished stage that `source` is, if it has this key and is whole; whether it was taken.

    `origin` goes into its manifest, as `taken_from`.

    Raises:
        RunError: it cannot be written.
    """
    manifest = read_manifest(source)
    if manifest is None or manifest["key"] != key or manifest["released"] or manifest.get("version") != __version__:
        return False
    temporary = durable.temporary_of(target)
    try:
        for file, digest in manifest["outputs"].items():
            _bring(source / file, temporary / file, link=is_weights(file))
            if file_digest(temporary / file) != digest:
                return False
        write_json(temporary / STARTED, {"key": key})
        durable.place(temporary, target)
        write_manifest(target, {**manifest, "taken_from": origin})
    except OSError:  # a file that is gone: then the stage is not whole
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _bring(source: Path, target: Path, *, link: bool) -> None:
    """Copy a file; with `link`, link it where the disk can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    bring = durable.link_or_copy if link else shutil.copyfile
    bring(source, target)
