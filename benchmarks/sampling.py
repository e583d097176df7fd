"""How fast we sample, against what a user would pick otherwise: one command, a JSON file and a table.

    python -m benchmarks.sampling --gsm8k train.jsonl --check        # from the repository's root; hours
    python -m benchmarks.sampling --quick --check                    # ours and the paper's way, minutes

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

from benchmarks import measure, table, targets
from benchmarks.bench import BaseBench, BaseOptions, arguments_of, asked_systems, carry_out, common_options, say
from benchmarks.child import ChildError, Job, Launch, launch
from benchmarks.results import summary
from benchmarks.systems import QUICK, QUICK_BATCHES, SYSTEMS, VLLM, Setup, best_of, check_names, climb, plan
from benchmarks.t5 import t5_task
from benchmarks.work import Say, Settings, Task, codec_of, main_task, smoke_task
from selftrain.errors import ConfigError
from selftrain.prompts import Codec

QUICK_PROBLEMS = 24  # x 4 samples: 96 completions
OURS = ("ours", "ours-plain", "smoke", "smoke-plain", "t5")  # rows that depend on our code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    """What was asked for, with every default filled in."""

    settings: Settings
    pairs: int
    batches: dict[str, int]
    vllm_python: str | None

    def setup(self, system: str, rows: int, samples: int) -> Setup:
        """Of one process."""
        return Setup(system, rows, samples, self.device, self.precision, self.threads)


def parser() -> argparse.ArgumentParser:
    """The options."""
    out = arguments_of("sampling", __doc__ or "", SYSTEMS, repetitions=3, limit_s=3600)
    add = out.add_argument
    add("--recipe", default="quickstart", help="whose warm-up model samples (default: quickstart)")
    add("--run", type=Path, help="a run folder of that recipe, to take the warm-up model from")
    add("--gsm8k", help="a GSM8K file (JSONL) for half of the problems; without it all are made up")
    add("--problems", type=int, help="problems (default: 256; on a GPU 512, all GSM8K)")
    add("--samples", type=int, help="completions a problem (default: 4; on a GPU 10)")
    add("--max-new-tokens", type=int, default=300, help="tokens of a completion (default: 300)")
    add("--pairs", type=int, default=5, help="of calculator on and off (default: 5)")
    add("--batch", action="append", default=[], metavar="SYSTEM=ROWS", help="rows at once, instead of a search")
    add("--vllm-python", help="the Python of an environment with vLLM")
    add("--quick", action="store_true", help="one repetition of ours and of a on 96 completions; targets less 20 %%")
    return out


def options_from(arguments: Sequence[str] | None) -> Options:
    """Check the command line and fill in defaults.

    Raises:
        ConfigError: a system that is not known, or options that do not go together.
    """
    given = parser().parse_args(arguments)
    common = common_options(given, "sampling")
    on_gpu = common["device"] == "cuda"
    problems = QUICK_PROBLEMS if given.quick else given.problems or (512 if on_gpu else 256)
    settings = Settings(
        recipe=given.recipe,
        run=given.run and given.run.expanduser().resolve(),
        work=common["work"],
        gsm8k=given.gsm8k,
        num_problems=problems,
        num_search=0 if given.quick else max(4, problems * 3 // 8),
        samples=given.samples or (10 if on_gpu else 4),
        max_new_tokens=given.max_new_tokens,
        only_gsm8k=on_gpu and given.gsm8k is not None,
    )
    batches = {name: int(rows) for name, _, rows in (text.partition("=") for text in given.batch) if rows.isdigit()}
    if len(batches) < len(given.batch):
        raise ConfigError(f"--batch: expected SYSTEM=ROWS, got {given.batch}.")
    check_names(batches, SYSTEMS)
    return Options(
        **common,
        systems=_systems(given.systems, given.quick, given.vllm_python),
        settings=settings,
        pairs=1 if given.quick else given.pairs,
        batches={**(QUICK_BATCHES if given.quick else {}), **batches},
        vllm_python=given.vllm_python,
    )


def _systems(text: str | None, quick: bool, vllm_python: str | None) -> tuple[str, ...]:
    asked = asked_systems(text, SYSTEMS)
    if not asked:
        return QUICK if quick else tuple(name for name in SYSTEMS if vllm_python or name not in VLLM)
    if set(asked) & set(VLLM) and not vllm_python:
        raise ConfigError("vLLM is asked for, and no environment of it is named.", "Give --vllm-python PATH.")
    return tuple(asked)


class Bench(BaseBench):
    """One benchmark on its way."""

    def __init__(self, options: Options, start: Launch, say: Say) -> None:
        super().__init__(options, start, say, measure.code_digest())
        self.options = options
        self.tasks = self._make_tasks()
        self.codecs: dict[str, Codec] = {name: codec_of(task) for name, task in self.tasks.items()}
        self.files = {name: str(task.save(options.settings.work)) for name, task in self.tasks.items()}
        self.open_results(self.tasks.values(), recipe=options.settings.recipe)

    def run(self) -> None:
        """Peak, batch sizes, then every repetition that is not there yet."""
        failed = set() if self.options.retry else set(self.results.content["failures"])
        names = [name for name in self.options.systems if name in OURS or name not in failed]
        self.measure_peak(self.options.setup("ours", 1, 1))
        rows = {name: found for name in names if (found := self._rows(name)) is not None}
        for name, repetition in plan(list(rows), self.options.repetitions, self.options.pairs):
            if name in rows and not self._repeat(name, repetition, rows[name]):
                del rows[name]

    def _make_tasks(self) -> dict[str, Task]:
        settings = self.options.settings
        needed = {SYSTEMS[name].task for name in self.options.systems}
        tasks: dict[str, Task] = {}
        if needed & {"main", "t5"}:
            tasks["main"] = main_task(settings, self.say)
        if "smoke" in needed:
            tasks["smoke"] = smoke_task(settings, self.say)
        if "t5" in needed:
            lengths = [len(question.prompt) for question in tasks["main"].work]
            tasks["t5"] = t5_task(settings.work, self.say, lengths)
        return tasks

    def text(self) -> str:
        """See `BaseBench`."""
        return table.text(self.results.content, self.options.systems, self.options.quick)

    def missed(self) -> list[str]:
        """See `BaseBench`."""
        return targets.missed(self.results.content, self.options.systems, self.options.quick)

    def python_of(self, job: Job) -> str:
        """vLLM has an environment of its own."""
        python = self.options.vllm_python if job.setup.system in VLLM else None
        return python or super().python_of(job)

    def _rows(self, name: str) -> int | None:
        """A system's batch size: given, that of another system, found before, or searched now."""
        system, options = SYSTEMS[name], self.options
        if name in options.batches:
            return options.batches[name]
        if system.batch_of is not None:
            return self._rows(system.batch_of)
        ladder = system.ladder(options.device)
        return ladder[0] if len(ladder) == 1 else self._known_rows(name) or self._search(name, ladder)

    def _known_rows(self, name: str) -> int | None:
        found = self.results.content["batches"].get(name)
        return None if found is None or found.get("code") != self._code(name) else int(found["rows"])

    def _search(self, name: str, ladder: Sequence[int]) -> int | None:
        task = self.tasks[SYSTEMS[name].task]
        samples = SYSTEMS[name].search_samples or task.samples
        reasons: list[str] = []

        def rate(rows: int) -> float:
            job = Job(self.options.setup(name, rows, samples), self.files[task.name], "search", 0)
            try:
                found = summary(task, self.codecs[task.name], task.search, samples, rows, self.start(job))
            except ChildError as error:
                reasons.append(str(error))
                return 0.0
            self.say(f"  {name}, {rows} rows: {found['completions_per_s']:.2f} completions/s in the search")
            return float(found["completions_per_s"])

        tried = climb(ladder, rate)
        best = best_of(tried)
        expected_s = len(task.work) * task.samples / tried[best] if tried[best] else 0.0
        if not expected_s or expected_s > self.options.limit_s:
            reason = (
                f"{tried[best]:.2f} completions/s in the search, too slow to be run whole" if expected_s else reasons[0]
            )
            self.fail(name, reason)
            return None
        self.results.content["batches"][name] = {
            "rows": best,
            "tried": tried,
            "samples": samples,
            "code": self._code(name),
        }
        self.results.save()
        return best

    def _repeat(self, name: str, repetition: int, rows: int) -> bool:
        task = self.tasks[SYSTEMS[name].task]
        return self.repeat(
            name,
            Job(self.options.setup(name, rows, task.samples), self.files[task.name], "work", repetition),
            rows=rows,
            code=self._code(name),
            summary=lambda found: summary(task, self.codecs[task.name], task.work, task.samples, rows, found),
            told=lambda record: f"{record['completions_per_s']:.2f} completions/s",
        )

    def _code(self, name: str) -> str | None:
        """What a record of ours is tied to; a rival's depends on no code of ours that changes its speed."""
        return self.code if name in OURS or name == "vllm-calculator" else None


def main(arguments: Sequence[str] | None = None, start: Launch = launch) -> int:
    """The command; `start` runs one job."""
    return carry_out(lambda: Bench(options_from(arguments), start, say))


if __name__ == "__main__":
    sys.exit(main())
