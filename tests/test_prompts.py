"""One tokenisation for training and decoding."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from selftrain.calculator.forcing import Forcer
from selftrain.config import PromptConfig
from selftrain.data.arithmetic import problems
from selftrain.errors import ConfigError
from selftrain.prompts import Codec, annotation_style, chat_prompt, one_line, space_operators
from selftrain.toy import make_toy


@pytest.fixture(scope="module", params=["random-llama", "random-t5"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    folder = tmp_path_factory.mktemp(request.param)
    make_toy(request.param, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Codec.build(tokenizer, PromptConfig(), encoder_decoder=request.param == "random-t5")


def test_a_vocabulary_without_angles_gets_the_bracket_writing(codec: Codec) -> None:
    assert codec.style == ("bracket" if codec.encoder_decoder else "angle")
    assert annotation_style(codec.tokenizer) == codec.style


def test_targets_end_with_the_end_token_and_read_back(codec: Codec) -> None:
    for problem in problems(seed=5, size=20):
        ids = codec.target(problem.rationale or "")
        assert ids[-1] == codec.eos_id and codec.eos_id not in ids[:-1]
        assert codec.text(ids) == codec.written(problem.rationale or "")


def test_a_continuation_keeps_the_separator_also_where_decoding_drops_it(codec: Codec) -> None:
    decoder_only = dataclasses.replace(codec, encoder_decoder=False)
    for problem in problems(seed=5, size=20):
        ids = decoder_only.target(problem.rationale or "")
        assert decoder_only.continuation(ids) == f" {decoder_only.text(ids)}"
    assert codec.continuation(codec.target("#### 3")).lstrip() == codec.text(codec.target("#### 3"))


def test_what_decoding_forces_is_what_training_saw(codec: Codec) -> None:
    """Feed a target's own ids to the automaton: each forced run must be the ids that follow in the target."""
    for problem in problems(seed=6, size=20):
        ids = codec.target(problem.rationale or "")
        forcer, calls, place = Forcer(codec.tables), 0, 0
        state = forcer.start()
        while place < len(ids):
            step = forcer.feed(state, ids[place])
            place += 1
            if step is not None and step.forced:
                calls += 1
                assert step.replace is None
                assert ids[place : place + len(step.forced)] == step.forced
                place += len(step.forced)
        assert calls == 1


def test_decoder_only_prompts_are_the_template_and_encoders_get_an_end_token(codec: Codec) -> None:
    ids = codec.prompt("How many?")
    text = codec.tokenizer.decode(ids)
    if codec.encoder_decoder:
        assert ids[-1] == codec.eos_id
    else:
        assert text == "Question: How many?\nAnswer:"


def test_a_question_that_looks_like_a_template_is_left_alone(codec: Codec) -> None:
    assert "{question}" in str(codec.tokenizer.decode(codec.prompt("what is {question}?"))).replace(" ", "") or (
        codec.encoder_decoder
    )


def test_an_annotation_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    make_toy("random-t5", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="cannot write '<<1"):
        Codec.build(tokenizer, PromptConfig(annotation="angle"), encoder_decoder=True)


def test_lines_become_sentences() -> None:
    assert one_line("3+4=7\nSo 7.\n#### 7") == "3+4=7. So 7. #### 7."


def test_a_tokenizer_without_chat_template_has_no_chat_prompt(codec: Codec) -> None:
    assert chat_prompt(codec.tokenizer, "?") is None
    codec.tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    try:
        found = chat_prompt(codec.tokenizer, "3")
        assert found is not None and "3" in str(codec.tokenizer.decode(found))
    finally:
        codec.tokenizer.chat_template = None


@pytest.mark.parametrize(
    ("text", "style", "expected"),
    [
        (
            "Tom-boy pays $5+3=$ [ 5 + 3 = 8 ] 8\n#### -8",
            "bracket",
            "Tom - boy pays $ 5 + 3 = $ [ 5 + 3 = 8 ] 8\n#### -8",
        ),
        ("2 - 5= [ 2 - 5 = -3 ] -3", "bracket", "2 - 5 = [ 2 - 5 = -3 ] - 3"),
        ("6*7=<<6*7=42>>42", "angle", "6 * 7 = <<6*7=42>>42"),
        ("a  / b and 1,000.50", "bracket", "a / b and 1,000.50"),
    ],
)
def test_operators_get_spaces_outside_annotations(text: str, style: Any, expected: str) -> None:
    assert space_operators(text, style) == expected
    assert space_operators(expected, style) == expected


def test_spacing_is_applied_to_questions_and_rationales_alike(codec: Codec) -> None:
    spaced = dataclasses.replace(codec, config=codec.config.model_copy(update={"spacing": "operators"}))
    assert spaced.prompt("3-2?") == codec.prompt("3 - 2?")
    assert spaced.target("3-2=<<3-2=1>>1\n#### 1") == codec.target("3 - 2 = <<3-2=1>>1\n#### 1")
