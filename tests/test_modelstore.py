"""The models of a run: resolved once, released and made again, handed over whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import ModelError, RunError
from selftrain.models import load_model, load_tokenizer, save_model
from selftrain.modelstore import ModelRef, ModelStore, check_same_tokens
from selftrain.progress import Silent
from selftrain.recipe import load_config
from selftrain.rundir import RunDir
from selftrain.stagefolder import write_json
from selftrain.toy import make_toy
from selftrain.weights import weights_digest


def warnings_of(run: RunDir) -> list[str]:
    events = [json.loads(line) for line in (run.path / "journal.jsonl").read_text().splitlines()]
    return [event["message"] for event in events if event["event"] == "warning"]


def store(run: RunDir, model: str = "random-llama", *overrides: str) -> ModelStore:
    return ModelStore(load_config("smoke", [f"model={model}", *overrides]), run, Silent())


def run_dir(tmp_path: Path) -> RunDir:
    return RunDir.open(tmp_path / "run", load_config("smoke"))


def test_a_toy_is_made_once(tmp_path: Path) -> None:
    with run_dir(tmp_path) as run:
        first = store(run).base()
        assert store(run).base() == first
        assert first.digest == weights_digest(run.path / "base")


def test_weights_that_changed_under_a_run_are_refused(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path / "mine", seed=1)
    with run_dir(tmp_path) as run:
        first = store(run, str(tmp_path / "mine")).base()
        assert store(run, str(tmp_path / "mine")).base() == first
        make_toy("random-llama", tmp_path / "mine", seed=2)
        with pytest.raises(RunError, match="has other weights now"):
            store(run, str(tmp_path / "mine")).base()


def test_an_own_warm_up_model_is_resolved_once_and_must_stay_the_same(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path / "mine", seed=3)
    with run_dir(tmp_path) as run:
        assert store(run).own_warmup(store(run).base()) is None
        models = store(run, "random-llama", f"warmup_model={tmp_path / 'mine'}")
        base = models.base()
        own = models.own_warmup(base)
        assert own is not None and (own.path, own.digest) == (tmp_path / "mine", weights_digest(tmp_path / "mine"))
        assert own.digest != base.digest and models.base() == base
        make_toy("random-llama", tmp_path / "mine", seed=4)
        with pytest.raises(RunError, match="has other weights now"):
            models.own_warmup(base)


def test_a_warm_up_model_with_other_tokens_is_refused(tmp_path: Path) -> None:
    for name in ("random-llama", "random-t5"):
        make_toy(name, tmp_path / name)
    check_same_tokens(tmp_path / "random-llama", tmp_path / "random-llama")
    sizes = [len(load_tokenizer(tmp_path / name)) for name in ("random-t5", "random-llama")]
    expected = f"its vocabulary has {sizes[0]} tokens, the base model's {sizes[1]}; they differ, such as in "
    with pytest.raises(ModelError, match=expected):
        check_same_tokens(tmp_path / "random-t5", tmp_path / "random-llama")
    other = load_tokenizer(tmp_path / "random-llama")
    other.eos_token = "e"
    shutil.copytree(tmp_path / "random-llama", tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"ends its text with 'e', the base model with '<\|end\|>'"):
        check_same_tokens(tmp_path / "other", tmp_path / "random-llama")


def trained(models: ModelStore, run: RunDir, seeds: list[int]) -> ModelRef:
    """A stage that "trains" a toy of the next seed."""

    def work(folder: Path) -> dict[str, Any]:
        make_toy("random-llama", folder / "toy", seed=seeds.pop(0))
        model = load_model(folder / "toy", digest="")
        return {"weights": save_model(model, folder / "model")}

    def make() -> ModelRef:
        done = run.stage("1-iteration/sft", inputs={}, settings={}, work=work)
        return ModelRef(done.name, done.folder / "model", done.figures["weights"])

    return models.make("1-iteration/sft", make)


def test_released_weights_are_made_again_and_must_be_the_same(tmp_path: Path) -> None:
    with run_dir(tmp_path) as run:
        models = store(run)
        model = trained(models, run, [5, 5, 6])
        models.release_all_but()
        assert not model.path.exists()
        assert models.open(model, "fp32").digest == model.digest
        assert weights_digest(model.path) == model.digest
        models.release_all_but()
        with pytest.raises(RunError, match="gave other weights than the first time"):
            models.open(model, "fp32")


def flip_a_bit(folder: Path) -> None:
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-3] ^= 1
    (folder / "model.safetensors").write_bytes(weights)


def test_damaged_weights_are_trained_again_and_not_loaded(tmp_path: Path) -> None:
    with run_dir(tmp_path) as run:
        model = trained(store(run), run, [5])
        models = store(run)
        assert trained(models, run, [5, 5]) == model, "the stage is skipped"
        flip_a_bit(model.path)
        assert models.open(model, "fp32").digest == model.digest
        assert weights_digest(model.path) == model.digest


def test_a_damaged_base_is_made_again_or_refused(tmp_path: Path) -> None:
    with run_dir(tmp_path) as run:
        base = store(run).base()
        flip_a_bit(base.path)
        assert store(run).base() == base and weights_digest(base.path) == base.digest
        models = store(run)
        models.base()
        flip_a_bit(base.path)
        with pytest.raises(RunError, match="not those that the run began with"):
            models.open(base, "fp32")


def change(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_toy_whose_config_was_damaged_is_made_again(tmp_path: Path, file: str) -> None:
    with run_dir(tmp_path) as run:
        base = store(run).base()
        whole = (base.path / file).read_text()
        change(base.path / file, rms_norm_eps=0.5)
        assert store(run).base() == base and (base.path / file).read_text() == whole
        assert warnings_of(run) == ["base is not what was written; it is made again from its seed"]


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_model_whose_config_or_tokenizer_was_damaged_is_refused(tmp_path: Path, file: str) -> None:
    make_toy("random-llama", tmp_path / "mine", seed=1)
    with run_dir(tmp_path) as run:
        base = store(run, str(tmp_path / "mine")).base()
        (tmp_path / "mine/README.md").write_text("what is no part of a model may change")
        assert store(run, str(tmp_path / "mine")).base() == base
        change(tmp_path / "mine" / file, version="9")
        with pytest.raises(RunError, match=rf"mine: {file} is gone or is not what it was when the run was started"):
            store(run, str(tmp_path / "mine")).base()
        (tmp_path / "mine" / file).unlink()
        with pytest.raises(RunError, match=rf"mine: {file} is gone"):
            store(run, str(tmp_path / "mine")).base()


def test_the_same_weights_in_another_place_with_another_config_are_warned_of(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path / "mine", seed=1)
    with run_dir(tmp_path) as run:
        base = store(run, str(tmp_path / "mine")).base()
        shutil.move(tmp_path / "mine", tmp_path / "moved")
        change(tmp_path / "moved/config.json", transformers_version="0")
        assert store(run, str(tmp_path / "moved")).base().digest == base.digest
        assert [message.partition(" now, and ")[2] for message in warnings_of(run)] == [
            "config.json is not the same there"
        ]
        assert store(run, str(tmp_path / "moved")).base().digest == base.digest and len(warnings_of(run)) == 1


def test_a_note_of_an_older_version_is_believed_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path / "mine", seed=1)
    with run_dir(tmp_path) as run:
        note = run.path / "weights.json"
        base = store(run, str(tmp_path / "mine")).base()
        noted = note.read_text()
        write_json(note, {key: json.loads(noted)[key] for key in ("path", "digest")})
        assert store(run, str(tmp_path / "mine")).base() == base
        assert note.read_text() == noted and not warnings_of(run)
        change(note, digest="0" * 64)
        assert store(run, str(tmp_path / "mine")).base() == base and note.read_text() == noted
        assert warnings_of(run) == ["weights.json is not what was written; the model is looked for again"]


def test_keep_all_releases_nothing(tmp_path: Path) -> None:
    with run_dir(tmp_path) as run:
        models = store(run, "random-llama", "checkpoints.keep=all")
        model = trained(models, run, [5])
        models.release_all_but()
        assert model.path.is_dir()


def test_a_delivered_model_is_whole_and_asks_as_it_was_trained(tmp_path: Path) -> None:
    with run_dir(tmp_path) as run:
        models = store(run)
        model = trained(models, run, [5])
        models.deliver(model, "angle")
        models.deliver(model, "angle")
        assert weights_digest(run.path / "model") == model.digest
        assert {"config.json", "selftrain.json", "README.md"} <= {file.name for file in (run.path / "model").iterdir()}
        assert not [entry for entry in run.path.iterdir() if entry.name.endswith(".tmp")]
