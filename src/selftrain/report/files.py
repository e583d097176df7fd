"""The files of a run folder, finished or not, read when asked for and kept.

    run = RunFiles(Path("runs/quickstart"))
    run.config.method, run.is_done("1-iteration/dpo"), run.completions("0-warmup/evaluate/svamp")

A stage counts only when its manifest is there, and is what was written, as when a run is resumed. What is not there is
None, an empty list or an empty dict; only a folder that holds no run at all, or a file of a finished stage that cannot
be read, is an error. What can be read and is not what was written is in `damaged`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import yaml

from selftrain.claim import CONFIG, RUN, is_config
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, RunError
from selftrain.judged import COMPLETIONS
from selftrain.recipe import config_from
from selftrain.records import Completion, Example, Pair, Problem, read_jsonl
from selftrain.stagefolder import MANIFEST, damaged_outputs, is_weights, read_manifest, read_sealed
from selftrain.training.steplog import read_steps

Json = dict[str, Any]
WEIGHTS_NOTE = "weights.json"  # of every run that got as far as its model; an archive has none


class RunFiles:
    """One run folder, read only.

    Raises:
        RunError: the folder holds no run.
        ConfigError: its config.yaml is not a configuration of this version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _config(folder)
        self._evaluations: dict[str, list[Completion] | None] = {}
        self._problems: dict[str, list[Problem]] = {}

    @functools.cached_property
    def manifests(self) -> dict[str, Json]:
        """stage -> manifest, of every finished stage, in the order in which they were finished."""
        found = {}
        for path in sorted(self.folder.rglob(MANIFEST)):
            manifest = read_manifest(path.parent)
            if manifest is not None:
                found[path.parent.relative_to(self.folder).as_posix()] = manifest
        return dict(sorted(found.items(), key=lambda item: (self._ended.get(item[0], float("inf")), item[0])))

    @functools.cached_property
    def damaged(self) -> list[tuple[str, str]]:
        """Stage and message for each file that is not what was written, but for models: no report is made of those.

        Of an archive (archive.py) the stages' files are not compared: they are made of what was written.
        """
        known = read_sealed(self.folder / RUN)
        found = []
        if known is None and (self.folder / RUN).exists():
            found.append(("start", f"{RUN} is not what was written."))
        if not is_config(self.folder, known or {}):
            found.append(("start", f"{CONFIG} is not what was written: the run may have had other settings."))
        for path in sorted(self.folder.rglob(MANIFEST)):
            stage = path.parent.relative_to(self.folder).as_posix()
            if not self.is_done(stage):
                found.append((stage, f"{MANIFEST} is not what was written: the stage counts as not finished."))
        for stage, manifest in self.manifests.items() if (self.folder / WEIGHTS_NOTE).exists() else ():
            files = [file for file in damaged_outputs(self.folder / stage, manifest) if not is_weights(file)]
            found += [
                (stage, f"{file} is gone or is not what was written: do not rely on its figures.") for file in files
            ]
        return found

    def is_done(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return stage in self.manifests

    def figures(self, stage: str) -> Json:
        """What a finished stage noted of itself; empty where it is not finished."""
        return dict(self.manifests[stage]["figures"] or {}) if self.is_done(stage) else {}

    @functools.cached_property
    def journal(self) -> list[Json]:
        """The events of journal.jsonl; a torn last line is left out."""
        path = self.folder / "journal.jsonl"
        events = []
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events

    def events(self, kind: str) -> list[Json]:
        """The journal's events of one kind, in order."""
        return [event for event in self.journal if event.get("event") == kind]

    @functools.cached_property
    def _ended(self) -> dict[str, float]:
        """stage -> place in the journal of its (last) end."""
        ends = [event.get("stage", "") for event in self.events("stage-end")]
        return {stage: float(place) for place, stage in enumerate(ends)}

    @property
    def is_finished(self) -> bool:
        """Whether every stage that the newest start asked for is done."""
        kinds = [event.get("event") for event in self.journal if event.get("event") in ("start", "end")]
        return bool(kinds) and kinds[-1] == "end"

    @functools.cached_property
    def delivered(self) -> Json | None:
        """Stage and digest of the delivered model."""
        return next(reversed(self.events("delivered")), None)

    def completions(self, stage: str) -> list[Completion] | None:
        """The judged completions of a finished sample or evaluation stage, else None."""
        path = self.folder / stage / COMPLETIONS
        return read_jsonl(path, Completion) if self.is_done(stage) and path.is_file() else None

    def evaluation(self, stage: str) -> list[Completion] | None:
        """`completions`, kept for the next question about the same evaluation."""
        if stage not in self._evaluations:
            self._evaluations[stage] = self.completions(stage)
        return self._evaluations[stage]

    def problems(self, name: str) -> list[Problem]:
        """A set of the data stage: "train", "unlabelled", "validation" or "test-NAME"."""
        if name not in self._problems:
            path = self.folder / "data" / f"{name}.jsonl"
            self._problems[name] = read_jsonl(path, Problem) if self.is_done("data") and path.is_file() else []
        return self._problems[name]

    def pairs(self, stage: str) -> list[Pair]:
        """The pairs of a finished pair stage."""
        path = self.folder / stage / "pairs.jsonl"
        return read_jsonl(path, Pair) if self.is_done(stage) and path.is_file() else []

    def examples(self, stage: str) -> list[Example]:
        """The training examples of a finished select stage."""
        path = self.folder / stage / "examples.jsonl"
        return read_jsonl(path, Example) if self.is_done(stage) and path.is_file() else []

    def steps(self, stage: str) -> list[Json]:
        """The training log of a stage, also of one that is under way; up to the first line that is not whole."""
        return read_steps(self.folder / stage / "train-log.jsonl")

    @functools.cached_property
    def test_sets(self) -> list[str]:
        """Names of the test sets; the headline comes from the first."""
        return [spec.label for spec in self.config.data.test]


def _config(folder: Path) -> RunConfig:
    try:
        tree = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(
            f"{folder}: expected a run folder, found no readable {CONFIG} there.",
            "Name the folder that `selftrain run` wrote, such as runs/quickstart.",
        ) from error
    if not isinstance(tree, dict):
        raise RunError(f"{folder / CONFIG}: expected sections, got {type(tree).__name__}.")
    try:
        return config_from(tree)
    except ConfigError as error:
        hint = error.hint or "Was the run made by another version of selftrain? Make its report with that one."
        raise ConfigError(f"{folder / CONFIG}: {error.message}", hint) from error
