"""Greedy decoding with forced runs against one plain forward over each finished row: no cache, no slots, no steps.

The models write annotations, one after the other: what follows a token is in the head, and random layers choose among
it (digits up to 4 lead to an operator, those from 5 on to the `=`).
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from selftrain.config import PromptConfig
from selftrain.data.arithmetic import problems
from selftrain.models import LanguageModel, is_encoder_decoder
from selftrain.prompts import Codec
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.engine import Engine
from tests.sampling.teacher import free_tokens_that_are_not_the_best

GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=48, calculator=True)
TOLERANCE = 1e-4  # of logits of about 10: two that lie nearer may be taken for each other
FIRST, LAST, OPERATORS = tuple("01234"), tuple("56789"), tuple("+-*")


@pytest.fixture(scope="module")
def codec(toy: LanguageModel) -> Codec:
    """Also changes the head, so that the model writes annotations."""
    made = Codec.build(toy.tokenizer, PromptConfig(), is_encoder_decoder(toy.module))
    opening, closing = ("<<", ">>") if made.style == "angle" else ("[", "]")
    follows = {opening: FIRST, **dict.fromkeys(("=", ":", closing), (opening,))}
    follows |= dict.fromkeys(FIRST, OPERATORS) | dict.fromkeys(LAST, ("=",)) | dict.fromkeys(OPERATORS, LAST)
    head = toy.module.get_output_embeddings()  # type: ignore[operator]
    pieces = [piece.strip() for piece in made.tables.pieces[: len(head.weight)]]
    embedded = torch.nn.functional.normalize(toy.module.get_input_embeddings().weight.data, dim=1)  # type: ignore[operator]
    weight = head.weight.data * (0.03 if is_encoder_decoder(toy.module) else 0.3)
    bias = torch.full((len(weight),), -2.0, device=weight.device)
    for last, piece in enumerate(pieces):
        for token in (token for token, after in enumerate(pieces) if after in follows.get(piece, ())):
            weight[token] += embedded[last]
            bias[token] = 0.0
    if is_encoder_decoder(toy.module):
        start = int(toy.module.config.decoder_start_token_id)  # type: ignore[union-attr,arg-type]
        weight[[token for token, piece in enumerate(pieces) if piece == opening]] += embedded[start]
    head.weight, head.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    return made


@pytest.fixture(scope="module")
def asked(codec: Codec) -> list[Request]:
    return [Request(problem.id, 0, codec.prompt(problem.question), 0) for problem in problems(seed=3, size=24)]


@pytest.fixture(scope="module")
def outputs(toy: LanguageModel, codec: Codec, asked: list[Request]) -> list[Generated]:
    return Engine(toy, num_slots=5, style=codec.style, tables=codec.tables).generate(asked, GREEDY)


def test_each_token_that_nobody_forced_is_the_best_of_a_plain_forward(
    toy: LanguageModel, asked: list[Request], outputs: list[Generated]
) -> None:
    for request, output in zip(asked, outputs, strict=True):
        assert free_tokens_that_are_not_the_best(toy, request.prompt_ids, output, TOLERANCE) == []
    assert sum(output.calls for output in outputs) >= 1.5 * len(outputs)
    assert any(end - start > 2 for output in outputs for start, end in output.forced)
    assert len({output.token_ids for output in outputs}) > 3


def test_a_forced_run_at_wrong_places_would_be_seen(
    toy: LanguageModel, asked: list[Request], outputs: list[Generated]
) -> None:
    """The same rows with a token left out of the first run: the model then prefers others."""
    seen = 0
    for request, output in zip(asked, outputs, strict=True):
        if output.forced:
            start, _ = output.forced[0]
            shorter = output.token_ids[:start] + output.token_ids[start + 1 :]
            moved = tuple((max(begin - 1, start), end - 1) for begin, end in output.forced)
            cut = dataclasses.replace(output, token_ids=shorter, forced=moved)
            seen += bool(free_tokens_that_are_not_the_best(toy, request.prompt_ids, cut, TOLERANCE))
    assert seen
