"""Stages bound to their folder: where a run stops, and which pools samples made elsewhere join."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftrain import api
from selftrain.bench import Bench, Stopped
from selftrain.errors import ConfigError, RunError
from selftrain.progress import Silent
from selftrain.recipe import load_config
from selftrain.rundir import RunDir

STAGE: dict[str, Any] = {"inputs": {}, "settings": {}, "work": lambda folder: {"done": 1}}


def test_no_stage_beyond_the_end_is_begun_and_finished_ones_are_passed(tmp_path: Path) -> None:
    config = load_config("smoke")
    with RunDir.open(tmp_path / "run", config) as rundir:
        bench = Bench(config, rundir, Silent(), {"1-iteration/dpo"})
        assert bench.stage("1-iteration/pair", **STAGE).figures == {"done": 1}
        with pytest.raises(Stopped, match="1-iteration/dpo"):
            bench.stage("1-iteration/dpo", **STAGE)
        assert not (rundir.path / "1-iteration/dpo").exists()
        Bench(config, rundir, Silent()).stage("1-iteration/dpo", **STAGE)
        assert bench.stage("1-iteration/dpo", **STAGE).skipped


@pytest.mark.parametrize(
    ("use", "joined"), [("both", ["pairs", "labels"]), ("pairs", ["pairs"]), ("labels", ["labels"])]
)
def test_samples_join_the_pools_that_use_names(tmp_path: Path, use: str, joined: list[str]) -> None:
    config = load_config("smoke", [f"data.samples={{path: s.jsonl, use: {use}}}"])
    with RunDir.open(tmp_path / "run", config) as rundir:
        bench = Bench(config, rundir, Silent())
        bench._brought = bench.stage("samples", **STAGE)
        assert [pool for pool in ("pairs", "labels") if bench.brought_for(pool)] == joined


def test_what_cannot_be_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'nonsense'"):
        api.run("smoke", until="nonsense", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="warmup_model: .*method: sft trains the warm-up"):
        api.run("smoke", ["method=sft", "warmup_model=mine"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_samples_and_an_own_warm_up_model_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain = load_config("smoke")
    with RunDir.open(tmp_path / "run", plain) as run:
        run.stage("0-warmup/select", **STAGE)
    for override in ("warmup_model=mine", "data.samples=s.jsonl"):
        with pytest.raises(RunError, match="holds a different run"):
            RunDir.open(tmp_path / "run", load_config("smoke", [override]))
