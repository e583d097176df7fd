"""The runs of a study, one after the other, each carried out or gone on with as `selftrain run` does it.

    carry_out(runs_of(study, folder), progress)

Runs of one seed share the stages that are the same (sharing.py). So that their weights are there to be taken, such runs
keep all of them until the last one of that seed is done; then each releases what its own `checkpoints.keep` lets go. A
test set whose file or package is missing is named and left out, and the rest goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from selftrain import api
from selftrain.config import DataSpec, RunConfig
from selftrain.data.available import check_available
from selftrain.errors import UserError
from selftrain.identity import identity
from selftrain.processes import join
from selftrain.progress import Progress, Silent
from selftrain.report.files import RunFiles
from selftrain.sharing import may_share
from selftrain.stagefolder import MANIFEST
from selftrain.study.spec import StudyRun


def carry_out(runs: Sequence[StudyRun], progress: Progress) -> None:
    """Do every run that is not done.

    Raises:
        UserError: a run cannot be carried out; what is done stays, and the next call goes on.
    """
    missing: dict[str, str] = {}
    there = [with_sets_that_are_there(run, missing) for run in runs]
    for name, reason in missing.items():
        progress.say(f"test set {name} is left out: {reason}")
    for number, run in enumerate(there, start=1):
        siblings = [other.folder for other in there if other is not run and may_share(other.config, run.config)]
        if _main_says(finished_config(run) is None):
            progress.say(f"run {number} of {len(there)}: {run.title}")
            config = keeping_weights(run.config) if siblings else run.config
            api.run(config, out=run.folder, progress=progress, siblings=siblings)
        if number == len(there) or there[number].position != run.position:
            _release([other for other in there if other.position == run.position])


def _release(runs: Sequence[StudyRun]) -> None:
    """Let finished runs go through once more with what they are to keep; nothing is computed."""
    for run in runs:
        done = finished_config(run)
        if _main_says(done is not None and done.checkpoints != run.config.checkpoints):
            api.run(run.config, out=run.folder, progress=Silent())


def _main_says(flag: bool) -> bool:
    """The main process's answer, in every process of a team: files may change while the others look."""
    team = join()
    return team.any(flag and team.is_main)


def begun(run: StudyRun) -> RunFiles | None:
    """The run's files, if it is this one that is in its folder; else None."""
    try:
        there = RunFiles(run.folder)
    except UserError:  # none there, or one that cannot be read: carrying it out says so
        return None
    return there if identity(there.config) == identity(run.config) else None


def finished_config(run: StudyRun) -> RunConfig | None:
    """The configuration of the finished run in the folder, if it is this one; else None."""
    there = begun(run)
    same = there is not None and there.config.baselines == run.config.baselines and there.is_finished
    return there.config if there is not None and same else None


def keeping_weights(config: RunConfig) -> RunConfig:
    """The same run, with the weights of every stage kept."""
    return config.model_copy(update={"checkpoints": config.checkpoints.model_copy(update={"keep": "all"})})


def with_sets_that_are_there(run: StudyRun, missing: dict[str, str]) -> StudyRun:
    """The run without the test sets that it cannot have; their names and why go into `missing`.

    A run that has read its data keeps the sets that it read. As it is where no set can be read, or the training data
    cannot: such a run says itself what is wrong.
    """
    specs = run.config.data.test
    if (run.folder / "data" / MANIFEST).is_file():
        begun_with = RunFiles(run.folder).test_sets
        lost = {spec.label: f"{run.title} was begun without it" for spec in specs if spec.label not in begun_with}
    else:
        lost = {spec.label: reason for spec in specs if (reason := _why_missing(run.config, spec))}
    if len(lost) == len(specs):
        return run
    missing.update(lost)
    kept = [spec for spec in specs if spec.label not in lost]
    data = run.config.data.model_copy(update={"test": kept})
    return dataclasses.replace(run, config=run.config.model_copy(update={"data": data}))


def _why_missing(config: RunConfig, test: DataSpec) -> str:
    """Why a test set cannot be read; empty where it can."""
    try:
        check_available(config.data.model_copy(update={"test": [test]}))
    except UserError as error:
        return error.message
    return ""
