"""The engine at real size: 200 GSM8K questions against `generate`, and first tokens against the softmax.

SmolLM2-135M is used where its weights are on this machine already (tests download nothing); the encoder-decoder
has Flan-T5-small's shape and random weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.config import DataSpec, PromptConfig
from selftrain.data import load
from selftrain.models import LanguageModel, is_encoder_decoder, load_model, load_tokenizer
from selftrain.prompts import Codec
from selftrain.sampling.base import Request, SamplingParams
from selftrain.sampling.engine import Engine
from selftrain.seeding import derive_seed
from selftrain.toy import make_toy
from selftrain.weights import find_local

NUM_PROMPTS, NEW_TOKENS, SAMPLES = 200, 24, 2
GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=NEW_TOKENS, calculator=False)
LOGIT_TOLERANCE = 1e-4  # a first difference is allowed only where the two best logits lie so near


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


@torch.inference_mode()
def gap_at(model: LanguageModel, prompt: tuple[int, ...], written: Sequence[int]) -> float:
    """Distance of the two best logits after `written`."""
    if is_encoder_decoder(model.module):
        start = model.module.config.decoder_start_token_id  # type: ignore[union-attr]
        out = model.module(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *written]]))
    else:
        out = model.module(input_ids=torch.tensor([[*prompt, *written]]))
    best = out.logits[0, -1].topk(2).values
    return float(best[0] - best[1])


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
            ours, theirs = texts[number * SAMPLES + k], expected[number]
            if ours != theirs:
                pairs = zip(ours, theirs, strict=False)
                same = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
                assert gap_at(model, prompt, ours[:same]) < LOGIT_TOLERANCE, (number, same)
    assert len({tuple(text) for text in texts}) > NUM_PROMPTS // 2, "outputs differ between prompts"


def test_smollm2_equals_generate(smollm2: LanguageModel, questions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check_against_generate(smollm2, questions, monkeypatch)


def test_t5_equals_generate(
    flan_t5_shape: LanguageModel, questions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_against_generate(flan_t5_shape, questions, monkeypatch)


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
