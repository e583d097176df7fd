"""The rivals do what ours does: near-greedy they write the same ids, and the paper's calculator forces the same."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from benchmarks.rivals import DecodingCalculator, open_system
from benchmarks.systems import Setup
from benchmarks.t5 import Shape, t5_task
from benchmarks.work import Task, codec_of

TINY = Shape(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=428, num_words=400)


def setup(system: str, rows: int = 3, samples: int = 2) -> Setup:
    return Setup(system, rows, samples, "cpu", "fp32", 1)


@pytest.fixture(scope="module")
def calculator(task: Task) -> DecodingCalculator:
    codec = codec_of(task)
    return DecodingCalculator(codec.tokenizer, codec.tables, 2, codec.eos_id)


def test_the_result_and_its_closing_are_forced_token_by_token(task: Task, calculator: DecodingCalculator) -> None:
    codec = codec_of(task)
    text, forced = "48/2 = <<48/2=", []
    while (token := calculator.next_forced(text)) is not None:
        forced.append(token)
        text += codec.tables.pieces[token]
    assert tuple(forced) == (*codec.tables.result("24"), *codec.tables.closing)
    assert text == "48/2 = <<48/2=24>>"


@pytest.mark.parametrize("text", ["48/2 = 24", "<<48/2", "<<48/2=24>>24", "<<3/0=", "<<two*3=", "<<48/2=7"])
def test_elsewhere_the_model_is_free(calculator: DecodingCalculator, text: str) -> None:
    assert calculator.next_forced(text) is None


def test_finished_rows_are_not_even_decoded(
    task: Task, calculator: DecodingCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codec_of(task)
    call = list(codec.tables.encode("<<2+3="))
    rows = torch.tensor([[0, 0, *call], [0, 0, *call[:-1], codec.eos_id]])
    decoded: list[list[int]] = []
    decode = codec.tokenizer.decode

    def counted(ids: list[int], **options: bool) -> str:
        decoded.append(ids)
        return str(decode(ids, **options))

    monkeypatch.setattr(calculator, "tokenizer", SimpleNamespace(decode=counted))
    scores = calculator(rows, torch.zeros(2, len(codec.tokenizer)))
    assert decoded == [call]
    assert int(scores[0].argmax()) == codec.tables.result("5")[0]
    assert torch.isinf(scores[0]).sum() == len(codec.tokenizer) - 1
    assert (scores[1] == 0).all()


@pytest.mark.parametrize(("rival", "own"), [("hf", "ours-plain"), ("hf-calculator", "ours")])
def test_near_greedy_all_write_the_same(task: Task, rival: str, own: str) -> None:
    cold = dataclasses.replace(task, temperature=1e-4)
    theirs = open_system(setup(rival), cold, cold.work)(0)
    ours = open_system(setup(own), cold, cold.work)(0)
    assert theirs.token_ids == ours.token_ids
    assert len(set(theirs.token_ids)) > 3


def test_samples_of_a_question_differ_and_seeds_repeat(task: Task) -> None:
    hot = dataclasses.replace(task, temperature=5.0)
    generate = open_system(setup("hf", rows=4), hot, hot.work)
    first = generate(1).token_ids
    assert len(first) == len(hot.work) * 2
    assert len(set(first)) == len(first)
    assert generate(1).token_ids == first
    assert generate(2).token_ids != first


def test_ours_states_what_it_did(task: Task) -> None:
    said = open_system(setup("ours"), task, task.work)(0).said
    assert said["calls"] > 0
    assert said["parameters"] > 0


@pytest.mark.parametrize("system", ["t5", "t5-hf"])
def test_the_encoder_decoders_length_is_forced(tmp_path_factory: pytest.TempPathFactory, system: str) -> None:
    folder = tmp_path_factory.mktemp("t5")
    tiny = t5_task(folder, lambda message: None, [5, 9, 7], TINY, num_questions=4)
    answers = open_system(setup(system, rows=8, samples=8), tiny, tiny.work)(0)
    assert [len(ids) for ids in answers.token_ids] == [64] * 32
    assert len(set(answers.token_ids)) > 4
