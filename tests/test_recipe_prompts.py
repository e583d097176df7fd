"""The `prompt` section of every gsm8k recipe, with a tokenizer that cuts text as its model's does."""

from __future__ import annotations

import string
from typing import Any

import pytest

from selftrain.calculator.forcing import Forcer
from selftrain.config import RunConfig
from selftrain.prompts import Codec
from selftrain.recipe import load_config, recipe_names
from tests.lookalikes import byte_fallback, byte_level, metaspace_unigram

RECIPES = [name for name in recipe_names() if name.startswith("gsm8k-")]
CHARS = "".join(char for char in string.printable if char not in "\t\r\x0b\x0c")
WORDS = ["##", "####", " of", " pens", "\n\n", "Answer", " Answer"]

QUESTION = "A set of 6-inch boxes costs $5+2 each. How many dollars are 12 boxes?"
RATIONALE = (
    "One is 5+2=<<5+2=7>>7 dollars.\nAll are 12*7=$<<12*7=84>>84, <<84=84>>84 and 1000/8=<<1000/8=125>>125\n#### 84"
)

ALPACA = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
{question}

### Response:"""
PLAIN = "Question: {question}\nAnswer:"
SPACED = "A set of 6 - inch boxes costs $ 5 + 2 each. How many dollars are 12 boxes?"


def t5() -> Any:
    return metaspace_unigram([" [", " ]", " pens", "12", " 12", " 84", "84", " ="], CHARS)


def llama_1() -> Any:
    """Digits are single and `<` is a token, merged with another one; a newline is a byte."""
    chars = CHARS.replace("\n", "").replace(" ", "")
    return byte_fallback(["<<", ">>", " =", "##", " o"], chars, bos_token="<s>", eos_token="</s>")


def gemma() -> Any:
    return byte_fallback(
        ["<<", ">>", "##", "\n\n"], CHARS.replace(" ", ""), False, bos_token="<bos>", eos_token="<eos>"
    )


def gpt(digits: int, *numbers: str) -> Any:
    return byte_level([*WORDS, "<<", " <<", ">>", "=<<", *numbers], CHARS, digits, eos_token="<|end|>")


def lookalike(model: str) -> Any:
    """By the model that a recipe names: Llama-3 has numbers of up to three digits, Qwen and SmolLM2 single ones."""
    if "flan-t5" in model:
        return t5()
    if "gemma" in model:
        return gemma()
    if model in ("huggyllama/llama-7b", "meta-llama/Llama-2-7b-hf"):
        return llama_1()
    if "Llama-3" in model:
        return gpt(3, "12", "84", "100", "125")
    assert "Qwen3" in model or model == "smollm2-135m", f"what does the tokenizer of {model} look like?"
    return gpt(1)


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> tuple[RunConfig, Codec]:
    config = load_config(request.param)
    tokenizer = lookalike(config.model)
    return config, Codec.build(tokenizer, config.prompt, "t5" in config.model)


def test_the_papers_five_are_there() -> None:
    assert {"gsm8k-flan-t5-base", "gsm8k-flan-t5-large"} < set(RECIPES)
    assert {"gsm8k-llama-1-7b", "gsm8k-llama-2-7b", "gsm8k-llama-3-8b"} < set(RECIPES)


def test_the_lookalikes_cut_numbers_as_their_models_do() -> None:
    def cut(tokenizer: Any) -> int:
        return len(tokenizer.encode("=1000", add_special_tokens=False)) - 1

    assert cut(lookalike("meta-llama/Meta-Llama-3-8B")) == 2  # 100, 0
    assert cut(lookalike("Qwen/Qwen3-0.6B-Base")) == cut(lookalike("google/gemma-3-1b-pt")) == 4


def test_a_prompt_is_what_the_papers_template_gives(recipe: tuple[RunConfig, Codec]) -> None:
    config, codec = recipe
    if codec.encoder_decoder:
        expected = SPACED
    elif "-7b" in config.name or "-8b" in config.name:
        expected = ALPACA.replace("{question}", QUESTION)
    else:  # models that the paper does not have
        expected = PLAIN.replace("{question}", QUESTION)
    ids = codec.prompt(QUESTION)
    assert codec.prompt_text(QUESTION) == expected
    if codec.encoder_decoder:
        assert ids[-1] == codec.eos_id and codec.text(ids) == expected
    else:
        assert str(codec.tokenizer.decode(list(ids))) == expected and codec.tokenizer.bos_token_id not in ids
    assert codec.eos_id not in ids[:-1]


def test_a_target_is_read_back(recipe: tuple[RunConfig, Codec]) -> None:
    _, codec = recipe
    ids = codec.target(RATIONALE)
    assert ids[-1] == codec.eos_id and codec.eos_id not in ids[:-1]
    if codec.encoder_decoder:  # the paper: one line, spaces around operators, <<84=84>> deleted
        assert codec.style == "bracket" and "<" not in codec.tokenizer.get_vocab()
        assert codec.text(ids) == (
            "One is 5 + 2 = [ 5 + 2 = 7 ] 7 dollars. All are 12 * 7 = $ [ 12 * 7 = 84 ] 84, 84 and "
            "1000 / 8 = [ 1000 / 8 = 125 ] 125. #### 84."
        )
    else:
        assert codec.style == "angle" and codec.text(ids) == RATIONALE
        assert codec.continuation(ids) == codec.config.separator + RATIONALE


def test_what_is_forced_is_what_was_trained_on(recipe: tuple[RunConfig, Codec]) -> None:
    _, codec = recipe
    ids = codec.target(RATIONALE)
    forcer, state, place, results = Forcer(codec.tables), Forcer.start(), 0, []
    while place < len(ids):
        step = forcer.feed(state, ids[place])
        place += 1
        if step is not None and step.forced:
            assert step.replace is None and ids[place : place + len(step.forced)] == step.forced
            results.append("".join(codec.tables.pieces[token] for token in step.forced))
            place += len(step.forced)
    ending = ">>" if codec.style == "angle" else " ]"
    values = ["7", "84", "84", "125"] if codec.style == "angle" else [" 7", " 84", " 125"]
    assert results == [value + ending for value in values] and state.uncalculated == 0
