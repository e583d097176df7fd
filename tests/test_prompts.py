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
from selftrain.errors import ConfigError, ModelError
from selftrain.prompts import Codec, annotation_style, one_line, space_operators
from selftrain.toy import make_toy
from tests.lookalikes import byte_level


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


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
LETTERS = "".join(chr(code) for code in range(32, 127)) + "\n"


def chat_tokenizer(template: str | None = None) -> Any:
    tokenizer = byte_level(["user", "assistant", " of"], LETTERS, bos_token="<s>", eos_token="<|end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def ids_of(tokenizer: Any, message: str, template: str | None = None) -> tuple[int, ...]:
    """What transformers makes of it."""
    turns = [{"role": "user", "content": message}]
    told = {"chat_template": template} if template else {}
    return tuple(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False, **told))


@pytest.mark.parametrize("chat", [CHATML, WITH_BOS])
@pytest.mark.parametrize("given", ["model", "text"])
@pytest.mark.parametrize("template", ["{question}", "Question: {question}\nAnswer:"])
def test_a_chat_template_goes_around_the_template(chat: str, given: str, template: str) -> None:
    tokenizer = chat_tokenizer(chat if given == "model" else WITH_BOS.upper())
    prompt = PromptConfig(template=template, chat_template="model" if given == "model" else chat, separator="")
    codec = Codec.build(tokenizer, prompt, encoder_decoder=False)
    for question in ("6 boxes of 7?", "  what is {{ 7*7 }} in {question}? "):
        expected = ids_of(tokenizer, template.replace("{question}", question), None if given == "model" else chat)
        assert codec.prompt(question) == codec.base_prompt(question) == expected
        assert tuple(tokenizer.encode(codec.prompt_text(question), add_special_tokens=False)) == expected
    assert "49" not in codec.prompt_text("{{ 7*7 }}"), "a question is no template"
    target = codec.target("6*7=<<6*7=42>>42\n#### 42")
    assert target[-1] == tokenizer.eos_token_id, "the tokenizer's end token, not <|im_end|>"
    assert codec.text(target) == codec.continuation(target) == "6*7=<<6*7=42>>42\n#### 42"


@pytest.mark.parametrize("chat", [CHATML, WITH_BOS])
def test_there_is_one_bos_whoever_writes_it(chat: str) -> None:
    tokenizer = chat_tokenizer()
    ids = Codec.build(tokenizer, PromptConfig(chat_template=chat, bos=True), encoder_decoder=False).prompt("7?")
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    without = Codec.build(tokenizer, PromptConfig(chat_template=chat), encoder_decoder=False).prompt("7?")
    assert without == (ids if chat == WITH_BOS else ids[1:])


def test_a_base_model_is_asked_through_its_own_chat_template_unless_one_is_named() -> None:
    plain, own = chat_tokenizer(), chat_tokenizer(CHATML)
    codec = Codec.build(plain, PromptConfig(), encoder_decoder=False)
    assert codec.base_prompt("7?") == codec.prompt("7?")
    codec = Codec.build(own, PromptConfig(), encoder_decoder=False)
    assert codec.base_prompt("7?") == ids_of(own, "7?") != codec.prompt("7?")
    assert codec.prompt_text("7?") == "Question: 7?\nAnswer:"


def test_an_encoder_gets_its_end_token_behind_the_chat_too(codec: Codec) -> None:
    chat = codec.config.model_copy(update={"chat_template": "{% for m in messages %}[ {{ m.content }} ]{% endfor %}"})
    chatted = Codec.build(codec.tokenizer, chat, codec.encoder_decoder)
    assert chatted.prompt_text("How many?") == f"[ {codec.prompt_text('How many?')} ]"
    assert (chatted.prompt("How many?")[-1] == codec.eos_id) == codec.encoder_decoder


def test_a_date_in_a_chat_template_stays_the_same() -> None:
    chat = "  {% if true %}{{ strftime_now('%d %b %Y') }}|{% endif %}\n{{ messages[0].content }}"
    codec = Codec.build(chat_tokenizer(chat), PromptConfig(template="{question}", chat_template="model"), False)
    assert codec.prompt_text("7?") == "26 Jul 2024|7?"


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ("model", "the tokenizer of this model has no chat template"),
        ("{% for m in messages %}{{ m.content }}", r"cannot be carried out \(TemplateSyntaxError"),
        ("{{ messages[0].content.nothing.there }}", r"cannot be carried out \(UndefinedError"),
        ("{{ messages[0].content + 1 }}", r"cannot be carried out \(TypeError"),
        ("{{ raise_exception('messages: not for you') }}", r"cannot be carried out .*not for you"),
        ("{{ ''.__class__.__mro__ }}{{ messages[0].content }}", r"cannot be carried out \(SecurityError"),
        ("{{ messages.append(1) }}", r"cannot be carried out \(SecurityError"),
        ("You answer messages.", "leaves the question out: it gives 'You answer messages.'"),
    ],
)
def test_a_chat_template_that_cannot_be_is_refused(chat: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Codec.build(chat_tokenizer(), PromptConfig(chat_template=chat), encoder_decoder=False)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("chat", "error"),
    [
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ '%(x)s' % {} }}", "KeyError"),
        ("{{ '{}'.format() }}", "IndexError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ range(10 ** 9) }}", "OverflowError"),
        ("{{ 'a' * 10 ** 18 }}", "MemoryError"),
    ],
)
def test_a_models_own_broken_chat_template_is_the_models(chat: str, error: str) -> None:
    tokenizer = chat_tokenizer(chat)
    with pytest.raises(ModelError, match=f"The model's chat template cannot be carried out .{error}"):
        Codec.build(tokenizer, PromptConfig(chat_template="model"), encoder_decoder=False)
    codec = Codec.build(tokenizer, PromptConfig(), encoder_decoder=False)
    with pytest.raises(ModelError, match="The model's chat template"):
        codec.base_prompt("7?")


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
