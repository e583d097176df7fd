"""The sets of problems of a run, as files: read, filtered, checked against each other, counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.data.assemble import Assembled, CountTokens, assemble
from selftrain.data.gold import unreached_warning
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
        _count_over_limit(found, config, count_tokens)
    write_jsonl(folder / "train.jsonl", found.train)
    write_jsonl(folder / "unlabelled.jsonl", found.unlabelled)
    write_jsonl(folder / "validation.jsonl", found.validation)
    for name, problems in found.tests.items():
        write_jsonl(folder / f"test-{name}.jsonl", problems)
    write_json(folder / REPORT, {**found.report, "tests": list(found.tests)})
    tests = ", ".join(f"{name} {len(problems)}" for name, problems in found.tests.items())
    progress.end(f"{len(found.train)} labelled, {len(found.unlabelled)} with answers only; tests: {tests or 'none'}")
    warning = unreached_warning(found.train)
    return {
        "train": len(found.train), "unlabelled": len(found.unlabelled), "validation": len(found.validation),
        "notes": [warning] if warning else [],
    }  # fmt: skip


def check_limits(found: Assembled, config: RunConfig, count_tokens: CountTokens) -> None:
    """Refuse sets with prompts or labelled rationales over their limits.

    Raises:
        DataError: how many rows of each set, the first of them with their tokens, and the ways out.
    """
    lines = [line for line in _over_limit(found, config, count_tokens) if line]
    if lines:
        raise DataError(
            "rows over a limit on tokens: " + "; ".join(lines) + ".",
            "Raise prompt.max_prompt_tokens or training.max_target_tokens, keep such rows out of a set (max_tokens, "
            "max_prompt_tokens), or set data.over_limit=drop to leave them out and count them.",
        )


def _count_over_limit(found: Assembled, config: RunConfig, count_tokens: CountTokens) -> None:
    """Note in each set's account how many rows sampling, or SFT on gold rationales, will leave out."""
    max_prompt, max_target = config.prompt.max_prompt_tokens, config.training.max_target_tokens
    for name, problems in _by_name(found).items():
        counts = [count_tokens(problem) for problem in problems]
        role = f"test/{name}" if name in found.tests else name
        num_over = sum(prompt > max_prompt or (name == "train" and target > max_target) for prompt, target in counts)
        if num_over:
            found.report["sets"][role]["over_limit"] = num_over


def _by_name(found: Assembled) -> dict[str, list[Problem]]:
    return {"train": found.train, "unlabelled": found.unlabelled, "validation": found.validation, **found.tests}


def _over_limit(found: Assembled, config: RunConfig, count_tokens: CountTokens) -> Iterator[str]:
    for name, problems in _by_name(found).items():
        counts = {problem.id: count_tokens(problem) for problem in problems}
        prompts = {row: prompt for row, (prompt, _) in counts.items()}
        yield _list_over(f"prompts of {name}", prompts, config.prompt.max_prompt_tokens)
        if name == "train":
            targets = {row: target for row, (_, target) in counts.items()}
            yield _list_over(f"targets of {name}", targets, config.training.max_target_tokens)


def _list_over(what: str, tokens: dict[str, int], limit: int) -> str:
    over = {row: count for row, count in tokens.items() if count > limit}
    shown = listed([f"{row} ({count})" for row, count in over.items()], NAMES_SHOWN)
    return f"{len(over)} of {len(tokens)} {what} have over {limit}: {shown}" if over else ""


def load_sets(folder: Path) -> Sets:
    """The sets that `run_data` wrote."""
    names = read_json(folder / REPORT)["tests"]
    return Sets(
        read_jsonl(folder / "train.jsonl", Problem),
        read_jsonl(folder / "unlabelled.jsonl", Problem),
        read_jsonl(folder / "validation.jsonl", Problem),
        {name: read_jsonl(folder / f"test-{name}.jsonl", Problem) for name in names},
    )
