"""The decode loop against `generate`, against a twin that decodes text, and against itself in other company."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.config import PromptConfig
from selftrain.data.arithmetic import problems
from selftrain.errors import ConfigError
from selftrain.models import LanguageModel, is_encoder_decoder, load_model
from selftrain.prompts import Codec
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.bodies import Body
from selftrain.sampling.cache import Batch
from selftrain.sampling.engine import Engine
from selftrain.sampling.graphs import GraphedBody
from selftrain.sampling.paths import MIN_SLOTS, Shape
from selftrain.sampling.t5_body import T5Body
from selftrain.seeding import derive_seed
from selftrain.toy import make_toy

GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=24, calculator=False)
SAMPLED = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=24, calculator=True)


@pytest.fixture(scope="module", params=["random-llama", "random-t5"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, device: str) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    make_toy(request.param, folder, seed=3)
    model = load_model(folder, digest="toy", device=device)
    for parameter in model.module.parameters():  # wider weights, so that greedy outputs differ between prompts
        if parameter.ndim == 2:
            parameter.data.mul_(4.0 if is_encoder_decoder(model.module) else 8.0)
    return model


@pytest.fixture(scope="module")
def codec(toy: LanguageModel) -> Codec:
    return Codec.build(toy.tokenizer, PromptConfig(), is_encoder_decoder(toy.module))


def requests_for(codec: Codec, count: int, samples: int = 1) -> list[Request]:
    return [
        Request(problem.id, k, codec.prompt(problem.question * (1 + index % 3)), derive_seed("t", problem.id, k))
        for index, problem in enumerate(problems(seed=9, size=count))
        for k in range(samples)
    ]


def engine_for(toy: LanguageModel, codec: Codec, slots: int) -> Engine:
    return Engine(toy, num_slots=slots, style=codec.style, tables=codec.tables)


def generate_one(toy: LanguageModel, prompt: tuple[int, ...]) -> list[int]:
    """transformers' own greedy decoding of one prompt."""
    out = toy.module.generate(  # type: ignore[operator]
        torch.tensor([prompt]).to(toy.device),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long).to(toy.device),
        max_new_tokens=GREEDY.max_new_tokens,
        do_sample=False,
        eos_token_id=toy.eos_id,
        pad_token_id=toy.pad_id,
    )[0]
    return out[1:].tolist() if is_encoder_decoder(toy.module) else out[len(prompt) :].tolist()


def test_greedy_equals_generate_with_refill_and_uneven_prompts(toy: LanguageModel, codec: Codec) -> None:
    requests = requests_for(codec, 24)
    outputs = engine_for(toy, codec, slots=8).generate(requests, GREEDY)
    expected = [generate_one(toy, request.prompt_ids) for request in requests]
    assert [list(output.token_ids) for output in outputs] == expected
    assert len({output.token_ids for output in outputs}) > 6


def test_a_draw_does_not_depend_on_its_neighbours(toy: LanguageModel, codec: Codec) -> None:
    requests = requests_for(codec, 12, samples=3)
    together = engine_for(toy, codec, slots=8).generate(requests, SAMPLED)
    for index in (0, 7, 35):
        alone = engine_for(toy, codec, slots=1).generate([requests[index]], SAMPLED)
        assert alone[0].token_ids == together[index].token_ids
    assert len({output.token_ids for output in together[:3]}) == 3


def test_results_repeat_bitwise(toy: LanguageModel, codec: Codec) -> None:
    requests = requests_for(codec, 6, samples=2)
    engine = engine_for(toy, codec, slots=4)
    assert engine.generate(requests, SAMPLED) == engine.generate(requests, SAMPLED)


class Scripted:
    """A body that wants to write one given text whatever it is asked."""

    def __init__(self, script: list[int], vocabulary: int, prompt: int) -> None:
        self.script, self.vocabulary, self.prompt = script, vocabulary, prompt
        self.cursor: dict[int, int] = {}

    def logits(self, slot: int) -> torch.Tensor:
        row = torch.full((self.vocabulary,), -30.0)
        row[self.script[min(self.cursor.get(slot, 0), len(self.script) - 1)]] = 30.0
        return row

    def prefill(self, prompts: list[tuple[int, ...]], slots: list[list[int]]) -> tuple[torch.Tensor, list[int]]:
        for targets in slots:
            for slot in targets:
                self.cursor[slot] = 0
        return torch.stack([self.logits(targets[0]) for targets in slots]), [len(p) for p in prompts]

    def step(self, batch: Batch) -> torch.Tensor:
        for slot in range(batch.num_rows):
            self.cursor[slot] = int(batch.positions[slot]) - self.prompt + 1
        return torch.stack([self.logits(slot) for slot in range(batch.num_rows)])

    def move(self, sources: list[int], targets: list[int]) -> None:
        for source, target in zip(sources, targets, strict=True):
            self.cursor[target] = self.cursor[source]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_model_that_writes_a_wrong_product_is_forced_to_the_right_one(
    toy: LanguageModel, codec: Codec, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    wrong = "<<7*6=41>>41\n#### 41" if codec.style == "angle" else "[ 7 * 6 = 41 ] 41. #### 41."
    script = [*codec.tables.encode(wrong), toy.eos_id]
    engine = engine_for(toy, codec, slots=2)
    request = requests_for(codec, 1)[0]
    body = Scripted(script, len(toy.tokenizer), len(request.prompt_ids))
    monkeypatch.setattr(engine, "body", lambda shape: body)
    params = SamplingParams(temperature, 0, 1.0, 24, calculator=True)
    output: Generated = engine.generate([request], params)[0]
    assert output.calls == 1
    (start, end), *rest = output.forced
    assert not rest
    assert "42" in codec.text(output.token_ids[start:end])
    assert "42" in codec.text(output.token_ids[:end]) and "41" not in codec.text(output.token_ids[:end])


def test_a_completion_ends_at_the_limit_and_says_so(toy: LanguageModel, codec: Codec) -> None:
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=3, calculator=True)
    outputs = engine_for(toy, codec, slots=4).generate(requests_for(codec, 6), params)
    assert {len(output.token_ids) for output in outputs if output.stop == "length"} == {3}


def test_prompts_of_one_question_are_computed_once(
    toy: LanguageModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(toy, codec, slots=12)
    seen: list[int] = []
    make = engine.body

    def counted(shape: Shape) -> object:
        body = make(shape)
        prefill = body.prefill
        monkeypatch.setattr(
            body, "prefill", lambda prompts, slots: (seen.append(len(prompts)), prefill(prompts, slots))[1]
        )
        return body

    monkeypatch.setattr(engine, "body", counted)
    engine.generate(requests_for(codec, 3, samples=4), SAMPLED)
    assert sum(seen) == 3


def test_out_of_memory_halves_the_slots_keeps_what_is_finished_and_says_so(
    toy: LanguageModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = requests_for(codec, 40)
    expected = engine_for(toy, codec, slots=8).generate(requests, SAMPLED)
    said: list[str] = []
    engine = Engine(toy, num_slots=32, style=codec.style, tables=codec.tables, say=said.append)
    make, heard = engine.body, []

    def small(shape: Shape) -> Body:
        body = make(shape)
        step, steps = body.step, iter(range(1000))

        def failing(batch: Batch, **asked: Any) -> torch.Tensor:
            if shape.num_slots > MIN_SLOTS and next(steps) == 12:
                raise torch.OutOfMemoryError
            return step(batch, **asked)

        monkeypatch.setattr(body, "step", failing)
        return body

    monkeypatch.setattr(engine, "body", small)
    assert engine.generate(requests, SAMPLED, heard.append) == expected
    assert len(heard) == len(requests), "a finished completion is heard of once"
    assert engine.num_slots == MIN_SLOTS and len(said) == 2 and "with 16 slots" in said[0]


def test_more_positions_than_the_model_has_are_refused(toy: LanguageModel, codec: Codec) -> None:
    if is_encoder_decoder(toy.module):
        pytest.skip("T5 knows no bound of positions")
    with pytest.raises(ConfigError, match="256 positions"):
        engine_for(toy, codec, slots=2).generate(
            requests_for(codec, 2), dataclasses.replace(GREEDY, max_new_tokens=250)
        )


def test_storage_that_memory_cannot_hold_is_refused_before_any_work(
    toy: LanguageModel, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    if toy.device.type != "cpu":
        pytest.skip("on a GPU the engine halves its slots instead")
    engine, requests = engine_for(toy, codec, slots=4), requests_for(codec, 2)
    needed = engine.storage_bytes(requests, GREEDY)
    monkeypatch.setattr("selftrain.sampling.paths.available_memory_bytes", lambda: needed - 1)
    with pytest.raises(ConfigError, match="key/value storage"):
        engine.generate(requests, GREEDY)


def test_stated_storage_is_what_is_allocated(toy: LanguageModel, codec: Codec) -> None:
    engine, requests = engine_for(toy, codec, slots=4), requests_for(codec, 6)
    made = engine.body(engine.shape(requests, GREEDY))
    body = made.body if isinstance(made, GraphedBody) else made
    caches = [body.own, body.cross] if isinstance(body, T5Body) else [body.cache]  # type: ignore[attr-defined]
    allocated = sum(tensor.nbytes for cache in caches for tensor in (*cache.keys, *cache.values))
    assert engine.storage_bytes(requests, GREEDY) == allocated


def test_no_request_no_work(toy: LanguageModel, codec: Codec, tmp_path: Path) -> None:
    assert engine_for(toy, codec, slots=4).generate([], GREEDY) == []
