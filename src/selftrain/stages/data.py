"""The sets of problems of a run, as files: read, filtered, checked against each other, counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.data.assemble import assemble
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Problem, read_jsonl, write_jsonl
from selftrain.rundir import Figures, read_json, write_json

REPORT = "report.json"


@dataclasses.dataclass(frozen=True)
class Sets:
    """What is learned from (`train`, `unlabelled`), what guards (`validation`), what judges (`tests`)."""

    train: Sequence[Problem]
    unlabelled: Sequence[Problem]
    validation: Sequence[Problem]
    tests: dict[str, list[Problem]]

    @property
    def questions(self) -> list[Problem]:
        """U: the labelled questions and the further ones."""
        return [*self.train, *self.unlabelled]


def run_data(folder: Path, config: RunConfig, codec: Codec, progress: Progress) -> Figures:
    """Write each set and report.json."""
    progress.begin("data")

    def count_tokens(problem: Problem) -> tuple[int, int]:
        rationale = 0 if problem.rationale is None else len(codec.target(problem.rationale))
        return len(codec.prompt(problem.question)), rationale

    found = assemble(config.data, config.seed, count_tokens)
    write_jsonl(folder / "train.jsonl", found.train)
    write_jsonl(folder / "unlabelled.jsonl", found.unlabelled)
    write_jsonl(folder / "validation.jsonl", found.validation)
    for name, problems in found.tests.items():
        write_jsonl(folder / f"test-{name}.jsonl", problems)
    write_json(folder / REPORT, {**found.report, "tests": list(found.tests)})
    tests = ", ".join(f"{name} {len(problems)}" for name, problems in found.tests.items())
    progress.end(f"{len(found.train)} labelled, {len(found.unlabelled)} with answers only; tests: {tests or 'none'}")
    return {"train": len(found.train), "unlabelled": len(found.unlabelled), "validation": len(found.validation)}


def load_sets(folder: Path) -> Sets:
    """The sets that `run_data` wrote."""
    names = read_json(folder / REPORT)["tests"]
    return Sets(
        read_jsonl(folder / "train.jsonl", Problem),
        read_jsonl(folder / "unlabelled.jsonl", Problem),
        read_jsonl(folder / "validation.jsonl", Problem),
        {name: read_jsonl(folder / f"test-{name}.jsonl", Problem) for name in names},
    )
