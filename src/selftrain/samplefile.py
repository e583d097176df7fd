"""`selftrain sample`, and `selftrain.sample` in Python: K completions a problem from any model, as one JSONL file.

    done = sample("runs/quickstart/model", ["svamp=SVAMP.json", "my.jsonl"], "samples.jsonl", samples=8)
    print(done.table())

The rows are `records.Completion`s in the order of the data, with verdicts where a problem has a gold answer. The model
is asked as it was trained to be (its selftrain.json), with the calculator inside decoding. What can be refused is
refused before weights are read (`samplejob`).

Resume is by shard (`sampling.units`), and the file is whole or not there (`outfile`): the same call again goes on where
it was cut off, and ends bitwise equal to an unbroken one. Left out: the chat template of a model without selftrain.json
(`selftrain run` asks a base model through its own), and several processes on one file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selftrain import __version__
from selftrain.judged import COMPLETIONS
from selftrain.outfile import OutFile
from selftrain.progress import Progress, Silent
from selftrain.records import Completion, Problem, read_jsonl
from selftrain.samplejob import Job, Settings, check_room, check_settings, load_sets, prepare
from selftrain.sampletable import Drawn, SetFigures, figures_of, table_text
from selftrain.sampling.base import Generated, OnFinished, Request, Sampler, SamplingParams
from selftrain.stages.sample import run_sample


@dataclasses.dataclass(frozen=True)
class SampleResult:
    """A finished file: where it is, figures a set, and what was drawn in this call (nothing where it was there)."""

    path: Path
    samples: int
    sets: tuple[SetFigures, ...]
    drawn: dict[str, Drawn]

    def table(self) -> str:
        """A line a set, for the terminal."""
        return table_text(self.sets, self.samples, self.drawn)


def sample(
    model: str,
    data: str | Sequence[str],
    out: Path | str,
    *,
    samples: int = 8,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
    max_new_tokens: int | None = None,
    seed: int = 0,
    slots: int = 128,
    take: int | None = None,
    verify: str = "numeric",
    fields: Sequence[str] = (),
    calculator: bool = True,
    backend: str = "engine",
    progress: Progress | None = None,
) -> SampleResult:
    """Sample completions of every problem into a JSONL file, or go on with a call that was cut off.

    Args:
        model: a delivered model's folder, any local folder, a hub name, or `smollm2-135m`.
        data: sets, as `selftrain evaluate` names them: "svamp", "svamp=SVAMP.json", "my.jsonl".
        out: the file; beside it FILE.parts while it is being made, FILE.manifest.json afterwards.
        samples: K, completions a problem.
        temperature: of the softmax; 0 is greedy, and then `samples` must be 1.
        top_k: draw from the k best tokens only; 0 is off.
        top_p: draw from the best tokens that hold this mass; 1 is off.
        max_new_tokens: most tokens of a completion; None: as the model's selftrain.json says, else 300.
        seed: root of every draw's stream.
        slots: rows decoded at once.
        take: only the first so many problems of each set.
        verify: what judges the answers of all sets, as `DataSpec.verify`.
        fields: columns of all files, each as OURS=THEIRS ("question=prompt").
        calculator: compute annotations while decoding.
        backend: what draws: "engine" is ours, "vllm" wants the extra of that name.
        progress: hears of each set and completion.

    Raises:
        UserError: whatever the user can put right; see `selftrain.errors`.
    """
    settings = Settings(samples, temperature, top_k, top_p, max_new_tokens, seed, slots, calculator, backend)
    check_settings(settings)
    target = OutFile(Path(out))
    target.check_place()
    progress = progress or Silent()
    sets = load_sets([data] if isinstance(data, str) else data, take, progress.say, verify, fields)
    job = prepare(model, sets, settings, progress.say)
    manifest = target.finished(job.identity)
    if manifest is not None:
        progress.say(f"{target.path} is finished already: nothing to do.")
        return SampleResult(target.path, samples, tuple(SetFigures(**row) for row in manifest["sets"]), {})
    if storage := check_room(job):
        progress.say(f"sampling: at most {storage}")
    return _make(target, job, progress)


def open_sampler(job: Job, opened: contextlib.ExitStack, say: Callable[[str], None]) -> Sampler:
    """Load the weights into what draws: the one place of this verb that knows the backends.

    What must be closed when the work is done is left to `opened`.
    """
    weights, codec, settings = job.weights, job.codec, job.settings
    if settings.backend == "vllm":
        from selftrain.sampling.vllm_sampler import VllmSampler

        longest = max(len(prompt) for prompt in job.prompts.values() if len(prompt) <= codec.config.max_prompt_tokens)
        vllm = VllmSampler(
            weights.path, style=codec.style, precision=job.precision, slots=settings.slots,
            max_model_len=longest + job.max_new_tokens, say=say,
        )  # fmt: skip
        return opened.enter_context(vllm)
    from selftrain.models import load_model
    from selftrain.sampling.engine import Engine

    model = load_model(weights.path, digest=weights.digest, device=job.device, precision=job.precision)
    return Engine(model, num_slots=settings.slots, style=codec.style, tables=codec.tables, say=say)


class Meter:
    """A sampler that opens another one when it is first asked, and notes what that draws and how long it takes."""

    def __init__(self, open_it: Callable[[], Sampler]) -> None:
        self.open_it, self.drawn = open_it, Drawn()

    def generate(
        self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
    ) -> list[Generated]:
        """See `sampling.base.Sampler`."""
        sampler = self.open_it()
        started = time.monotonic()
        outputs = sampler.generate(requests, params, on_finished)
        self.drawn.seconds += time.monotonic() - started
        self.drawn.completions += len(outputs)
        self.drawn.tokens += sum(len(output.token_ids) for output in outputs)
        return outputs


def _make(target: OutFile, job: Job, progress: Progress) -> SampleResult:
    """Draw what is not there yet, set by set, and put the file in its place."""
    rows: list[Completion] = []
    figures: list[SetFigures] = []
    drawn: dict[str, Drawn] = {}
    with target.open(job.identity) as parts, contextlib.ExitStack() as closing:
        opened = functools.cache(lambda: open_sampler(job, closing, progress.say))
        progress.say(f"{job.weights.name}: {job.settings.backend}, {job.device}, {job.precision}; parts in {parts}")
        for name, problems in job.sets.items():
            meter = Meter(opened)
            completions = _sample_set(parts / name, name, problems, job, meter, progress)
            rows += completions
            num_asked = len({completion.problem_id for completion in completions})
            figures.append(figures_of(name, completions, len(problems) - num_asked))
            drawn[name] = meter.drawn
        target.deliver(rows, job.identity, _account(job, figures))
    return SampleResult(target.path, job.settings.samples, tuple(figures), drawn)


def _sample_set(
    folder: Path, name: str, problems: Sequence[Problem], job: Job, meter: Meter, progress: Progress
) -> list[Completion]:
    """A set's completions in the order of its problems."""
    run_sample(
        folder,
        problems,
        job.plan,
        codec=job.codec,
        prompt=lambda problem: job.prompts[problem.id],
        open_sampler=lambda: meter,
        progress=progress,
        warn=lambda message: progress.say(f"warning: {message}"),
        title=name,
    )
    order = {problem.id: number for number, problem in enumerate(problems)}
    return sorted(read_jsonl(folder / COMPLETIONS, Completion), key=lambda c: (order[c.problem_id], c.k))


def _account(job: Job, figures: Sequence[SetFigures]) -> dict[str, Any]:
    """What the manifest says beside the identity."""
    return {
        "model_name": job.weights.name,
        "model_source": job.weights.source,
        "device": job.device,
        "version": __version__,
        "sets": [dataclasses.asdict(row) for row in figures],
    }
