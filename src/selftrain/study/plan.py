"""What a study will take, before anything of it starts: `selftrain study NAME --plan`.

    print(study_plan(runs, folder))

Each run is planned as `selftrain plan` does it (plan/). Stages that are finished, and those that a run will take from
an earlier one (shared.py), are counted once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from selftrain.hardware import free_disk_bytes
from selftrain.plan import Plan, StagePlan, make_plan
from selftrain.plan.speed import Range, total
from selftrain.plan.text import time_span
from selftrain.report.text import clean, table
from selftrain.report.wording import flops_text, gigabytes, seconds_text
from selftrain.study.carry import begun, with_sets_that_are_there
from selftrain.study.shared import shared_stages
from selftrain.study.spec import StudyRun

HEADER = ("run", "stages", "done", "shared", "FLOPs", "time", "low to high")


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A run's plan, and the stages of it that an earlier run of the study will have done."""

    run: StudyRun
    plan: Plan
    shared: frozenset[str]

    @property
    def left(self) -> list[StagePlan]:
        """The stages that it has to do itself."""
        return [stage for stage in self.plan.stages if not stage.is_done and stage.name not in self.shared]

    @property
    def seconds(self) -> Range | None:
        """Of what is left; None where that of a stage is not known."""
        return total([stage.seconds for stage in self.left])

    @property
    def flops(self) -> Range | None:
        """Of what is left; None where they are not known."""
        return total([self.plan.flops(stage) for stage in self.left])

    def disk(self, *, after: bool) -> int | None:
        """Bytes that it takes until the last run of its seed is done, or `after` that."""
        needs = self.plan.needs
        if needs.disk is None or needs.a_model is None:
            return None
        taken = sum(name.endswith(("/sft", "/dpo")) for name in self.shared)
        return needs.disk_after if after else needs.disk - taken * needs.a_model


def plan_runs(runs: Sequence[StudyRun], missing: dict[str, str], *, measure: bool = True) -> list[RunPlan]:
    """The plan of every run; test sets that are not here are named in `missing` and left out."""
    there = [with_sets_that_are_there(run, missing) for run in runs]
    plans = []
    for number, run in enumerate(there):
        shared = frozenset[str]().union(*(shared_stages(other.config, run.config) for other in there[:number]))
        plan = make_plan(run.config, begun(run), folder=run.folder, measure=measure)
        plans.append(RunPlan(run, plan, shared))
    return plans


def study_plan(runs: Sequence[StudyRun], folder: Path, *, measure: bool = True) -> str:
    """The plan as text: a line for each run, all of them, and the disk."""
    missing: dict[str, str] = {}
    plans = plan_runs(runs, missing, measure=measure)
    notes = dict.fromkeys(note for one in plans for note in one.plan.notes)
    lines = [
        f"{folder}: {len(plans)} run{'s' * (len(plans) > 1)}; finished and shared stages are not in FLOPs and time",
        "",
        *table(HEADER, [*map(_row, plans), _total(plans)]), "", _disk(plans, folder),
        f"speed: {plans[0].plan.speed.source}",
        *(f"test set {name} is left out: {reason}" for name, reason in missing.items()),
        *(f"note: {note}" for note in notes),
        "What a run's figures rest on: selftrain plan RECIPE.",
    ]  # fmt: skip
    return "\n".join(clean(line) for line in lines)


def _row(one: RunPlan) -> list[str]:
    done = {stage.name for stage in one.plan.stages if stage.is_done}
    counts = [len(one.plan.stages), len(done), len(one.shared - done)]
    return [one.run.title, *map(str, counts), *_figures(one.flops, one.seconds)]


def _total(plans: Sequence[RunPlan]) -> list[str]:
    return ["in all", "", "", "", *_figures(total([one.flops for one in plans]), total([one.seconds for one in plans]))]


def _figures(flops: Range | None, seconds: Range | None) -> list[str]:
    work = "?" if flops is None else flops_text(flops.likely)
    return [work, "?" if seconds is None else seconds_text(seconds.likely), time_span(seconds)]


def _disk(plans: Sequence[RunPlan], folder: Path) -> str:
    """The disk at its most: weights of all runs of one seed, and what earlier seeds leave."""
    free = free_disk_bytes(folder)
    peak = after = 0
    for position in dict.fromkeys(one.run.position for one in plans):
        group = [one for one in plans if one.run.position == position]
        sizes, left = ([one.disk(after=which) for one in group] for which in (False, True))
        if None in sizes or None in left:
            return f"disk: unknown without the model; {gigabytes(free)} are free"
        peak = max(peak, after + sum(size or 0 for size in sizes))
        after += sum(size or 0 for size in left)
    short = ": NOT ENOUGH" if peak > free else ""
    return (
        f"disk: {gigabytes(peak)} at its peak, {gigabytes(after)} when all is done; {gigabytes(free)} are free{short}"
    )
