"""vLLM as a `Sampler`: what users of models above 1 B parameters on GPUs expect.

    with VllmSampler(folder, style="angle", precision="bf16", slots=256, max_model_len=556) as sampler:
        outputs = sampler.generate(requests, params)

vLLM runs in a child process (`vllm_worker`), started by the first `generate` and ended by `close`, by the collector or
at exit: only the end of its process gives its memory back, and a sampling stage must leave the device free for
training. The child ends when its pipe does and, on Linux, with the thread that started it, so no engine outlives us.

What it draws depends on the requests alone as far as vLLM allows: with the same seed another batch, or another state
of its prefix cache, can turn a near-tie: it promises less than our engine does (`base`).

Leaves out: encoder-decoder models, which vLLM has none of. `vllm_support` says beforehand what is refused.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from selftrain.calculator.annotation import Style
from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.sampling.base import Generated, OnFinished, Request, SamplingParams
from selftrain.sampling.vllm_child import Child
from selftrain.sampling.vllm_support import check_arguments, check_installed, fitting_length
from selftrain.sampling.vllm_worker import Setup

COMMAND = (sys.executable, "-m", "selftrain.sampling.vllm_worker")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
MIN_TEMPERATURE = 0.01  # vLLM raises a lower one to this
MIN_CACHED = 0.8  # of what the prefix cache could have of resumed prompts, in whole blocks; below: say it

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in-process: dies with the child
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",  # the model is a local folder
}
_DEFAULTS = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_LOGGING_LEVEL": "WARNING"}  # GiB; else it takes most of the memory


class VllmSampler:
    """A `Sampler` in a child process.

    Args:
        model: a transformers folder, tokenizer included.
        style: writing of annotations.
        precision: "fp32" or "bf16".
        slots: rows drawn at once (vLLM's max_num_seqs); "auto" leaves it to vLLM.
        max_model_len: tokens of the longest prompt and its completion together.
        arguments: further arguments of vLLM's `LLM`.
        trust_remote_code: as in `compute.trust_remote_code`.
        threads: CPU threads; None: all.
        log: file that vLLM's own messages are added to; None: kept for an error's message only.
        say: hears what a user should know.
        command: starts the child, where vLLM is in another environment; None: this Python.
    """

    def __init__(
        self,
        model: Path,
        *,
        style: Style,
        precision: str,
        slots: int | Literal["auto"],
        max_model_len: int,
        arguments: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
        threads: int | None = None,
        log: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        command: Sequence[str] | None = None,
    ) -> None:
        check_arguments(arguments or {})
        self.setup = Setup(
            str(model), DTYPES[precision], style, slots, max_model_len, trust_remote_code, dict(arguments or {})
        )
        self.figures = {"segments": 0, "reusable": 0, "cached": 0, "dropped": 0}
        self.version = ""
        self._threads, self._log, self._say, self._command = threads, log, say, command
        self._child: Child | None = None

    def generate(
        self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
    ) -> list[Generated]:
        """See `base.Sampler`.

        Raises:
            ConfigError: a prompt that leaves no room, or a temperature that vLLM would change.
            VllmError: it could not start, or ended.
        """
        if not requests:
            return []
        self._check(requests, params)
        try:
            child = self._child or self._start()
            prompts = [[request.seed, list(request.prompt_ids)] for request in requests]
            child.send({"params": dataclasses.asdict(params), "requests": prompts})
            return self._collect(child, len(requests), on_finished)
        except BaseException:
            self.close()  # whatever it was in the middle of
            raise

    def _check(self, requests: Sequence[Request], params: SamplingParams) -> None:
        longest = max(len(request.prompt_ids) for request in requests)
        if longest + params.max_new_tokens > self.setup.max_model_len:
            raise ConfigError(
                f"Expected prompt and completion to fit {self.setup.max_model_len} positions, got a prompt of "
                f"{longest} tokens and {params.max_new_tokens} new ones.",
                "Lower sampling.max_new_tokens or prompt.max_prompt_tokens.",
            )
        if 0 < params.temperature < MIN_TEMPERATURE:
            raise ConfigError(
                f"Expected a temperature of 0 or of at least {MIN_TEMPERATURE}, got {params.temperature}.",
                "vLLM takes no lower one; set sampling.backend to engine.",
            )

    def _start(self) -> Child:
        if self._command is None:
            check_installed()
        give_back_cached_memory()
        child = self._child = Child(self._command or COMMAND, child_environment(os.environ, self._threads), self._log)
        child.send(dataclasses.asdict(self.setup))
        self.version = str(child.receive()["ready"])
        return child

    def _collect(self, child: Child, num: int, on_finished: OnFinished | None) -> list[Generated]:
        results: dict[int, Generated] = {}
        while "end" not in (message := child.receive()):
            generated = results[message.pop("index")] = _generated(message)
            if on_finished is not None:
                on_finished(generated)
        self._note(message["end"])
        return [results[index] for index in range(num)]

    def _note(self, figures: Mapping[str, int]) -> None:
        """Add a call's figures; say once where the prefix cache is of little use."""
        was_low = self._has_low_cache()
        for name, value in figures.items():
            self.figures[name] += value
        if self._has_low_cache() and not was_low:
            self._say(
                f"vLLM kept only {self.figures['cached'] / self.figures['reusable']:.0%} of what it computed for the "
                "rows that it goes on with: its prefix cache is off, or too small for sampling.slots"
            )

    def _has_low_cache(self) -> bool:
        return self.figures["cached"] < MIN_CACHED * self.figures["reusable"]

    def close(self) -> None:
        """End the child; a later `generate` starts another."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_sampler(
    config: RunConfig,
    model: Path,
    style: Style,
    precision: str,
    num_tokens: int,
    log: Path,
    say: Callable[[str], None],
) -> VllmSampler:
    """The sampler that a run's configuration asks for, of the model in a folder.

    Args:
        num_tokens: of the longest prompt and its completion; fewer where the model has no more positions.
    """
    trust = config.compute.trust_remote_code
    return VllmSampler(
        model,
        style=style,
        precision=precision,
        slots=config.sampling.slots,
        max_model_len=fitting_length(model, num_tokens, trust),
        arguments=config.sampling.vllm,
        trust_remote_code=trust,
        threads=config.compute.threads,
        log=log,
        say=say,
    )


def _generated(message: Mapping[str, Any]) -> Generated:
    forced = tuple((start, end) for start, end in message["forced"])
    return Generated(tuple(message["token_ids"]), message["stop"], forced, message["calls"], message["uncalculated"])


def child_environment(ours: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """The child's environment: ours, with what vLLM must see before it is imported."""
    own_threads = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return {**_DEFAULTS, **ours, **_ENVIRONMENT, **own_threads}


def give_back_cached_memory() -> None:
    """Let go of GPU memory that this process's torch keeps for later: vLLM measures what is free when it starts."""
    torch: Any = sys.modules.get("torch")
    gc.collect()
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
