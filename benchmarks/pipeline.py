"""How fast a whole DPO-ST iteration is, against one put together from TRL and `generate`: one command, JSON and table.

    python -m benchmarks.pipeline --run runs/quickstart --check        # from the repository's root; an hour
    python -m benchmarks.pipeline --recipe smoke --rows 32             # a minute: shows that it works, measures nothing

README.md beside this file says what is measured, and `pipeline_rival.py` what each does. Each repetition of each
system is a process of its own (`child.py`), and what is there already is not run again. stdout gets the table, stderr
the rest. Exit code 1: `--check` found a target missed; 2: something that the user can put right.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measure, pipeline_table
from benchmarks.bench import BaseBench, BaseOptions, arguments_of, asked_systems, carry_out, common_options, say
from benchmarks.child import Job, Launch, launch
from benchmarks.pipeline_work import OURS, RIVAL, compare, iteration_task, judging
from benchmarks.systems import GPU_FACTOR, Setup, plan
from benchmarks.work import Say

SYSTEMS = (OURS, RIVAL)
ROWS = 64  # that the rival samples at once, on a CPU
CODE = (
    "calculator", "sampling", "stages", "training", "verify", "forwards.py", "labelling.py", "models.py", "pairing.py",
    "seeding.py", "similarity.py",
)  # fmt: skip  # what our own rows depend on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """What was asked for, with every default filled in."""

    recipe: str
    run: Path | None
    rows: int

    def setup(self, system: str) -> Setup:
        """Of one process."""
        return Setup(system, self.rows if system == RIVAL else 0, 1, self.device, self.precision, self.threads)


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = arguments_of("pipeline", __doc__ or "", SYSTEMS, repetitions=1, limit_s=14400)
    add = out.add_argument
    add("--recipe", default="quickstart", help="whose first iteration is carried out (default: quickstart)")
    add("--run", type=Path, help="a run folder instead: its configuration, and its warm-up weights where it kept them")
    add("--rows", type=int, help=f"that the rival samples at once (default: {ROWS}, on a GPU {ROWS * GPU_FACTOR})")
    return out


def options_from(arguments: Sequence[str] | None) -> Options:
    """Check the command line and fill in defaults.

    Raises:
        ConfigError: a system that is not known.
    """
    given = parser().parse_args(arguments)
    common = common_options(given, "pipeline")
    return Options(
        **common,
        systems=tuple(asked_systems(given.systems, SYSTEMS) or SYSTEMS),
        recipe=given.recipe,
        run=given.run and given.run.expanduser().resolve(),
        rows=given.rows or ROWS * (GPU_FACTOR if common["device"] == "cuda" else 1),
    )


class Bench(BaseBench):
    """One benchmark on its way."""

    def __init__(self, options: Options, start: Launch, say: Say) -> None:
        super().__init__(options, start, say, measure.code_digest(CODE))
        self.options = options
        compute = {"device": options.device, "precision": options.precision, "threads": options.threads}
        self.task = iteration_task(options.recipe, options.run, compute, options.work, say)
        self.file = str(self.task.save(options.work))
        self.open_results([self.task], recipe=self.task.settings().name)

    def run(self) -> None:
        """The matrix peak, every repetition that is not there yet, and the accuracies beside each other."""
        self.measure_peak(self.options.setup(OURS))
        failed = set() if self.options.retry else set(self.results.content["failures"])
        left = {name for name in self.options.systems if name == OURS or name not in failed}
        for name, repetition in plan(self.options.systems, self.options.repetitions, paired=()):
            if name in left and not self._repeat(name, repetition):
                left.remove(name)
        records = self.results.content["records"]
        self.results.content["accuracy"] = compare(records.get(OURS, {}), records.get(RIVAL, {}), judging(self.task))
        self.results.save()

    def text(self) -> str:
        """See `BaseBench`."""
        return pipeline_table.text(self.results.content, self.options.systems)

    def missed(self) -> list[str]:
        """See `BaseBench`."""
        return pipeline_table.missed(self.results.content, self.options.systems)

    def _repeat(self, name: str, repetition: int) -> bool:
        rows = self.options.rows if name == RIVAL else None
        return self.repeat(
            name,
            Job(self.options.setup(name), self.file, "whole", repetition, "iteration"),
            rows=rows,
            code=self.code if name == OURS else None,  # the rival's speed depends on no code of ours
            summary=lambda found: pipeline_table.summary(found, rows),
            told=lambda record: f"{record['seconds']:.1f} s",
        )


def main(arguments: Sequence[str] | None = None, start: Launch = launch) -> int:
    """The command; `start` runs one job."""
    return carry_out(lambda: Bench(options_from(arguments), start, say))


if __name__ == "__main__":
    sys.exit(main())
