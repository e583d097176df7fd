"""d. vLLM, run by its own environment's Python (`--vllm-python`): plain, and as our second sampler with the calculator.

Both open the engine with the same arguments (`selftrain.sampling.vllm_worker.engine_arguments`: eager and blocks of 32
tokens on a CPU, prefix caching on). Plain is what a user would write: one call, n = samples, no seed a request, so the
sampler stays on its fast path.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.systems import Answers, Generate, Setup
from benchmarks.work import Question, Task, codec_of, requests_of, sampling_params
from selftrain.sampling import vllm_worker
from selftrain.sampling.base import Request, SamplingParams
from selftrain.sampling.vllm_sampler import DTYPES, VllmSampler

SPARE_TOKENS = 8


def open_vllm(setup: Setup, task: Task, questions: Sequence[Question]) -> Generate:
    """Load vLLM's engine."""
    longest = max(len(question.prompt) for question in questions) + task.max_new_tokens + SPARE_TOKENS
    if setup.calculator:
        return _with_calculator(setup, task, questions, longest)
    return _plain(setup, task, questions, longest)


def _plain(setup: Setup, task: Task, questions: Sequence[Question], longest: int) -> Generate:
    vllm: Any = importlib.import_module("vllm")
    codec = codec_of(task)
    engine = vllm_worker.Setup(task.model, DTYPES[setup.precision], codec.style, setup.rows, longest, False, {})
    llm = vllm.LLM(**vllm_worker.engine_arguments(engine, is_cpu=setup.device == "cpu"))

    def generate(seed: int) -> Answers:
        params = vllm.SamplingParams(
            n=setup.samples, temperature=task.temperature, top_k=0, top_p=1.0, max_tokens=task.max_new_tokens,
            stop_token_ids=[codec.eos_id], detokenize=False,
        )  # fmt: skip
        prompts = [{"prompt_token_ids": list(question.prompt)} for question in questions]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return Answers([tuple(part.token_ids) for output in outputs for part in output.outputs])

    return generate


def _with_calculator(setup: Setup, task: Task, questions: Sequence[Question], longest: int) -> Generate:
    codec = codec_of(task)
    sampler = VllmSampler(
        Path(task.model), style=codec.style, precision=setup.precision, slots=setup.rows, max_model_len=longest,
        threads=setup.threads,
    )  # fmt: skip
    one_token = SamplingParams(task.temperature, 0, 1.0, 1, True)
    sampler.generate([Request("start", 0, questions[0].prompt, 0)], one_token)  # starts its process: not timed

    def generate(seed: int) -> Answers:
        requests = requests_of(questions, setup.samples, seed)
        outputs = sampler.generate(requests, sampling_params(task, True))
        found = {(r.problem_id, r.k): output for r, output in zip(requests, outputs, strict=True)}
        ordered = [found[question.id, k] for question in questions for k in range(setup.samples)]
        said = {
            "calls": sum(output.calls for output in ordered),
            "uncalculated": sum(output.uncalculated for output in ordered),
            "segments": sampler.figures["segments"],
        }
        return Answers([output.token_ids for output in ordered], said)

    return generate
