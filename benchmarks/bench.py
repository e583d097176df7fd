"""What the benchmarks share: a results file that is gone on with, each repetition once, and how the command ends.

class Bench(BaseBench): ...                    # has run(), text() and missed()
return carry_out(lambda: Bench(options_from(arguments), start, say))
"""

from __future__ import annotations

import abc
import dataclasses
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.child import ChildError, Job, Launch
from benchmarks.results import Json, Results
from benchmarks.systems import Setup
from benchmarks.work import Portable, Say
from selftrain.errors import UserError

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """What every benchmark is told, with every default filled in."""

    systems: tuple[str, ...]
    repetitions: int
    work: Path
    out: Path
    limit_s: float
    device: str
    precision: str
    threads: int
    quick: bool
    check: bool
    retry: bool


class BaseBench(abc.ABC):
    """One benchmark on its way; a record that is there already is not made again."""

    results: Results

    def __init__(self, options: BaseOptions, start: Launch, say: Say, code: str) -> None:
        self.common, self.launch, self.say, self.code = options, start, say, code

    def open_results(self, tasks: Iterable[Portable], **more: Any) -> None:
        """Take the results file, of just this machine, setting and these tasks.

        Raises:
            RunError: it holds something else.
        """
        given = self.common
        setup = {
            **more, "device": given.device, "precision": given.precision, "threads": given.threads,
            "quick": given.quick, "environment": measure.environment(given.device),
        }  # fmt: skip
        self.results = Results.open(given.out, setup)
        self.results.content["code"] = self.code
        for task in tasks:
            self.results.add_task(task)

    def python_of(self, job: Job) -> str:
        """Which Python does a job."""
        return sys.executable

    def start(self, job: Job) -> Json:
        """Do a job in a process of its own."""
        return self.launch(job, self.python_of(job), self.common.work, self.common.limit_s)

    def measure_peak(self, setup: Setup) -> None:
        """Once a results file: it belongs to one machine."""
        if not self.results.content["matrix_peak"]:
            self.say("matrix peak")
            self.results.content["matrix_peak"] = self.start(Job(setup, "", "peak", 0, kind="peak"))
            self.results.save()

    def repeat(
        self,
        name: str,
        job: Job,
        *,
        rows: int | None,
        code: str | None,
        summary: Callable[[Json], Json],
        told: Callable[[Json], str],
    ) -> bool:
        """Measure a repetition unless it is there; False where the system failed.

        Args:
            rows, code: what the record is tied to; one of others is made again.
            job: its `seed` is the repetition's number.
            summary: what a child found -> the record.
            told: the record's speed, for the reader.
        """
        if dropped := self.results.drop_others(name, rows, code):
            self.say(f"{name}: {dropped} earlier records are of other code or rows, and are made again")
        if self.results.record(name, job.seed, rows, code) is not None:
            return True
        try:
            record = summary(self.start(job))
        except ChildError as error:
            self.fail(name, str(error))
            return False
        self.results.put(name, job.seed, {**record, **({} if code is None else {"code": code})})
        self.say(f"{name}, repetition {job.seed + 1}: {told(record)}")
        return True

    def fail(self, name: str, reason: str) -> None:
        """Remember, and say, that a system cannot be measured."""
        self.say(f"{name}: not measured: {reason}")
        self.results.fail(name, reason)

    @abc.abstractmethod
    def run(self) -> None:
        """Everything that is not there yet."""

    @abc.abstractmethod
    def text(self) -> str:
        """The table."""

    @abc.abstractmethod
    def missed(self) -> list[str]:
        """Each target missed, named."""


def say(message: str) -> None:
    """One line for the reader; stdout is for the table."""
    print(message, file=sys.stderr, flush=True)


def carry_out(make: Callable[[], BaseBench]) -> int:
    """The command: run, print, check. Returns its exit code."""
    try:
        bench = make()
        bench.run()
    except UserError as error:
        say(f"error: {error}")
        return 2
    print(bench.text())
    say(f"results: {bench.common.out}")
    lines = bench.missed() if bench.common.check else []
    for line in lines:
        print(f"missed: {line}")
    return 1 if lines else 0
