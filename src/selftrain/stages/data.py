"""The sets of problems of a run, as files: read, filtered, checked against each other, counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.data.assemble import Assembled, CountTokens, assemble
from selftrain.data.gold import unreached_warnings
from selftrain.errors import DataError, listed
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Problem, read_jsonl, write_jsonl
from selftrain.rundir import Figures
from selftrain.stagefolder import read_json, write_json

REPORT = "report.json"
NAMES_SHOWN = 5


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
    """Write each set and report.json.

    Raises:
        DataError: a set that cannot be had, or rows over a limit that the config does not drop.
    """
    progress.begin("data")

    def count_tokens(problem: Problem) -> tuple[int, int]:
        rationale = 0 if problem.rationale is None else len(codec.target(problem.rationale))
        return len(codec.prompt(problem.question)), rationale

    found = assemble(config.data, config.seed, count_tokens)
    if config.data.over_limit == "refuse":
        check_limits(found, config, count_tokens)
    else:
        for one in _over_limit(found, config, count_tokens):
            role = f"test/{one.name}" if one.name in found.tests else one.name
            found.report["sets"][role]["over_limit"] = len(one.prompts.keys() | one.targets.keys())
    write_jsonl(folder / "train.jsonl", found.train)
    write_jsonl(folder / "unlabelled.jsonl", found.unlabelled)
    write_jsonl(folder / "validation.jsonl", found.validation)
    for name, problems in found.tests.items():
        write_jsonl(folder / f"test-{name}.jsonl", problems)
    write_json(folder / REPORT, {**found.report, "tests": list(found.tests)})
    tests = ", ".join(f"{name} {len(problems)}" for name, problems in found.tests.items())
    progress.end(f"{len(found.train)} labelled, {len(found.unlabelled)} with answers only; tests: {tests or 'none'}")
    return {
        "train": len(found.train), "unlabelled": len(found.unlabelled), "validation": len(found.validation),
        "notes": unreached_warnings(found.train),
    }  # fmt: skip


def check_limits(found: Assembled, config: RunConfig, count_tokens: CountTokens) -> None:
    """Refuse sets with prompts or labelled rationales over their limits.

    Raises:
        DataError: how many rows of each set, the first of them with their tokens, and the ways out.
    """
    lines: list[str] = []
    for one in _over_limit(found, config, count_tokens):
        lines += _list_over(f"prompts of {one.name}", one.num_rows, one.prompts, config.prompt.max_prompt_tokens)
        lines += _list_over(f"targets of {one.name}", one.num_rows, one.targets, config.training.max_target_tokens)
    if lines:
        raise DataError(
            "rows over a limit on tokens: " + "; ".join(lines) + ".",
            "Raise prompt.max_prompt_tokens or training.max_target_tokens, keep such rows out of a set (max_tokens, "
            "max_prompt_tokens), or set data.over_limit=drop to leave them out and count them.",
        )


@dataclasses.dataclass(frozen=True)
class _OverLimit:
    """The rows of a set that sampling, or SFT on gold rationales, cannot take: id -> tokens."""

    name: str
    num_rows: int
    prompts: dict[str, int]
    targets: dict[str, int]


def _over_limit(found: Assembled, config: RunConfig, count_tokens: CountTokens) -> Iterator[_OverLimit]:
    """The sets that have such rows."""
    max_prompt, max_target = config.prompt.max_prompt_tokens, config.training.max_target_tokens
    sets = {"train": found.train, "unlabelled": found.unlabelled, "validation": found.validation, **found.tests}
    for name, problems in sets.items():
        counts = {problem.id: count_tokens(problem) for problem in problems}
        prompts = {row: prompt for row, (prompt, _) in counts.items() if prompt > max_prompt}
        targets = {row: target for row, (_, target) in counts.items() if name == "train" and target > max_target}
        if prompts or targets:
            yield _OverLimit(name, len(counts), prompts, targets)


def _list_over(what: str, num_rows: int, over: dict[str, int], limit: int) -> list[str]:
    shown = listed([f"{row} ({count})" for row, count in over.items()], NAMES_SHOWN)
    return [f"{len(over)} of {num_rows} {what} have over {limit}: {shown}"] if over else []


def load_sets(folder: Path) -> Sets:
    """The sets that `run_data` wrote."""
    names = read_json(folder / REPORT)["tests"]
    return Sets(
        read_jsonl(folder / "train.jsonl", Problem),
        read_jsonl(folder / "unlabelled.jsonl", Problem),
        read_jsonl(folder / "validation.jsonl", Problem),
        {name: read_jsonl(folder / f"test-{name}.jsonl", Problem) for name in names},
    )
