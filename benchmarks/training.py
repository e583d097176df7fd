"""How fast we train, against TRL: one command, a JSON file and a table.

    python -m benchmarks.training --run runs/quickstart --check          # from the repository's root; an hour
    python -m benchmarks.training --run runs/quickstart --quick --check  # one repetition, under 6 minutes

README.md beside this file says what is measured. Each repetition of each system is a process of its own (`child.py`),
systems take turns, and what is there already is not run again. stdout gets the table, stderr the rest. Exit code 1:
`--check` found a target missed; 2: something that the user can put right.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import measure, targets, training_table
from benchmarks.bench import BaseBench, BaseOptions, arguments_of, asked_systems, carry_out, common_options, say
from benchmarks.child import Job, Launch, launch
from benchmarks.systems import Setup, plan
from benchmarks.training_rivals import TRAINERS
from benchmarks.training_work import tasks_of
from benchmarks.work import Say

CODE = ("training", "forwards.py", "models.py", "seeding.py")  # what our own rows depend on
BUDGET_TOKENS, QUICK_BUDGET_TOKENS = 10_000, 1_500  # at 110 to 140 tokens/s: 70 to 90 s, and 10 to 15 s
QUICK = ("dpo", "dpo-trl", "single", "single-trl", "sft", "sft-trl", "sft-trl-packed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """What was asked for, with every default filled in."""

    run: Path
    model: Path | None
    budget_tokens: int

    def setup(self, system: str) -> Setup:
        """Of one process."""
        return Setup(system, 0, 1, self.device, self.precision, self.threads)


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = arguments_of("training", __doc__ or "", TRAINERS, repetitions=3, limit_s=1800)
    add = out.add_argument
    add(
        "--run",
        type=Path,
        required=True,
        help="the folder of a finished run, such as quickstart's: its pairs, its rows",
    )
    add("--model", type=Path, help="weights to start from (default: the run's warm-up model, else its delivered one)")
    add("--budget-tokens", type=int, help=f"how much is trained, as tokens of plain rows (default: {BUDGET_TOKENS})")
    add("--quick", action="store_true", help="one short repetition; targets less 20 %%")
    return out


def options_from(arguments: Sequence[str] | None) -> Options:
    """Check the command line and fill in defaults.

    Raises:
        ConfigError: a system that is not known.
    """
    given = parser().parse_args(arguments)
    common = common_options(given, "training")
    usual = [name for name, trainer in TRAINERS.items() if common["device"] == "cuda" or not trainer.compiled]
    asked = asked_systems(given.systems, TRAINERS) or (QUICK if given.quick else usual)
    return Options(
        **common,
        systems=tuple(asked),
        run=given.run.expanduser().resolve(),
        model=given.model and given.model.expanduser().resolve(),
        budget_tokens=given.budget_tokens or (QUICK_BUDGET_TOKENS if given.quick else BUDGET_TOKENS),
    )


class Bench(BaseBench):
    """One benchmark on its way."""

    def __init__(self, options: Options, start: Launch, say: Say) -> None:
        super().__init__(options, start, say, measure.code_digest(CODE))
        self.options = options
        names = dict.fromkeys(TRAINERS[name].task for name in options.systems)
        tasks = tasks_of(options.run, options.model, list(names), options.budget_tokens, say)
        self.files = {name: str(task.save(options.work)) for name, task in tasks.items()}
        self.open_results(tasks.values())

    def run(self) -> None:
        """The matrix peak, then every repetition that is not there yet."""
        self.measure_peak(self.options.setup("dpo"))
        failed = set() if self.options.retry else set(self.results.content["failures"])
        left = {name for name in self.options.systems if TRAINERS[name].layout or name not in failed}
        for name, repetition in plan(self.options.systems, self.options.repetitions, paired=()):
            if name in left and not self._repeat(name, repetition):
                left.remove(name)

    def text(self) -> str:
        """See `BaseBench`."""
        return training_table.text(self.results.content, self.options.systems, self.options.quick)

    def missed(self) -> list[str]:
        """See `BaseBench`."""
        given = (self.results.content, self.options.systems, self.options.quick, training_table.TARGETS)
        return targets.missed(*given)

    def _repeat(self, name: str, repetition: int) -> bool:
        trainer = TRAINERS[name]
        field = training_table.SPEED[trainer.task]
        return self.repeat(
            name,
            Job(self.options.setup(name), self.files[trainer.task], "train", repetition, "train"),
            rows=None,
            code=self.code if trainer.layout else None,  # a rival's speed depends on no code of ours
            summary=training_table.summary,
            told=lambda record: f"{record[field]:.4g} {field.replace('_per_', '/')}",
        )


def main(arguments: Sequence[str] | None = None, start: Launch = launch) -> int:
    """The command; `start` runs one job."""
    return carry_out(lambda: Bench(options_from(arguments), start, say))


if __name__ == "__main__":
    sys.exit(main())
