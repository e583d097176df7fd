"""The child process of `vllm_sampler`, and the only place that imports vllm: one engine, asked over pipes.

    python -m selftrain.sampling.vllm_worker

It reads JSON lines from standard input, a `Setup` first, then one line a call: {"params": {...}, "requests":
[[seed, [ids]], ...]}. It answers with JSON lines: {"ready": version}, for each finished completion {"index", ... the
fields of `Generated`}, and {"end": figures}; {"error": text} before it ends with an error. Everything else that is
printed in this process, vLLM's own talk above all, goes to standard error. When standard input ends, it ends.

One in-process `LLM`, prompts as ids, n = 1, no logits processor: the calculator works by segments (`segments`).
Nothing is left to a default that a model's generation_config.json could fill: temperature, top-k, top-p and the
tokens to stop at are given with each request.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from selftrain.calculator.annotation import Style
from selftrain.calculator.forcing import Forcer, ForcingTables, build_tables
from selftrain.calculator.stops import stop_token_ids
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.segments import Segment, SegmentedRow, run_segments

WINDOW = 1.1  # requests handed over, for each row that vLLM draws at a time; ray.data.llm's figure
CPU_BLOCK_TOKENS = 32  # vLLM's own 128 on CPUs would reuse nothing of prompts and answers of our size
PR_SET_PDEATHSIG = 1

Say = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """The engine to open; fields as in `vllm_sampler.VllmSampler`."""

    model: str
    dtype: str
    style: Style
    slots: int | Literal["auto"]
    max_model_len: int
    trust_remote_code: bool
    arguments: Mapping[str, Any]


def engine_arguments(setup: Setup, *, is_cpu: bool) -> dict[str, Any]:
    """What `vllm.LLM` is opened with; the user's own arguments come last."""
    on_cpu = {"block_size": CPU_BLOCK_TOKENS, "enforce_eager": True} if is_cpu else {}
    slots = {} if setup.slots == "auto" else {"max_num_seqs": setup.slots}
    return {
        "model": setup.model,
        "tokenizer": setup.model,
        "dtype": setup.dtype,
        "seed": 0,
        "max_model_len": setup.max_model_len,
        "trust_remote_code": setup.trust_remote_code,
        "generation_config": "vllm",  # the model's own is not read
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        **slots,
        **on_cpu,
        **setup.arguments,
    }


def drawing(params: SamplingParams, segment: Segment, stop_ids: Sequence[int]) -> dict[str, Any]:
    """A segment's `vllm.SamplingParams`, in full: the end token is one of `stop_ids`, and no other token ends it."""
    return {
        "n": 1,
        "temperature": params.temperature,
        "top_k": params.top_k,
        "top_p": params.top_p,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": segment.seed,
        "max_tokens": segment.max_tokens,
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,
        "detokenize": False,
    }


class VllmBackend:
    """`segments.SegmentBackend` over one in-process `vllm.LLM`."""

    def __init__(self, setup: Setup) -> None:
        import vllm
        from vllm.platforms import current_platform

        self.version = str(vllm.__version__)
        self.num_segments = self.num_reusable_tokens = self.num_cached_tokens = 0
        self._vllm: Any = vllm
        self._llm: Any = vllm.LLM(**engine_arguments(setup, is_cpu=current_platform.is_cpu()))
        settled = self._llm.llm_engine.vllm_config
        self.window = math.ceil(WINDOW * settled.scheduler_config.max_num_seqs)
        self._block_tokens = int(settled.cache_config.block_size)
        self._params: SamplingParams | None = None
        self._stop_ids: Sequence[int] = ()
        self._added: list[tuple[int, Segment]] = []
        self._running: dict[str, tuple[int, Segment]] = {}
        self._computed: dict[int, int] = {}  # key -> tokens whose keys and values its last segment left

    @property
    def counts(self) -> dict[str, int]:
        """Segments so far, and tokens of resumed ones that the prefix cache could have had, and had."""
        return {
            "segments": self.num_segments, "reusable": self.num_reusable_tokens, "cached": self.num_cached_tokens
        }  # fmt: skip

    def begin(self, params: SamplingParams, stop_ids: Sequence[int]) -> None:
        """How the next segments are drawn."""
        self._params, self._stop_ids = params, stop_ids

    def add(self, key: int, segment: Segment) -> None:
        """See `SegmentBackend`; handed over with the next step."""
        self._added.append((key, segment))

    def step(self) -> list[tuple[int, Sequence[int]]]:
        """See `SegmentBackend`."""
        self._hand_over()
        ended: list[tuple[int, Sequence[int]]] = []
        for output in self._llm.llm_engine.step():
            if not output.finished:
                continue
            key, segment = self._running.pop(output.request_id)
            drawn = list(output.outputs[0].token_ids)
            self._count(key, segment, len(drawn), output.num_cached_tokens or 0)
            ended.append((key, drawn))
        return ended

    def _count(self, key: int, segment: Segment, num_drawn: int, num_cached: int) -> None:
        """Note a segment, and how much of what its forerunner left in whole blocks was used again."""
        self.num_segments += 1
        if segment.position:
            left = min(self._computed[key], len(segment.prompt_ids) - 1)
            self.num_reusable_tokens += left // self._block_tokens * self._block_tokens
            self.num_cached_tokens += num_cached
        self._computed[key] = len(segment.prompt_ids) + num_drawn - 1  # the last token did not go through the model

    def _hand_over(self) -> None:
        if not self._added or self._params is None:
            return
        added, self._added = self._added, []
        ids = self._llm.enqueue(
            [{"prompt_token_ids": list(segment.prompt_ids)} for _, segment in added],
            [self._vllm.SamplingParams(**drawing(self._params, segment, self._stop_ids)) for _, segment in added],
            use_tqdm=False,
        )
        for name, entry in zip(ids, added, strict=True):
            self._running[name.partition("-")[0]] = entry  # `17-ab12cd34` is called `17` in outputs


class Worker:
    """An open engine with the tokenizer's tables."""

    def __init__(self, backend: VllmBackend, tables: ForcingTables, eos_id: int) -> None:
        self.backend, self.tables, self.eos_id = backend, tables, eos_id
        self._stop_ids = stop_token_ids(tables)

    @classmethod
    def open(cls, setup: Setup) -> Worker:
        """Load tokenizer and engine."""
        from selftrain.models import load_tokenizer

        tokenizer = load_tokenizer(Path(setup.model), setup.trust_remote_code)
        backend = VllmBackend(setup)
        return cls(backend, build_tables(tokenizer, setup.style), int(tokenizer.eos_token_id))

    def answer(self, requests: Sequence[tuple[int, Sequence[int]]], params: SamplingParams, say: Say) -> None:
        """Draw every request (seed, prompt's ids) and say each completion as it ends, then the figures."""
        forcer = Forcer(self.tables) if params.calculator else None
        rows = [
            SegmentedRow(Request("", index, tuple(ids), seed), params.max_new_tokens, self.eos_id, forcer)
            for index, (seed, ids) in enumerate(requests)
        ]
        backend = self.backend
        backend.begin(params, (self.eos_id, *self._stop_ids) if params.calculator else (self.eos_id,))
        before = backend.counts
        for index, generated in run_segments(backend, rows, backend.window):
            say({"index": index, **as_json(generated)})
        figures = {name: count - before[name] for name, count in backend.counts.items()}
        say({"end": {**figures, "dropped": sum(row.num_dropped for row in rows)}})


def as_json(generated: Generated) -> dict[str, Any]:
    """The fields of a completion."""
    return {field.name: getattr(generated, field.name) for field in dataclasses.fields(generated)}


def own_pipes() -> tuple[TextIO, TextIO]:
    """Standard input and output, kept for the protocol; whoever else prints from now on prints to standard error."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def end_with_parent() -> None:
    """On Linux, be killed with the thread that started us; everywhere, leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def read_until_end(requests: TextIO, inbox: queue.Queue[str]) -> None:
    """Put every line into the inbox; when there are no more, end this process at once, whatever it is doing."""
    for line in requests:
        inbox.put(line)
    os._exit(0)


def serve(lines: Iterator[str], say: Say) -> None:
    """Open the engine that the first line asks for, then answer line by line."""
    worker = Worker.open(Setup(**json.loads(next(lines))))
    say({"ready": worker.backend.version})
    for line in lines:
        call = json.loads(line)
        worker.answer(call["requests"], SamplingParams(**call["params"]), say)


def main() -> None:
    """Serve until standard input ends."""
    end_with_parent()
    requests, answers = own_pipes()
    inbox: queue.Queue[str] = queue.Queue()
    threading.Thread(target=read_until_end, args=(requests, inbox), daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        serve(iter(inbox.get, None), say)  # the thread ends the process, so the lines never end
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {first}"})
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
