"""What the benchmarks share: a results file that is gone on with, each repetition once, and how the command ends.

class Bench(BaseBench): ...                    # has run(), text() and missed()
parser = arguments_of("training", __doc__, SYSTEMS, repetitions=3, limit_s=1800)
return carry_out(lambda: Bench(options_from(arguments), start, say))
"""

from __future__ import annotations

import abc
import dataclasses
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.child import ChildError, Job, Launch
from benchmarks.results import Json, Results
from benchmarks.systems import Setup, check_names
from benchmarks.work import Portable, Say
from selftrain.errors import UserError
from selftrain.hardware import default_device, default_precision, num_cpus
from selftrain.weights import default_cache

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


def arguments_of(name: str, doc: str, systems: Iterable[str], *, repetitions: int, limit_s: int) -> ArgumentParser:
    """The command line that every benchmark has; each adds its own to it.

    Args:
        doc: of the command's module; its first line describes the command.
        repetitions, limit_s: defaults.
    """
    out = ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    add = out.add_argument
    add("--work", type=Path, help="where tasks, models and logs are kept (default: benchmarks/ in selftrain's cache)")
    add("--systems", help=f"comma-separated, of: {', '.join(systems)} (default: all that suit the machine)")
    add("--repetitions", type=int, default=repetitions, help=f"of each system (default: {repetitions})")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    add("--threads", type=int, help="CPU threads (default: all)")
    add("--out", type=Path, help=f"results file (default: benchmarks/results/{name}-DEVICE.json)")
    add("--limit-s", type=float, default=limit_s, help=f"seconds that a repetition may take (default: {limit_s})")
    add("--retry", action="store_true", help="try systems again that failed before")
    add("--check", action="store_true", help="exit with 1 and name each target that is missed")
    return out


def asked_systems(text: str | None, known: Collection[str]) -> list[str]:
    """The systems of `--systems`, in our order; none where none are named.

    Raises:
        ConfigError: one is not known.
    """
    asked = [name.strip() for name in (text or "").split(",") if name.strip()]
    check_names(asked, known)
    return [name for name in known if name in asked]


def common_options(given: Namespace, name: str) -> dict[str, Any]:
    """The fields of `BaseOptions` but for `systems`, from a command line of `arguments_of`; `--quick` where it is."""
    device = default_device() if given.device == "auto" else given.device
    quick = bool(getattr(given, "quick", False))
    return {
        "repetitions": 1 if quick else given.repetitions,
        "work": (given.work or default_cache() / "benchmarks").expanduser().resolve(),
        "out": given.out or RESULTS / f"{name}-{'quick' if quick else device}.json",
        "limit_s": given.limit_s,
        "device": device,
        "precision": default_precision(device) if given.precision == "auto" else given.precision,
        "threads": given.threads or num_cpus(),
        "quick": quick,
        "check": given.check,
        "retry": given.retry,
    }


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
