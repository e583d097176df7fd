"""`CalculatorLogitsProcessor` in transformers' own generate writes what the engine writes, on the smoke run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain import CalculatorLogitsProcessor
from selftrain.data.arithmetic import problems
from selftrain.models import load_model
from selftrain.prompts import Codec
from selftrain.sampling.base import Request, SamplingParams
from selftrain.sampling.engine import Engine

NEW_TOKENS = 40


@pytest.fixture(scope="module")
def trained(smoke: Path) -> tuple[Any, Codec]:
    from selftrain.card import read_settings

    model = load_model(smoke / "model", digest="smoke")
    prompt, _ = read_settings(smoke / "model")
    return model, Codec.build(model.tokenizer, prompt, encoder_decoder=False)


def padded(prompts: list[tuple[int, ...]], pad_id: int) -> dict[str, torch.Tensor]:
    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[pad_id] * (width - len(ids)) + list(ids) for ids in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]),
    }


def test_greedy_answers_are_the_engines(trained: tuple[Any, Codec]) -> None:
    model, codec = trained
    prompts = [codec.prompt(problem.question) for problem in problems(99, 24)]
    engine = Engine(model, num_slots=8, style=codec.style, tables=codec.tables)
    expected = engine.generate(
        [Request(f"q{number}", 0, prompt, number) for number, prompt in enumerate(prompts)],
        SamplingParams(0.0, 0, 1.0, NEW_TOKENS, True),
    )
    inputs = padded(prompts, model.pad_id)
    width = inputs["input_ids"].shape[1]
    calculator = CalculatorLogitsProcessor(model.tokenizer, prompt_tokens=width)
    out = model.module.generate(
        **inputs, logits_processor=[calculator], do_sample=False, max_new_tokens=NEW_TOKENS,
        eos_token_id=model.eos_id, pad_token_id=model.pad_id,
    )  # fmt: skip
    for row, found in zip(out[:, width:].tolist(), expected, strict=True):
        assert tuple(row[: len(found.token_ids)]) == found.token_ids
    assert calculator.calls == sum(found.calls for found in expected) > 10


def test_a_token_that_runs_past_the_sign_gives_its_probability_to_the_sign(trained: tuple[Any, Codec]) -> None:
    model, codec = trained
    processor = CalculatorLogitsProcessor(model.tokenizer, prompt_tokens=0)
    (sign,) = codec.tables.encode("=")
    past = next(token for token in range(len(processor.tables.pieces)) if token != sign)
    processor._overrunning = [(past, sign)]
    ids = torch.tensor([codec.tables.encode("<<6*7")])
    scores = torch.full((1, model.module.config.vocab_size), -1e3)
    scores[0, past], scores[0, sign] = 1.0, 0.0
    before = torch.logsumexp(scores, -1)
    out = processor(ids, scores)
    assert out[0].argmax() == sign and out[0, past] == float("-inf")
    torch.testing.assert_close(torch.logsumexp(out, -1), before)


def test_another_number_of_rows_is_refused(trained: tuple[Any, Codec]) -> None:
    model, _ = trained
    processor = CalculatorLogitsProcessor(model.tokenizer, prompt_tokens=0)
    processor(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 8))
    with pytest.raises(ValueError, match="expected 2 rows as before, got 3"):
        processor(torch.zeros(3, 0, dtype=torch.long), torch.zeros(3, 8))


def test_the_card_of_a_finished_run_shows_how(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from selftrain.use import open_model

    card = (smoke / "model" / "README.md").read_text()
    assert "had not come to its end" not in card and "| made-up | iteration 1, delivered |" in card
    shown = card.split("```python\n")[1].split("```")[0]
    exec(compile(shown.replace("THIS_FOLDER", str(smoke / "model")), "card", "exec"), {})  # noqa: S102 (our own text)
    question = "A box holds 7 pens. How many pens are in 6 boxes?"
    assert capsys.readouterr().out.rstrip("\n") == open_model(str(smoke / "model")).ask(question).text
