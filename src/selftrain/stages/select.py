"""Examples for the SFT step: the gold rationales of L, and right, distinct completions beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.labelling import select_labels
from selftrain.pool import by_problem, gold_of, over_limit
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Completion, Example, Problem, read_jsonl, write_jsonl
from selftrain.rundir import Figures
from selftrain.similarity import Gold

EXAMPLES = "examples.jsonl"


def run_select(
    folder: Path,
    stage: str,
    labelled: Sequence[Problem],
    questions: Sequence[Problem],
    pool: Sequence[Path],
    *,
    config: RunConfig,
    codec: Codec,
    progress: Progress,
) -> Figures:
    """Write examples.jsonl: first the gold ones, then the pool's (stored token ids, never re-tokenised text)."""
    progress.begin(stage)
    samples = by_problem(pool, questions)
    golds = {problem.id: gold_of(problem, codec) for problem in questions}
    chosen, account = select_labels(
        {problem.id: (golds[problem.id], samples[problem.id]) for problem in questions},
        config.labels,
        codec.eos_id,
    )
    prompts = {problem.id: codec.prompt(problem.question) for problem in questions}
    gold = list(_gold_examples(labelled, golds, prompts))
    pseudo = [_example(completion, prompts[problem_id]) for problem_id, completion in chosen]
    prompt, target = config.prompt.max_prompt_tokens, config.training.max_target_tokens
    fits = [len(e.prompt_ids) <= prompt and len(e.target_ids) <= target for e in (*gold, *pseudo)]
    kept = [example for example, fit in zip((*gold, *pseudo), fits, strict=True) if fit]
    write_jsonl(folder / EXAMPLES, kept)
    num_gold = sum(example.origin == "gold" for example in kept)
    progress.end(f"{num_gold} gold and {len(kept) - num_gold} pseudo-labelled examples")
    return {
        **dataclasses.asdict(account),
        "gold": num_gold,
        "pseudo_labels": len(kept) - num_gold,
        **over_limit(e.problem_id for e, fit in zip((*gold, *pseudo), fits, strict=True) if not fit),
        "by_model": _by_model(kept),
    }


def read_examples(folder: Path) -> list[Example]:
    """The examples that `run_select` wrote."""
    return read_jsonl(folder / EXAMPLES, Example)


def _gold_examples(
    labelled: Sequence[Problem], golds: Mapping[str, Gold | None], prompts: Mapping[str, tuple[int, ...]]
) -> Iterator[Example]:
    for problem in labelled:
        gold = golds[problem.id]
        if gold is not None:
            yield Example(problem.id, prompts[problem.id], gold[0], "gold")


def _example(completion: Completion, prompt: tuple[int, ...]) -> Example:
    origin = f"{completion.stage}#{completion.k}"
    return Example(completion.problem_id, prompt, completion.token_ids, origin, completion.model)


def _by_model(examples: Iterable[Example]) -> dict[str, int]:
    """Pseudo-labels by the digest of the model that wrote them."""
    counts: dict[str, int] = {}
    for example in examples:
        if example.origin != "gold":
            counts[example.model] = counts.get(example.model, 0) + 1
    return counts
