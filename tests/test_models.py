"""Loading, saving and the head."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from selftrain.errors import ModelError
from selftrain.models import LanguageModel, load_model, save_model
from selftrain.toy import make_toy
from selftrain.weights import weights_digest


@pytest.fixture(scope="module", params=["random-llama", "random-t5"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp(request.param)
    make_toy(request.param, folder)
    return load_model(folder, digest="toy")


def test_saved_weights_come_back(toy: LanguageModel, tmp_path: Path) -> None:
    digest = save_model(toy, tmp_path / "saved")
    assert digest == weights_digest(tmp_path / "saved")
    again = load_model(tmp_path / "saved", digest=digest)
    for name, value in toy.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name


def test_a_tokenizer_without_end_token_is_refused(toy: LanguageModel, tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"eos_token"', '"was_eos_token"'))
    with pytest.raises(ModelError, match="no end token"):
        load_model(tmp_path, digest="x")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer could be loaded"):
        load_model(tmp_path, digest="x")


def test_more_tokens_than_embedding_rows_is_refused_with_both_numbers(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path)
    model = load_model(tmp_path, digest="x")
    model.tokenizer.add_tokens([f"new{number}" for number in range(500)])
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer has \d+ tokens, the embedding only \d+ rows"):
        load_model(tmp_path, digest="x")


def test_a_token_id_beyond_the_embedding_is_refused_though_there_are_few_tokens(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[next(name for name in vocabulary if name.isalpha())] = 70_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"tokenizer has 70001 tokens, the embedding only \d+ rows"):
        load_model(tmp_path, digest="x")


@pytest.mark.parametrize("model_type", ["llama", "of-its-own"])
@pytest.mark.parametrize("trust", [False, True])
def test_a_model_s_own_code_runs_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: bool, model_type: str
) -> None:
    """Every file that may name code does; what it names leaves a mark as soon as it is imported."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder, mark = tmp_path / "model", tmp_path / "mark"
    make_toy("random-llama", folder)
    (folder / "theirs.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        f"class Config(LlamaConfig):\n    model_type = {model_type!r}\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
        "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    names = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    for file, code in (
        ("config.json", {"model_type": model_type, "auto_map": names}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "theirs.Tokenizer"]}}),
    ):
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **code}))
    if trust or model_type == "llama":
        load_model(folder, digest="x", trust_remote_code=trust)
    else:
        with pytest.raises(ModelError, match="contains custom code"):
            load_model(folder, digest="x")
    assert mark.exists() == trust


def lose_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in sorted(weights) if "layernorm" in name)]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def put_a_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    next(value for name, value in sorted(weights.items()) if "mlp" in name).view(-1)[5] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def shrink_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "mlp" in name)
    weights[name] = weights[name][:1].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut(size: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: size if size >= 0 else len(whole) + size])

    return damage


def configured(key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, key: value}))

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lose_a_tensor, "weights lack model.layers.0.input_layernorm", id="a tensor is missing"),
        pytest.param(put_a_nan, "holds NaN or infinity", id="NaN"),
        pytest.param(shrink_a_tensor, "weights lack|could be loaded", id="another shape"),
        pytest.param(cut(0), "could be loaded", id="empty"),
        pytest.param(cut(4), "could be loaded", id="four bytes"),
        pytest.param(cut(-1), "could be loaded", id="the last byte is missing"),
        pytest.param(configured("hidden_size", "many"), "could be loaded", id="text for a number"),
        pytest.param(configured("num_hidden_layers", 10**9), "has num_hidden_layers 1e\\+09, at most", id="layers"),
        pytest.param(configured("vocab_size", 10**9), "asks for [0-9]{11} parameters, its weights", id="rows"),
        pytest.param(configured("num_attention_heads", 0), "could be loaded", id="division by zero"),
        pytest.param(configured("pad_token_id", 10**9), "could be loaded", id="an assertion"),
        pytest.param(configured("vocab_size", 0), "could be loaded", id="no rows"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    make_toy("random-llama", tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelError, match=says):
        load_model(tmp_path, digest="x")
