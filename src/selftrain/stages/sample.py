"""Sample and judge: K completions a problem, drawn (for pairs and labels) or greedy (for evaluation).

One stage serves both, since they differ in temperature, K and tolerance only. Judged at once and written in
shards, then as one completions.jsonl. Problems whose prompt is over the limit are counted and left out; completions
of a problem without a gold answer that its verifier can use are kept without verdicts.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from selftrain.errors import listed
from selftrain.judged import COMPLETIONS, is_right, num_timeouts
from selftrain.processes import ALONE, Team
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import NO_GOLD, Completion, Problem, write_jsonl
from selftrain.rundir import Figures
from selftrain.sampling.base import Generated, Request, Sampler, SamplingParams
from selftrain.sampling.units import collect, is_damaged, read_shard, shards
from selftrain.seeding import SeedPart, derive_seed
from selftrain.verify import judge

LABEL_TOLERANCE = Fraction(0)  # paper's code: labels need exact equality
EVALUATION_TOLERANCE = Fraction(1, 10_000)  # paper's code: evaluation
SHARDS = "shards"


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
    first_k: int = 0  # of each problem: draws from here on, where those before were made elsewhere


def run_sample(
    folder: Path,
    problems: Sequence[Problem],
    plan: SamplePlan,
    *,
    codec: Codec,
    prompt: Callable[[Problem], tuple[int, ...]],
    open_sampler: Callable[[], Sampler],
    progress: Progress,
    warn: Callable[[str], None],
    title: str | None = None,
    team: Team = ALONE,
) -> Figures:
    """Sample every problem, judge, and write completions.jsonl; the sampler is opened only if there is work.

    Args:
        folder: gets completions.jsonl; its finished shards, left by an earlier start, are not sampled again. They stay
            in `SHARDS`, for a caller that may be cut off after this and call again.
        warn: told of damaged shards, which are sampled again.
        title: what progress calls this work; default: the plan's stage.
        team: shares out the shards; its main process writes, and alone has figures.
    """
    prompts = {problem.id: prompt(problem) for problem in problems}
    kept = [problem for problem in problems if len(prompts[problem.id]) <= plan.max_prompt_tokens]
    kept.sort(key=lambda problem: (len(prompts[problem.id]), problem.id))
    num_there, damaged = _found_there(folder / SHARDS, len(shards(kept, plan.shard_questions)))
    progress.begin(title or plan.stage, len(kept) * plan.num_samples - num_there, "completions")
    if num_there:
        progress.say(f"  {num_there} completions are there from an earlier start")
    if damaged and team.is_main:
        warn(f"not what was written, and sampled again: {listed([f'shard {number}' for number in damaged], 5)}")
    if len(kept) < len(problems):
        progress.say(f"  {len(problems) - len(kept)} prompts are over {plan.max_prompt_tokens} tokens and are left out")
    sampler: list[Sampler] = []

    def sample(members: Sequence[Problem]) -> list[Completion]:
        if not sampler:
            sampler.append(open_sampler())
        requests = [
            Request(problem.id, k, prompts[problem.id], derive_seed(*plan.seed, problem.id, k))
            for problem in members
            for k in range(plan.first_k, plan.first_k + plan.num_samples)
        ]
        generated = sampler[0].generate(requests, plan.params, lambda _: progress.advance())
        return _judged(members, requests, generated, plan, codec)

    started = time.monotonic()
    completions = collect(folder / SHARDS, kept, plan.shard_questions, sample, team)
    if not team.is_main:
        return {}
    seconds = time.monotonic() - started
    write_jsonl(folder / COMPLETIONS, completions)
    progress.end(_found(completions))
    return {
        "problems": len(kept),
        "prompts_over_limit": len(problems) - len(kept),
        "sampling_seconds": round(seconds, 3),
        "prompt_tokens": sum(len(prompts[problem.id]) for problem in kept),
        **_counted(completions),
    }


def _counted(completions: Sequence[Completion]) -> Figures:
    return {
        "completions": len(completions),
        "generated_tokens": sum(len(c.token_ids) for c in completions),
        "forced_tokens": sum(end - start for c in completions for start, end in c.forced),
        "calls": sum(c.calls for c in completions),
        "uncalculated": sum(c.uncalculated for c in completions),
        "cut_at_limit": sum(c.stop == "length" for c in completions),
        "timeouts": num_timeouts(completions),
    }


def _found_there(folder: Path, num_shards: int) -> tuple[int, list[int]]:
    """Completions in the shards that are finished already, and the numbers of those that are damaged."""
    num_there, damaged = 0, []
    for number in range(num_shards):
        shard = read_shard(folder, number)
        num_there += len(shard or ())
        if shard is None and is_damaged(folder, number):
            damaged.append(number)
    return num_there, damaged


def _found(completions: Sequence[Completion]) -> str:
    """How many are right, of those that could be judged."""
    judged = [completion for completion in completions if completion.strict is not None]
    if completions and not judged:
        return f"{len(completions)} completions, none with a gold answer to judge by"
    right, timeouts = sum(is_right(completion) for completion in judged), num_timeouts(judged)
    late = f", {timeouts} not judged in time" if timeouts else ""
    return f"{right} of {len(judged)} right ({right / max(len(judged), 1):.1%}){late}"


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
        for completion in _with_verdicts(problem, by_problem[problem.id], plan.tolerance)
    ]


def _with_verdicts(problem: Problem, completions: list[Completion], tolerance: Fraction) -> list[Completion]:
    """The completions judged; as they are where the problem has no gold answer to judge by."""
    if problem.answer is None:
        return completions
    judged = judge(problem, completions, tolerance=tolerance)
    return completions if any(c.strict is not None and c.strict.source == NO_GOLD for c in judged) else judged
