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
from benchmarks.bench import RESULTS, BaseBench, BaseOptions, carry_out, say
from benchmarks.child import Job, Launch, launch
from benchmarks.pipeline_work import OURS, RIVAL, compare, iteration_task, judging
from benchmarks.systems import GPU_FACTOR, Setup, check_names, plan
from benchmarks.work import Say
from selftrain.hardware import default_device, default_precision, num_cpus
from selftrain.weights import default_cache

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
    out = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=(__doc__ or "").splitlines()[0])
    add = out.add_argument
    add("--recipe", default="quickstart", help="whose first iteration is carried out (default: quickstart)")
    add("--run", type=Path, help="a run folder instead: its configuration, and its warm-up weights where it kept them")
    add("--work", type=Path, help="where models and logs are kept (default: benchmarks/ in selftrain's cache)")
    add("--systems", help=f"comma-separated, of: {', '.join(SYSTEMS)} (default: both)")
    add("--repetitions", type=int, default=1, help="of each system (default: 1)")
    add("--rows", type=int, help=f"that the rival samples at once (default: {ROWS}, on a GPU {ROWS * GPU_FACTOR})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    add("--threads", type=int, help="CPU threads (default: all)")
    add("--out", type=Path, help="results file (default: benchmarks/results/pipeline-DEVICE.json)")
    add("--limit-s", type=float, default=14400, help="seconds that a repetition may take (default: 14400)")
    add("--retry", action="store_true", help="try the rival again if it failed before")
    add("--check", action="store_true", help="exit with 1 and name each target that is missed")
    return out


def options_from(arguments: Sequence[str] | None) -> Options:
    """Check the command line and fill in defaults.

    Raises:
        ConfigError: a system that is not known.
    """
    given = parser().parse_args(arguments)
    device = default_device() if given.device == "auto" else given.device
    asked = [name.strip() for name in (given.systems or ",".join(SYSTEMS)).split(",") if name.strip()]
    check_names(asked, SYSTEMS)
    return Options(
        recipe=given.recipe,
        run=given.run and given.run.expanduser().resolve(),
        rows=given.rows or ROWS * (GPU_FACTOR if device == "cuda" else 1),
        work=(given.work or default_cache() / "benchmarks").expanduser().resolve(),
        systems=tuple(name for name in SYSTEMS if name in asked),
        repetitions=given.repetitions,
        device=device,
        precision=default_precision(device) if given.precision == "auto" else given.precision,
        threads=given.threads or num_cpus(),
        out=given.out or RESULTS / f"pipeline-{device}.json",
        limit_s=given.limit_s,
        quick=False,
        check=given.check,
        retry=given.retry,
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
