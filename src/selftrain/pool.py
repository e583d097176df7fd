"""What the pair and select stages share: the pool of samples by problem, and gold rationales as completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selftrain.prompts import Codec
from selftrain.records import Completion, Problem, read_jsonl
from selftrain.similarity import Gold


def by_problem(pool: Sequence[Path], questions: Sequence[Problem]) -> dict[str, list[Completion]]:
    """problem id -> its completions, in the order of the pool's files; every question has an entry."""
    found: dict[str, list[Completion]] = {problem.id: [] for problem in questions}
    for file in pool:
        for completion in read_jsonl(file, Completion):
            if completion.problem_id in found:
                found[completion.problem_id].append(completion)
    return found


def gold_of(problem: Problem, codec: Codec) -> Gold | None:
    """The gold rationale as (token ids, text), or None where there is none."""
    if problem.rationale is None:
        return None
    return codec.target(problem.rationale), codec.written(problem.rationale)
