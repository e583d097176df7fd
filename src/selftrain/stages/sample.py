"""Sample and judge: K completions a problem, drawn (for pairs and labels) or greedy (for evaluation).

One stage serves both, since they differ in temperature, K and tolerance only. Judged at once and written in
shards, then as one completions.jsonl. Problems whose prompt is over the limit are counted and left out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from selftrain.judged import COMPLETIONS
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Completion, Problem, write_jsonl
from selftrain.rundir import Figures
from selftrain.sampling.base import Generated, Request, Sampler, SamplingParams
from selftrain.sampling.units import collect
from selftrain.seeding import SeedPart, derive_seed
from selftrain.verify.numeric import judge

LABEL_TOLERANCE = Fraction(0)  # paper's code: labels need exact equality
EVALUATION_TOLERANCE = Fraction(1, 10_000)  # paper's code: evaluation


@dataclasses.dataclass(frozen=True)
class SamplePlan:
    """What to sample: how many a problem, how, from which streams, and how it is judged and named."""

    num_samples: int
    params: SamplingParams
    seed: tuple[SeedPart, ...]
    shard_questions: int
    max_prompt_tokens: int
    tolerance: Fraction
    stage: str
    model_digest: str


def run_sample(
    folder: Path,
    problems: Sequence[Problem],
    plan: SamplePlan,
    *,
    codec: Codec,
    prompt: Callable[[Problem], tuple[int, ...]],
    open_sampler: Callable[[], Sampler],
    progress: Progress,
) -> Figures:
    """Sample every problem, judge, and write completions.jsonl; the sampler is opened only if there is work."""
    prompts = {problem.id: prompt(problem) for problem in problems}
    kept = [problem for problem in problems if len(prompts[problem.id]) <= plan.max_prompt_tokens]
    kept.sort(key=lambda problem: (len(prompts[problem.id]), problem.id))
    progress.begin(plan.stage, len(kept) * plan.num_samples, "completions")
    if len(kept) < len(problems):
        progress.say(f"  {len(problems) - len(kept)} prompts are over {plan.max_prompt_tokens} tokens and are left out")
    sampler: list[Sampler] = []

    def sample(members: Sequence[Problem]) -> list[Completion]:
        if not sampler:
            sampler.append(open_sampler())
        requests = [
            Request(problem.id, k, prompts[problem.id], derive_seed(*plan.seed, problem.id, k))
            for problem in members
            for k in range(plan.num_samples)
        ]
        generated = sampler[0].generate(requests, plan.params, lambda _: progress.advance())
        return _judged(members, requests, generated, plan, codec)

    started = time.monotonic()
    completions = collect(folder / "shards", kept, plan.shard_questions, sample)
    seconds = time.monotonic() - started
    write_jsonl(folder / COMPLETIONS, completions)
    _remove_shards(folder / "shards")
    right = sum(c.strict is not None and c.strict.outcome == "right" for c in completions)
    progress.end(f"{right} of {len(completions)} right ({right / max(len(completions), 1):.1%})")
    return {
        "problems": len(kept),
        "prompts_over_limit": len(problems) - len(kept),
        "completions": len(completions),
        "sampling_seconds": round(seconds, 3),
        "prompt_tokens": sum(len(prompts[problem.id]) for problem in kept),
        "generated_tokens": sum(len(c.token_ids) for c in completions),
        "forced_tokens": sum(end - start for c in completions for start, end in c.forced),
        "calls": sum(c.calls for c in completions),
        "uncalculated": sum(c.uncalculated for c in completions),
        "cut_at_limit": sum(c.stop == "length" for c in completions),
    }


def _judged(
    members: Sequence[Problem],
    requests: Sequence[Request],
    generated: Sequence[Generated],
    plan: SamplePlan,
    codec: Codec,
) -> list[Completion]:
    by_problem: dict[str, list[Completion]] = {problem.id: [] for problem in members}
    for request, output in zip(requests, generated, strict=True):
        by_problem[request.problem_id].append(
            Completion(
                problem_id=request.problem_id,
                k=request.k,
                token_ids=output.token_ids,
                text=codec.text(output.token_ids),
                stop=output.stop,
                forced=output.forced,
                calls=output.calls,
                uncalculated=output.uncalculated,
                model=plan.model_digest,
                stage=plan.stage,
            )
        )
    return [
        completion
        for problem in members
        for completion in judge(problem, by_problem[problem.id], tolerance=plan.tolerance)
    ]


def _remove_shards(folder: Path) -> None:
    """The shards are in completions.jsonl now."""
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
