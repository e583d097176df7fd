"""Stages taken from another run: only the same, only whole, and only where the settings leave no doubt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.recipe import load_config
from selftrain.rundir import RunDir
from selftrain.sharing import may_share, open_beside
from selftrain.stagefolder import read_manifest, write_manifest

Work = Callable[[Path], dict[str, Any]]
INPUTS, SETTINGS = {"examples": "e" * 64}, {"seed": 1}


@pytest.fixture
def config() -> RunConfig:
    return load_config("smoke")


@pytest.fixture
def sibling(tmp_path: Path, config: RunConfig) -> Path:
    """A run with one finished stage that has a log and weights."""
    with RunDir.open(tmp_path / "a", config) as run:
        do(run)
    return tmp_path / "a"


def train(folder: Path) -> dict[str, Any]:
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_text("weights")
    (folder / "train-log.jsonl").write_text("log")
    return {"steps": 3}


def do(run: RunDir, work: Work = train, inputs: dict[str, str] = INPUTS) -> Any:
    return run.stage("0-warmup/sft", inputs=inputs, settings=SETTINGS, work=work)


def never(folder: Path) -> dict[str, Any]:
    pytest.fail("computed again")


def beside(sibling: Path, config: RunConfig, name: str = "b") -> RunDir:
    return open_beside([sibling.parent / "nothing", sibling], sibling.parent / name, config)


def test_an_equal_stage_is_taken_whole(sibling: Path, config: RunConfig) -> None:
    with beside(sibling, config) as run:
        taken = do(run, never)
        assert do(run, never) == taken, "and is skipped from then on"
    mine, theirs = run.path / "0-warmup/sft", sibling / "0-warmup/sft"
    assert (taken.skipped, taken.figures, taken.digest) == (True, {"steps": 3}, (read_manifest(theirs) or {})["digest"])
    assert (mine / "model/model.safetensors").samefile(theirs / "model/model.safetensors"), "weights are linked"
    assert not (mine / "train-log.jsonl").samefile(theirs / "train-log.jsonl"), "all else is copied"
    assert (read_manifest(mine) or {})["taken_from"] == "../a"
    last = json.loads((run.path / "journal.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["taken_from"]) == ("stage-end", "../a")
    assert {path.name for path in (run.path / "0-warmup").iterdir()} == {"sft"}


def test_what_one_run_releases_or_redoes_the_other_keeps(sibling: Path, config: RunConfig) -> None:
    with beside(sibling, config) as run:
        do(run, never)
        run.release("0-warmup/sft")
        run.forget("0-warmup/sft")
        do(run)
        (run.path / "0-warmup/sft/train-log.jsonl").write_text("another")
    assert (sibling / "0-warmup/sft/model/model.safetensors").read_text() == "weights"
    assert (sibling / "0-warmup/sft/train-log.jsonl").read_text() == "log"


def damage_file(folder: Path) -> None:
    (folder / "train-log.jsonl").write_text("half")


def damage_weights(folder: Path) -> None:
    (folder / "model/model.safetensors").write_text("weighs")


def lose_file(folder: Path) -> None:
    (folder / "model/model.safetensors").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def tear_manifest(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def other_version(folder: Path) -> None:
    write_manifest(folder, {**(read_manifest(folder) or {}), "version": "0.0.1"})


def released(folder: Path) -> None:
    write_manifest(folder, {**(read_manifest(folder) or {}), "released": ["model/model.safetensors"]})


@pytest.mark.parametrize(
    "harm", [damage_file, damage_weights, lose_file, lose_manifest, tear_manifest, other_version, released]
)
def test_what_is_not_whole_is_computed(harm: Callable[[Path], None], sibling: Path, config: RunConfig) -> None:
    harm(sibling / "0-warmup/sft")
    with beside(sibling, config) as run:
        done = do(run)
    assert not done.skipped
    assert (run.path / "0-warmup/sft/train-log.jsonl").read_text() == "log"
    assert {path.name for path in (run.path / "0-warmup").iterdir()} == {"sft"}, "nothing half-taken stays"


def test_another_key_is_computed(sibling: Path, config: RunConfig) -> None:
    with beside(sibling, config) as run:
        assert not do(run, inputs={"examples": "f" * 64}).skipped


def test_half_done_work_gives_way_to_a_finished_stage(sibling: Path, config: RunConfig) -> None:
    def breaks(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with RunDir.open(sibling.parent / "b", config) as run, pytest.raises(RuntimeError, match="power cut"):
        do(run, breaks)
    with beside(sibling, config) as run:
        assert do(run, never).skipped
    assert not (run.path / "0-warmup/sft/half.txt").exists()


def test_finished_work_of_another_key_is_not_thrown_away(sibling: Path, config: RunConfig) -> None:
    with RunDir.open(sibling.parent / "b", config) as run:
        do(run, inputs={"examples": "f" * 64})
    with beside(sibling, config) as run:
        do(run)
    assert (run.path / "0-warmup/sft.before-1/train-log.jsonl").is_file()


@pytest.mark.parametrize(
    ("override", "shares"),
    [
        ("sampling.samples_for_labels=9", True),
        ("method=st", True),
        ("training.dpo.beta=0.9", True),
        ("schedule.iterations=2", True),
        ("baselines=[st]", True),
        ("name=other", True),
        ("seed=2", False),
        ("prompt.bos=true", False),
        ("compute.precision=fp32", False),
        ("training.max_target_tokens=50", False),
        ("training.lora.rank=2", False),
        ("data.test=[]", False),
        ("model=random-t5", False),
    ],
)
def test_runs_share_only_where_their_settings_stand_in_the_keys(override: str, shares: bool, config: RunConfig) -> None:
    assert may_share(config, load_config("smoke", [override])) is shares
