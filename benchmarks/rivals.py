"""Ours and the rivals that run in our own environment: how each samples a task.

    generate = open_system(setup, task, questions)   # loads; not timed
    answers = generate(seed)                         # timed

Every system gets prompts as ids and gives the ids of each completion, end token included, in the order of questions
and then of samples. Rivals sort the questions by length, pad on the left (an encoder's on the right), and state
top-k, top-p and temperature, so that nothing is left to a model's own defaults.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from benchmarks.systems import Answers, Generate, Ids, Setup
from benchmarks.work import Question, Task, codec_of, requests_of, sampling_params
from selftrain.calculator.annotation import value_of
from selftrain.calculator.expression import canonical
from selftrain.calculator.forcing import ForcingTables
from selftrain.models import LanguageModel, is_encoder_decoder, load_model
from selftrain.prompts import Codec
from selftrain.sampling.engine import Engine


def open_system(setup: Setup, task: Task, questions: Sequence[Question]) -> Generate:
    """Load a system's model and make it ready."""
    codec = codec_of(task)
    model = load_model(Path(task.model), digest=task.digest, device=setup.device, precision=setup.precision)
    kind = {"hf-calculator": _by_pass, "hf": _by_question, "t5-hf": _by_question, "hf-continuous": _continuous}
    return kind.get(setup.system, _ours)(setup, task, questions, model, codec)


def _ours(setup: Setup, task: Task, questions: Sequence[Question], model: LanguageModel, codec: Codec) -> Generate:
    engine = Engine(model, num_slots=setup.rows, style=codec.style, tables=codec.tables)
    params = sampling_params(task, setup.calculator)

    def generate(seed: int) -> Answers:
        requests = requests_of(questions, setup.samples, seed)
        stated = getattr(engine, "storage_bytes", None)
        storage = None if stated is None else stated(requests, params)
        outputs = engine.generate(requests, params)
        found = {(r.problem_id, r.k): output for r, output in zip(requests, outputs, strict=True)}
        ordered = [found[question.id, k] for question in questions for k in range(setup.samples)]
        said = {
            "calls": sum(output.calls for output in ordered),
            "uncalculated": sum(output.uncalculated for output in ordered),
            "forced_tokens": sum(end - start for output in ordered for start, end in output.forced),
            "storage_bytes": storage,
            "parameters": model.num_parameters,
        }
        return Answers([output.token_ids for output in ordered], said)

    return generate


def _by_question(
    setup: Setup, task: Task, questions: Sequence[Question], model: LanguageModel, codec: Codec
) -> Generate:
    """b. One call a batch of questions, all samples of a question in it, no calculator."""

    def generate(seed: int) -> Answers:
        torch.manual_seed(seed)
        found: dict[str, list[Ids]] = {}
        for batch in _batches(questions, max(1, setup.rows // setup.samples)):
            rows = _call(model, task, batch, setup.samples, None)
            for number, question in enumerate(batch):
                found[question.id] = rows[number * setup.samples : (number + 1) * setup.samples]
        return Answers([ids for question in questions for ids in found[question.id]])

    return generate


def _by_pass(setup: Setup, task: Task, questions: Sequence[Question], model: LanguageModel, codec: Codec) -> Generate:
    """a. The paper's way: one pass over the questions a sample index, the calculator in a logits processor."""

    def generate(seed: int) -> Answers:
        torch.manual_seed(seed)
        found: dict[str, list[Ids]] = {question.id: [] for question in questions}
        for _ in range(setup.samples):
            for batch in _batches(questions, setup.rows):
                processor = DecodingCalculator(codec.tokenizer, codec.tables, _width(batch), model.eos_id)
                for question, ids in zip(batch, _call(model, task, batch, 1, processor), strict=True):
                    found[question.id].append(ids)
        return Answers([ids for question in questions for ids in found[question.id]])

    return generate


def _batches(questions: Sequence[Question], size: int) -> list[list[Question]]:
    ordered = sorted(questions, key=lambda question: (len(question.prompt), question.id))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _width(batch: Sequence[Question]) -> int:
    return max(len(question.prompt) for question in batch)


@torch.inference_mode()
def _call(
    model: LanguageModel, task: Task, batch: Sequence[Question], samples: int, processor: LogitsProcessor | None
) -> list[Ids]:
    """One call of transformers' `generate`; completions by question and sample."""
    module: Any = model.module
    width, left = _width(batch), not is_encoder_decoder(module)
    ids = torch.full((len(batch), width), model.pad_id)  # [B, T]
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for row, question in enumerate(batch):
        size = len(question.prompt)
        place = slice(width - size, width) if left else slice(0, size)
        ids[row, place], mask[row, place] = torch.tensor(question.prompt), 1
    out: Tensor = module.generate(
        ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=_generation_config(model, task, samples),
        logits_processor=[] if processor is None else [processor],
    )
    start = width if left else 1
    return [_until_end(row, model.eos_id) for row in out[:, start:].tolist()]


def _generation_config(model: LanguageModel, task: Task, samples: int) -> Any:
    make: Any = GenerationConfig
    config: Any = model.module.config
    extra = {"decoder_start_token_id": config.decoder_start_token_id} if config.is_encoder_decoder else {}
    return make(
        do_sample=True, temperature=task.temperature, top_k=0, top_p=1.0, max_new_tokens=task.max_new_tokens,
        num_return_sequences=samples, eos_token_id=model.eos_id, pad_token_id=model.pad_id, **extra,
    )  # fmt: skip


def _until_end(ids: Sequence[int], eos_id: int) -> Ids:
    """A row of a padded batch up to its end token, which counts."""
    return tuple(ids[: ids.index(eos_id) + 1] if eos_id in ids else ids)


class DecodingCalculator(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """The paper's calculator (TianduoWang/DPO-ST, generate.py): at each step each unfinished row is decoded, and where
    its text ends inside `<<48/2=` the next token of the result is forced. Arithmetic and writing are ours, and only
    what was generated is decoded (theirs: from token 100 on), so that the difference is in the way, not in the care.
    """

    open_call = re.compile(r"<<([^<>=\n]*)=([^<>=\n]*)\Z")

    def __init__(self, tokenizer: Any, tables: ForcingTables, prompt_width: int, eos_id: int) -> None:
        self.tokenizer, self.tables, self.prompt_width, self.eos_id = tokenizer, tables, prompt_width, eos_id

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores [B, V] with forced tokens put first."""
        for row, ids in enumerate(input_ids[:, self.prompt_width :].tolist()):
            if not ids or self.eos_id in ids:
                continue
            token = self.next_forced(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))
            if token is not None:
                scores[row] = float("-inf")
                scores[row, token] = 0.0
        return scores

    def next_forced(self, text: str) -> int | None:
        """The token that must come after a text; None where the model is free."""
        match = self.open_call.search(text)
        value = None if match is None else value_of(match[1])
        if match is None or value is None:
            return None
        forced = (*self.tables.result(canonical(value)), *self.tables.closing)
        for size in range(len(forced)):
            if "".join(self.tables.pieces[token] for token in forced[:size]) == match[2]:
                return forced[size]
        return None


def _continuous(
    setup: Setup, task: Task, questions: Sequence[Question], model: LanguageModel, codec: Codec
) -> Generate:
    """c. transformers' continuous batching. Its cache is sized for the rows, since by itself it takes 60 % of a
    machine's memory; pages are small, since attention on a CPU reads all of them."""
    from transformers import ContinuousBatchingConfig

    module: Any = model.module
    page = 32
    pages_a_row = -(-(_width(questions) + task.max_new_tokens) // page) + 1
    settings = ContinuousBatchingConfig(
        page_size=page, num_blocks=setup.rows * pages_a_row, max_requests_per_batch=setup.rows,
        max_batch_tokens=max(512, setup.rows, _width(questions)),
    )  # fmt: skip

    def generate(seed: int) -> Answers:
        torch.manual_seed(seed)
        ordered = [question for batch in _batches(questions, len(questions)) for question in batch]
        results = module.generate_batch(
            [list(question.prompt) for question in ordered],
            generation_config=_generation_config(model, task, setup.samples),
            continuous_batching_config=settings,
        )
        rows = [_until_end(result.generated_tokens, model.eos_id) for result in results.values() if not result.error]
        if len(rows) != len(ordered) * setup.samples:
            errors = sorted({str(result.error) for result in results.values() if result.error})
            raise RuntimeError(f"{len(rows)} of {len(ordered) * setup.samples} completions came back {errors[:1]}")
        found = {q.id: rows[n * setup.samples : (n + 1) * setup.samples] for n, q in enumerate(ordered)}
        return Answers([ids for question in questions for ids in found[question.id]])

    return generate
