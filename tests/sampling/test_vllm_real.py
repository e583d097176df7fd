"""vLLM itself, where it is installed: against the engine, and against the distribution it should draw from.

Two tiny models with heads of a width that vLLM's CPU build takes. `random`: random weights. `chain`: one layer that
adds nothing, so that the next token depends on the last one alone, as a table says.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import PromptConfig
from selftrain.data.arithmetic import problems
from selftrain.models import LanguageModel, load_model
from selftrain.prompts import Codec
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.engine import Engine
from selftrain.sampling.vllm_sampler import VllmSampler
from selftrain.sampling.vllm_support import installed, is_known
from selftrain.seeding import derive_seed
from selftrain.toy import make_toy

FOUND = installed()
pytestmark = pytest.mark.skipif(
    FOUND is None or not is_known(FOUND[1]), reason=f"needs vLLM 0.32 or 0.33, found {FOUND}"
)

GREEDY = SamplingParams(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=24, calculator=True)
SAMPLED = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=24, calculator=True)
CHI_SQUARE = 33.4  # exceeded by chance once in a million, at 4 degrees of freedom

# last token -> next tokens with their probabilities; any other token goes on with `<<`
CHAIN = {
    "<<": {"7": 0.6, "9": 0.4},
    "7": {"*": 1.0},
    "9": {"*": 1.0},
    "*": {"6": 1.0},
    "6": {"=": 0.55, "=<<": 0.45},
    "=": {"5": 1.0},
    "5": {"1": 1.0},
    "1": {">>": 1.0},
    ">>": {"<<": 0.7, "\n": 0.3},
    "\n": {"<|end|>": 1.0},
    "?": {"a": 0.4, "b": 0.3, "c": 0.15, "d": 0.1, "e": 0.05},
}


def save_llama(folder: Path, hidden: int, change: Any = None, **more: Any) -> LanguageModel:
    """A llama of one or two layers with the toy's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_toy("random-llama", folder, seed=3)
    model = load_model(folder, digest="toy")
    given: Any = {
        "vocab_size": len(model.tokenizer), "hidden_size": hidden, "intermediate_size": 64,
        "num_attention_heads": hidden // 32, "num_key_value_heads": hidden // 32, "max_position_embeddings": 256,
        "bos_token_id": None, "eos_token_id": model.eos_id, "pad_token_id": model.pad_id, **more,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = LlamaForCausalLM(LlamaConfig(**given))
    if change is not None:
        change(module, model.tokenizer.get_vocab())
    module.save_pretrained(folder)
    leaks = {"do_sample": True, "temperature": 0.1, "top_k": 1, "eos_token_id": [model.eos_id, piece_id(model, "7")]}
    (folder / "generation_config.json").write_text(json.dumps(leaks))
    return load_model(folder, digest="toy")


def piece_id(model: LanguageModel, piece: str) -> int:
    return int(model.tokenizer.get_vocab()[piece.replace("\n", "Ċ")])


def make_chain(module: Any, vocab: dict[str, int]) -> None:
    import torch

    with torch.no_grad():
        size, hidden = module.config.vocab_size, module.config.hidden_size
        for layer in module.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        module.model.embed_tokens.weight.copy_(torch.eye(size, hidden))
        table = torch.full((size, size), -30.0)  # [last, next] -> logit
        table[:, vocab["<<"]] = 0.0
        for last, following in CHAIN.items():
            row = table[vocab[last.replace("\n", "Ċ")]]
            row.fill_(-30.0)
            for piece, probability in following.items():
                row[vocab[piece.replace("\n", "Ċ")]] = math.log(probability)
        module.lm_head.weight.zero_()
        module.lm_head.weight[:, :size] = table.T / math.sqrt(hidden)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return save_llama(
        tmp_path_factory.mktemp("random"), 128, num_hidden_layers=2, initializer_range=0.2, tie_word_embeddings=True
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("chain")
    return save_llama(folder, 512, make_chain, num_hidden_layers=1, tie_word_embeddings=False)


def opened(model: LanguageModel) -> VllmSampler:
    return VllmSampler(model.path, style="angle", precision="fp32", slots=16, max_model_len=256, threads=1)


@pytest.fixture(scope="module")
def chain_sampler(chain: LanguageModel) -> Iterator[VllmSampler]:
    with opened(chain) as sampler:
        yield sampler


def codec_of(model: LanguageModel) -> Codec:
    return Codec.build(model.tokenizer, PromptConfig(), False)


def engine_of(model: LanguageModel, codec: Codec) -> Engine:
    return Engine(model, num_slots=8, style=codec.style, tables=codec.tables)


def requests(codec: Codec, count: int, samples: int) -> list[Request]:
    return [
        Request(problem.id, k, codec.prompt(problem.question), derive_seed("real", problem.id, k))
        for problem in problems(seed=9, size=count)
        for k in range(samples)
    ]


def spans(codec: Codec, output: Generated) -> list[str]:
    return [codec.text(output.token_ids[start:end]) for start, end in output.forced]


def test_greedy_equals_the_engine(random_model: LanguageModel) -> None:
    codec = codec_of(random_model)
    asked = requests(codec, 40, 1)
    expected = engine_of(random_model, codec).generate(asked, GREEDY)
    with opened(random_model) as sampler:
        assert sampler.generate(asked, GREEDY) == expected
    assert len({output.token_ids for output in expected}) > 10


def test_the_calculator_equals_the_engines(chain: LanguageModel, chain_sampler: VllmSampler) -> None:
    codec = codec_of(chain)
    asked = requests(codec, 12, 1)
    expected = engine_of(chain, codec).generate(asked, GREEDY)
    before = chain_sampler.figures["segments"]
    assert chain_sampler.generate(asked, GREEDY) == expected
    assert {output.calls for output in expected} == {3}
    assert chain_sampler.figures["segments"] == before + 3 * 12  # a stop at each call, and none at the model's own `7`
    assert codec.text(expected[0].token_ids).startswith("<<7*6=42>>")
    off = SamplingParams(0.0, 0, 1.0, 24, calculator=False)
    expected_off = engine_of(chain, codec).generate(asked, off)
    assert chain_sampler.generate(asked, off) == expected_off
    assert "<<7*6=51>>" in codec.text(expected_off[0].token_ids)


def test_every_annotation_is_closed_by_us(chain: LanguageModel, chain_sampler: VllmSampler) -> None:
    codec = codec_of(chain)
    before = dict(chain_sampler.figures)
    outputs = chain_sampler.generate(requests(codec, 12, 8), SAMPLED)
    written = Counter(span for output in outputs for span in spans(codec, output))
    assert {span for span in written if span.endswith(">>")} == {"42>>", "54>>"}
    calls = sum(output.calls for output in outputs)
    assert calls >= 1.5 * len(outputs)
    assert sum(output.uncalculated for output in outputs) == 0
    assert "51" not in "".join(codec.text(output.token_ids) for output in outputs)
    assert chain_sampler.figures["dropped"] == before["dropped"]
    assert chain_sampler.figures["segments"] > before["segments"] + calls
    assert len({output.token_ids for output in outputs[:8]}) > 1
    assert {output.stop for output in outputs} == {"eos", "length"}


def test_draws_follow_the_softmax(chain: LanguageModel, chain_sampler: VllmSampler) -> None:
    codec = codec_of(chain)
    prompt = (*codec.prompt("How many")[:-1], piece_id(chain, "?"))
    params = SamplingParams(1.0, 0, 1.0, 1, calculator=True)
    asked = [Request("q", k, prompt, derive_seed("softmax", k)) for k in range(2000)]
    drawn = Counter(output.token_ids[0] for output in chain_sampler.generate(asked, params))
    expected = {piece_id(chain, piece): 2000 * share for piece, share in CHAIN["?"].items()}
    assert set(drawn) == set(expected)
    assert sum((drawn[token] - count) ** 2 / count for token, count in expected.items()) < CHI_SQUARE


def test_the_prefix_cache_is_used(chain: LanguageModel, chain_sampler: VllmSampler) -> None:
    codec = codec_of(chain)
    long = " ".join(["How many pens?"] * 12)
    before = dict(chain_sampler.figures)
    chain_sampler.generate([Request("long", 0, codec.prompt(long), 1)], GREEDY)
    reusable = chain_sampler.figures["reusable"] - before["reusable"]
    assert chain_sampler.figures["cached"] - before["cached"] >= reusable >= 64
