"""Pairs of right and wrong completions, from the pool of samples, by the rules of `pairing`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.pairing import PairStats, build_pairs
from selftrain.pool import by_problem, gold_of, over_limit
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Pair, Problem, write_jsonl
from selftrain.rundir import Figures

PAIRS = "pairs.jsonl"


def run_pair(
    folder: Path,
    stage: str,
    questions: Sequence[Problem],
    pool: Sequence[Path],
    *,
    config: RunConfig,
    codec: Codec,
    progress: Progress,
) -> Figures:
    """Write pairs.jsonl; the figures say how the samples fared on the way."""
    progress.begin(stage)
    samples = by_problem(pool, questions)
    pairs: list[Pair] = []
    accounts: list[PairStats] = []
    for problem in questions:
        gold = gold_of(problem, codec)
        found, account = build_pairs(problem.id, gold, samples[problem.id], config.pairs, codec.eos_id)
        pairs.extend(found)
        accounts.append(account)
    longest = config.training.max_target_tokens
    fits = [max(len(pair.chosen_ids), len(pair.rejected_ids)) <= longest for pair in pairs]
    kept = [pair for pair, fit in zip(pairs, fits, strict=True) if fit]
    write_jsonl(folder / PAIRS, kept)
    progress.end(f"{len(kept)} pairs of {len({pair.problem_id for pair in kept})} questions")
    return {
        **_summed(accounts),
        "pairs": len(kept),
        **over_limit(p.problem_id for p, fit in zip(pairs, fits, strict=True) if not fit),
    }


def _summed(accounts: Sequence[PairStats]) -> Figures:
    """The questions' accounts as one."""
    counts = [field.name for field in dataclasses.fields(PairStats) if field.name.startswith("num_")]
    return {
        "num_questions": len(accounts),
        "num_all_right": sum(account.is_all_right for account in accounts),
        "num_all_wrong": sum(account.is_all_wrong for account in accounts),
        "num_gold_winners": sum(account.gold_winner_used for account in accounts),
        **{name: sum(getattr(account, name) for account in accounts) for name in counts},
    }
