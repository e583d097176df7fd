"""The engine at real size: 200 GSM8K questions against `generate`, with the calculator against plain forwards and
against vLLM, and first tokens against the softmax.

SmolLM2-135M is used where its weights are on this machine already (tests download nothing); worked examples in the
prompt make it write annotations. The encoder-decoder has Flan-T5-small's shape and random weights.

    SELFTRAIN_TEST_PROMPTS=20               # other than 200 questions
    SELFTRAIN_TEST_WORKED=200               # other than 50 behind worked examples, with the calculator
    SELFTRAIN_VLLM_PYTHON=ENV/bin/python    # vLLM's environment; without it vLLM is looked for in this one
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import selftrain
from selftrain.calculator.annotation import value_of
from selftrain.config import DataSpec, PromptConfig
from selftrain.data import load
from selftrain.models import LanguageModel, is_encoder_decoder, load_model, load_tokenizer
from selftrain.prompts import Codec
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.engine import Engine
from selftrain.sampling.vllm_sampler import VllmSampler
from selftrain.sampling.vllm_support import installed, is_known
from selftrain.seeding import derive_seed
from selftrain.toy import make_toy
from selftrain.weights import find_local
from tests.sampling.teacher import free_tokens_that_are_not_the_best, plain_logits

NUM_PROMPTS = int(os.environ.get("SELFTRAIN_TEST_PROMPTS", "200"))
NUM_WORKED = int(os.environ.get("SELFTRAIN_TEST_WORKED", "50"))
NEW_TOKENS, SAMPLES = 24, 2
GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=NEW_TOKENS, calculator=False)
LOGIT_TOLERANCE = 1e-4  # a first difference is allowed only where the two best logits lie so near
VLLM_TOLERANCE = 1e-3  # the same, for other kernels that add up in another order
MIN_CALLS = 1.5  # a completion
CALCULATING = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=40, calculator=True)
SOURCES = [str(Path(selftrain.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]  # for another environment
EXAMPLES = (
    ("Tom has 3 bags of 14 nuts and eats 5 nuts. How many nuts are left?", "<<3*14=42>>\n<<42-5=37>>"),
    ("Eve buys 4 pens for 6 each and a cup for 9. What does she pay?", "<<4*6=24>>\n<<24+9=33>>"),
    ("Max has 20 eggs. He sells 8 eggs and then buys 5 more. How many has he?", "<<20-8=12>>\n<<12+5=17>>"),
)
WORKED = PromptConfig(
    template="".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in EXAMPLES)
    + "Question: {question}\nAnswer:",
    max_prompt_tokens=512,
)


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    folder = find_local("smollm2-135m")
    if folder is None:
        pytest.skip("the weights of smollm2-135m are not on this machine (selftrain run quickstart gets them)")
    return load_model(folder, digest="real")


@pytest.fixture(scope="module")
def flan_t5_shape(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("t5")
    make_toy("random-t5", folder)
    tokenizer = load_tokenizer(folder)
    config: Any = T5Config
    torch.manual_seed(2)
    module = T5ForConditionalGeneration(
        config(
            vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=0,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()  # fmt: skip
    for name, parameter in module.named_parameters():  # wider, so that greedy outputs differ between prompts
        if parameter.ndim == 2 and "relative" not in name:
            parameter.data.mul_(2.0)
    return LanguageModel(module, tokenizer, Path("t5"), "random")


@pytest.fixture(scope="module")
def questions(data_dir: Path) -> list[str]:
    spec = DataSpec(source="gsm8k", path=str(data_dir / "gsm8k" / "dev.jsonl"))
    return [problem.question for problem in load(spec).problems[:NUM_PROMPTS]]


def prompts_for(model: LanguageModel, questions: Sequence[str]) -> list[tuple[int, ...]]:
    codec = Codec.build(model.tokenizer, PromptConfig(), is_encoder_decoder(model.module))
    return sorted((codec.prompt(question) for question in questions), key=len)


def generated(model: LanguageModel, prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """What transformers' `generate` writes, 25 prompts at once, cut after the end token."""
    out: list[list[int]] = []
    decoder_only = not is_encoder_decoder(model.module)
    for start in range(0, len(prompts), 25):
        chunk = prompts[start : start + 25]
        width = max(map(len, chunk))
        ids = torch.zeros(len(chunk), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(chunk):
            place = slice(width - len(prompt), width) if decoder_only else slice(0, len(prompt))
            ids[row, place], mask[row, place] = torch.tensor(prompt), 1
        written = model.module.generate(  # type: ignore[operator]
            ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False,
            eos_token_id=model.eos_id, pad_token_id=model.pad_id,
        )[:, width if decoder_only else 1 :].tolist()  # fmt: skip
        out += [row[: row.index(model.eos_id) + 1] if model.eos_id in row else row for row in written]
    return out


def gap_at(model: LanguageModel, prompt: tuple[int, ...], written: Sequence[int]) -> float:
    """Distance of the two best logits after `written`."""
    best = plain_logits(model, prompt, written)[-1].topk(2).values
    return float(best[0] - best[1])


def check_same(
    model: LanguageModel, prompt: tuple[int, ...], ours: Sequence[int], theirs: Sequence[int], tolerance: float
) -> None:
    """Equal, or different from a token on before which the two best lie within the tolerance."""
    if list(ours) != list(theirs):
        pairs = zip(ours, theirs, strict=False)
        same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
        assert gap_at(model, prompt, ours[:same]) < tolerance, same


def check_against_generate(model: LanguageModel, questions: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_for(model, questions)
    expected = generated(model, prompts)
    requests = [Request(f"q{number}", k, prompt, k) for number, prompt in enumerate(prompts) for k in range(SAMPLES)]

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("the slow path ran")

    with monkeypatch.context() as patch:
        patch.setattr(model.module, "generate", forbidden)
        patch.setattr(model.module, "forward", forbidden)
        outputs = Engine(model, num_slots=64, style="angle").generate(requests, GREEDY)
    texts = [list(output.token_ids) for output in outputs]
    for number, prompt in enumerate(prompts):
        for k in range(SAMPLES):
            check_same(model, prompt, texts[number * SAMPLES + k], expected[number], LOGIT_TOLERANCE)
    assert len({tuple(text) for text in texts}) > NUM_PROMPTS // 2, "outputs differ between prompts"


def test_smollm2_equals_generate(smollm2: LanguageModel, questions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check_against_generate(smollm2, questions, monkeypatch)


def test_t5_equals_generate(
    flan_t5_shape: LanguageModel, questions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_against_generate(flan_t5_shape, questions, monkeypatch)


@pytest.fixture(scope="module")
def calculating(smollm2: LanguageModel, questions: list[str]) -> tuple[Codec, list[Request], list[Generated]]:
    """Each question behind worked examples, and what the engine writes, greedily and with the calculator."""
    codec = Codec.build(smollm2.tokenizer, WORKED, False)
    asked = [
        Request(f"q{number}", 0, codec.prompt(question), derive_seed("real", number))
        for number, question in enumerate(sorted(questions, key=len)[:: max(1, len(questions) // NUM_WORKED)])
    ]
    outputs = Engine(smollm2, num_slots=64, style=codec.style, tables=codec.tables).generate(asked, CALCULATING)
    calls = sum(output.calls for output in outputs) / len(outputs)
    print(f"{calls:.2f} calls a completion, {sum(output.uncalculated for output in outputs)} annotations uncalculated")
    assert calls >= MIN_CALLS
    return codec, asked, outputs


def test_with_the_calculator_each_free_token_is_the_best_of_a_plain_forward(
    smollm2: LanguageModel, calculating: tuple[Codec, list[Request], list[Generated]]
) -> None:
    _, asked, outputs = calculating
    for request, output in zip(asked, outputs, strict=True):
        assert free_tokens_that_are_not_the_best(smollm2, request.prompt_ids, output, LOGIT_TOLERANCE) == []


@pytest.fixture(scope="module")
def vllm_python() -> str:
    python = os.environ.get("SELFTRAIN_VLLM_PYTHON")
    found = installed()
    if python is None and (found is None or not is_known(found[1])):
        pytest.skip(f"needs vLLM 0.32 or 0.33, found {found}; SELFTRAIN_VLLM_PYTHON names another environment's Python")
    return python or sys.executable


def test_vllm_with_the_calculator_equals_the_engine(
    vllm_python: str,
    smollm2: LanguageModel,
    calculating: tuple[Codec, list[Request], list[Generated]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Token by token, but where the two best logits lie within the tolerance; no annotation is closed otherwise."""
    codec, asked, outputs = calculating
    assert len({request.seed for request in asked}) == len(asked)
    longest = max(len(request.prompt_ids) for request in asked) + CALCULATING.max_new_tokens
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(SOURCES))
    with VllmSampler(
        smollm2.path, style=codec.style, precision="fp32", slots=64, max_model_len=longest,
        command=(vllm_python, "-m", "selftrain.sampling.vllm_worker"),
    ) as sampler:  # fmt: skip
        theirs = sampler.generate(asked, CALCULATING)
    different = sum(ours != other for ours, other in zip(outputs, theirs, strict=True))
    print(f"{different} of {len(asked)} differ after a near tie")
    for request, ours, other in zip(asked, outputs, theirs, strict=True):
        check_same(smollm2, request.prompt_ids, ours.token_ids, other.token_ids, VLLM_TOLERANCE)
        assert other.calls == num_computable(codec, other), "an annotation was closed by the model"
        if ours.token_ids == other.token_ids:
            assert ours == other


def num_computable(codec: Codec, output: Generated) -> int:
    """Annotations that have a value, by reading the text."""
    return sum(value_of(found) is not None for found in re.findall(r"<<([^<>=\n]*)=", codec.text(output.token_ids)))


def test_first_tokens_follow_the_softmax(smollm2: LanguageModel, questions: list[str]) -> None:
    """Chi-square of 5,000 draws over the 30 likeliest tokens and the rest; a right sampler fails with chance 1e-4."""
    prompt = prompts_for(smollm2, questions)[0]
    count, kept = 5000, 30
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=1, calculator=False)
    requests = [Request("q", k, prompt, derive_seed("chi", k)) for k in range(count)]
    outputs = Engine(smollm2, num_slots=500, style="angle").generate(requests, params)
    with torch.inference_mode():
        probabilities = torch.softmax(smollm2.module(input_ids=torch.tensor([prompt])).logits[0, -1].double(), 0)
    top = probabilities.topk(kept).indices
    observed = torch.bincount(torch.tensor([output.token_ids[0] for output in outputs]), minlength=len(probabilities))
    expected = torch.cat([probabilities[top], (1 - probabilities[top].sum())[None]]) * count
    seen = torch.cat([observed[top], (count - observed[top].sum())[None]])
    assert float(((seen - expected) ** 2 / expected).sum()) < 66.6  # chi-square, 30 degrees of freedom, 1e-4
