"""The engine against a slow, plain twin: one request at a time, no cache, the text decoded and read at every step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftrain.calculator.annotation import value_of
from selftrain.calculator.expression import canonical
from selftrain.calculator.forcing import forced_spans
from selftrain.config import PromptConfig
from selftrain.data.arithmetic import problems
from selftrain.models import LanguageModel, is_encoder_decoder
from selftrain.prompts import Codec
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.draw import filtered_probabilities
from selftrain.sampling.engine import Engine
from selftrain.seeding import derive_seed, uniforms

NEW_TOKENS = 56
MIN_CALLS = 1.5  # a completion: as many as a model that works step by step writes
BIAS = {
    style: {opening: 6.0, "=": 6.0, **dict.fromkeys("0123456789", 5.0), **dict.fromkeys("+-*", 4.0)}
    for style, opening in (("angle", "<<"), ("bracket", "["))
}


@pytest.fixture(scope="module")
def codec(toy: LanguageModel) -> Codec:
    """Also gives the head a bias to the tokens of annotations, so that the random model writes many."""
    made = Codec.build(toy.tokenizer, PromptConfig(), is_encoder_decoder(toy.module))
    head = toy.module.get_output_embeddings()  # type: ignore[operator]
    head.weight = torch.nn.Parameter(head.weight.data * (0.03 if is_encoder_decoder(toy.module) else 0.3))
    bias = torch.full((head.weight.shape[0],), -6.0)
    for token, piece in enumerate(made.tables.pieces[: len(bias)]):
        bias[token] = BIAS[made.style].get(piece.strip(), -6.0)
    head.bias = torch.nn.Parameter(bias.to(toy.device))
    return made


class Twin:
    """Decodes the whole text after every token to see whether the calculator is asked."""

    def __init__(self, toy: LanguageModel, codec: Codec, params: SamplingParams) -> None:
        self.toy, self.codec, self.params = toy, codec, params
        self.opening, self.closing = ("<<", ">>") if codec.style == "angle" else ("[", "]")

    @torch.inference_mode()
    def generate(self, request: Request) -> Generated:
        ids: list[int] = []
        forced: list[tuple[int, int]] = []
        calls = uncalculated = 0
        while len(ids) < NEW_TOKENS and (not ids or ids[-1] != self.toy.eos_id):
            token = self.draw(request, ids)
            kept, result, missed = self.read(ids, token)
            uncalculated += missed
            ids += kept
            if result is not None:
                calls += 1
                forced.append((len(ids), len(ids) + len(result)))
                ids += result
        ids = ids[:NEW_TOKENS]
        spans = tuple((start, min(end, len(ids))) for start, end in forced if start < len(ids))
        return Generated(tuple(ids), "eos" if ids[-1] == self.toy.eos_id else "length", spans, calls, uncalculated)

    def draw(self, request: Request, ids: list[int]) -> int:
        prompt = torch.tensor([request.prompt_ids]).to(self.toy.device)
        if is_encoder_decoder(self.toy.module):
            start = self.toy.module.config.decoder_start_token_id  # type: ignore[union-attr]
            decoder_ids = prompt.new_tensor([[start, *ids]])
            logits = self.toy.module(input_ids=prompt, decoder_input_ids=decoder_ids).logits[0, -1]
        else:
            logits = self.toy.module(input_ids=torch.cat([prompt, prompt.new_tensor([ids])], 1)).logits[0, -1]
        if self.params.temperature == 0:
            return int(logits.argmax())
        cumulative = filtered_probabilities(logits[None], self.params)[0].double().cumsum(0)
        number = float(uniforms(np.array([request.seed], np.uint64), np.array([len(ids)]))[0])
        return int(torch.searchsorted(cumulative, number * float(cumulative[-1]), right=True))

    def read(self, ids: list[int], token: int) -> tuple[list[int], list[int] | None, int]:
        """Tokens to keep of a drawn one, the calculator's tokens or None, and annotations left uncalculated."""
        before, after = self.text(ids), self.text([*ids, token])
        missed = 0
        for place in range(len(before), len(after)):
            if after[place] != "=":
                continue
            start = after.rfind(self.opening, 0, place)
            expression = after[start + len(self.opening) : place]
            if start < 0 or any(mark in expression for mark in (self.closing, "\n", "=")):
                continue
            value = value_of(expression)
            if value is None:
                missed += 1
                continue
            piece, cut = after[len(before) :], after[len(before) : place + 1]
            kept = [token] if cut == piece else list(self.codec.tables.encode(cut))
            tables = self.codec.tables
            return kept, [*tables.result(canonical(value)), *tables.closing], missed
        return [token], None, missed

    def text(self, ids: list[int]) -> str:
        """Behind an anchor, so that a leading space is kept; special tokens have no text."""
        special = set(self.toy.tokenizer.all_special_ids)
        shown = [token for token in ids if token not in special]
        anchor = self.toy.tokenizer.encode("a", add_special_tokens=False)
        text = self.toy.tokenizer.decode([*anchor, *shown], clean_up_tokenization_spaces=False)
        return str(text).removeprefix("a")


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(0.0, 0, 1.0), (1.0, 0, 1.0), (1.3, 30, 1.0), (1.0, 0, 0.9), (1.2, 50, 0.95)]
)
def test_engine_equals_the_twin(toy: LanguageModel, codec: Codec, temperature: float, top_k: int, top_p: float) -> None:
    params = SamplingParams(temperature, top_k, top_p, NEW_TOKENS, calculator=True)
    requests = [
        Request(problem.id, k, codec.prompt(problem.question), derive_seed("twin", problem.id, k))
        for problem in problems(seed=3, size=8)
        for k in range(3 if temperature else 1)
    ]
    engine = Engine(toy, num_slots=5, style=codec.style, tables=codec.tables)
    outputs = engine.generate(requests, params)
    twin = Twin(toy, codec, params)
    assert outputs == [twin.generate(request) for request in requests]
    assert [output.forced for output in outputs] == [
        tuple(forced_spans(codec.tables, output.token_ids)) for output in outputs
    ]
    if temperature:
        calls = sum(output.calls for output in outputs) / len(outputs)
        print(f"{calls:.2f} calls a completion at temperature {temperature:g}, top_k {top_k}, top_p {top_p:g}")
        assert calls >= MIN_CALLS
        assert any(end - start > 2 for output in outputs for start, end in output.forced)
