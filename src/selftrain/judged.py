"""Figures of judged completions, read back from the files of sample and evaluation stages."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from pathlib import Path

from selftrain.records import Completion, read_jsonl

COMPLETIONS = "completions.jsonl"  # what each sample and evaluation stage writes
BROUGHT = "samples"  # the stage that brings samples made elsewhere (data.samples)
STRICT, FLEXIBLE = "strict", "flexible"


def right_by_problem(completions: Sequence[Completion], extraction: str = STRICT) -> dict[str, bool]:
    """problem id -> whether its (greedy) completion is right."""
    return {c.problem_id: is_right(c, extraction) for c in completions}


def right_shares(completions: Iterable[Completion]) -> dict[str, float]:
    """problem id -> the share of its samples that is right, under the strict extraction; without a verdict none is."""
    verdicts: dict[str, list[bool]] = collections.defaultdict(list)
    for completion in completions:
        verdicts[completion.problem_id].append(is_right(completion))
    return {name: sum(right) / len(right) for name, right in verdicts.items()}


def is_right(completion: Completion, extraction: str = STRICT) -> bool:
    """Whether a judged completion is right under the strict or the flexible extraction."""
    verdict = completion.strict if extraction == STRICT else completion.flexible
    return verdict is not None and verdict.outcome == "right"


def num_timeouts(completions: Sequence[Completion]) -> int:
    """How many got no verdict in time: neither right nor wrong, so neither winner nor loser."""
    return sum(c.strict is not None and c.strict.outcome == "timeout" for c in completions)


def accuracy_of(path: Path, extraction: str = STRICT) -> float:
    """Share of right completions in a completions file."""
    completions = read_jsonl(path, Completion)
    return sum(is_right(c, extraction) for c in completions) / max(len(completions), 1)


def changed_fraction(before: Sequence[Completion], after: Sequence[Completion]) -> float | None:
    """Of the draws (problem, k) that both hold, the share whose tokens differ; None where they share none."""
    known = {(c.problem_id, c.k): c.token_ids for c in before}
    common = [(known[c.problem_id, c.k], c.token_ids) for c in after if (c.problem_id, c.k) in known]
    return sum(a != b for a, b in common) / len(common) if common else None
