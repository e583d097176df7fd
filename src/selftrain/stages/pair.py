"""Pairs of right and wrong completions, from the pool of samples, by the rules of `pairing`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.pairing import build_pairs
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Completion, Pair, Problem, write_jsonl
from selftrain.rundir import Figures
from selftrain.stages.pool import by_problem, gold_of

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
    for problem in questions:
        found, _ = build_pairs(problem.id, gold_of(problem, codec), samples[problem.id], config.pairs, codec.eos_id)
        pairs.extend(found)
    longest = config.training.max_target_tokens
    kept = [pair for pair in pairs if max(len(pair.chosen_ids), len(pair.rejected_ids)) <= longest]
    write_jsonl(folder / PAIRS, kept)
    progress.end(f"{len(kept)} pairs of {len({pair.problem_id for pair in kept})} questions")
    return {"pairs": len(kept), "over_limit": len(pairs) - len(kept)}
