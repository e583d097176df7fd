"""What the pair and select stages share: the pool of samples by problem, and gold rationales as completions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.prompts import Codec
from selftrain.records import Completion, Problem, read_jsonl
from selftrain.similarity import Gold

FIRST_SHOWN = 5  # problems whose rows were too long


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


def over_limit(problem_ids: Iterable[str]) -> dict[str, Any]:
    """A stage's figures on rows that it left out as too long: their number, and the problems of the first.

    >>> over_limit(["q7", "q9", "q7"])
    {'over_limit': 3, 'over_limit_first': ['q7', 'q9']}
    """
    ids = list(problem_ids)
    return {"over_limit": len(ids), "over_limit_first": list(dict.fromkeys(ids))[:FIRST_SHOWN]}


def over_limit_warning(figures: Mapping[str, Any], limit: int) -> str:
    """What to say of a stage that left rows out; empty where it left out none."""
    if not figures.get("over_limit"):
        return ""
    first = ", ".join(figures.get("over_limit_first", ()))
    return (
        f"{figures['over_limit']} rows have a prompt over its limit or more than {limit} tokens "
        f"(training.max_target_tokens) and are left out{first and f'; the first are of {first}'}"
    )
