"""A model in use, outside a run: answer a question, evaluate on a set. The calculator is on unless turned off.

    tutor = open_model("runs/quickstart/model")
    tutor.ask("6 boxes of 7 pens. How many pens?").text
    tutor.evaluate(problems)

A model that selftrain delivered carries `selftrain.json` (its prompt and limits); any other gets the defaults.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from selftrain.calculator.annotation import Style, find, value_of
from selftrain.card import read_settings
from selftrain.errors import DataError
from selftrain.models import LanguageModel, is_encoder_decoder, load_model, max_positions
from selftrain.progress import Progress, Silent
from selftrain.prompts import Codec
from selftrain.records import Completion, Problem
from selftrain.sampling.base import Request, SamplingParams
from selftrain.sampling.engine import Engine
from selftrain.seeding import derive_seed
from selftrain.stages.sample import EVALUATION_TOLERANCE
from selftrain.verify import judge


@dataclasses.dataclass(frozen=True)
class Tutor:
    """A loaded model with the way it is asked."""

    model: LanguageModel
    codec: Codec
    max_new_tokens: int

    def ask(self, question: str, *, calculator: bool = True) -> Completion:
        """The greedy answer to one question.

        Raises:
            DataError: an empty question, or one that leaves no room for an answer.
        """
        check_question(question)
        length, limit = len(self.codec.prompt(question)), max_positions(self.model.module.config)
        if limit is not None and length + self.max_new_tokens > limit:
            raise DataError(
                f"Expected a question of at most {limit - self.max_new_tokens} tokens with its template, got {length}: "
                f"the model takes {limit}, and keeps {self.max_new_tokens} of them for its answer.",
                "Shorten the question.",
            )
        return self._answer([Problem("question", question)], calculator, Silent())[0]

    def evaluate(
        self,
        problems: Sequence[Problem],
        *,
        calculator: bool = True,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """A judged greedy completion a problem."""
        answers = self._answer(problems, calculator, progress or Silent())
        return [
            judged
            for problem, answer in zip(problems, answers, strict=True)
            for judged in judge(problem, [answer], tolerance=EVALUATION_TOLERANCE)
        ]

    @functools.cached_property
    def _engine(self) -> Engine:
        """Kept, so that its weights are packed once however often it is asked."""
        return Engine(self.model, num_slots="auto", style=self.codec.style, tables=self.codec.tables)

    def _answer(self, problems: Sequence[Problem], calculator: bool, progress: Progress) -> list[Completion]:
        requests = [
            Request(problem.id, 0, self.codec.prompt(problem.question), derive_seed("use", problem.id))
            for problem in problems
        ]
        params = SamplingParams(0.0, 0, 1.0, self.max_new_tokens, calculator)
        outputs = self._engine.generate(requests, params, lambda _: progress.advance())
        return [
            Completion(
                problem.id,
                0,
                output.token_ids,
                self.codec.text(output.token_ids),
                output.stop,
                output.forced,
                output.calls,
                output.uncalculated,
                self.model.digest,
                "use",
            )  # fmt: skip
            for problem, output in zip(problems, outputs, strict=True)
        ]


def check_question(question: str) -> None:
    """Refuse a question without text.

    Raises:
        DataError: there is none.
    """
    if not question.strip():
        raise DataError("Expected a question, got an empty text.", 'Such as "6 boxes of 7 pens. How many pens?"')


def open_model(name: str, *, say: Callable[[str], None] = lambda _: None) -> Tutor:
    """Load a delivered model, any local folder, a hub name or `smollm2-135m`.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    from selftrain.hardware import default_device, default_precision
    from selftrain.weights import resolve

    found = resolve(name, say=say)
    device = default_device()
    model = load_model(found.path, digest=found.digest, device=device, precision=default_precision(device))
    prompt, max_new_tokens = read_settings(found.path)
    codec = Codec.build(model.tokenizer, prompt, is_encoder_decoder(model.module))
    return Tutor(model, codec, max_new_tokens)


def computed_calls(completion: Completion, style: Style) -> list[str]:
    """What the calculator was asked and what it wrote, in order: "6*7 = 42"."""
    if not completion.calls:
        return []
    found = [call for call in find(completion.text, style) if value_of(call.expression) is not None]
    return [f"{call.expression.strip()} = {call.result.strip()}" for call in found]
