"""A team of one, and what a team refuses. Two real processes: tests/e2e/test_processes.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import selftrain
from selftrain import api
from selftrain.errors import ConfigError
from selftrain.processes import Team, join
from selftrain.recipe import load_config


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    join.cache_clear()
    team = join()
    assert (team.rank, team.size, team.is_main) == (0, 1, True)


def test_a_team_of_one_leaves_everything_as_it_is() -> None:
    tensor = torch.ones(3)
    Team().add([tensor])
    Team().wait()
    assert tensor.tolist() == [1, 1, 1]
    assert Team().any(True) is True and Team().any(False) is False


def test_vllm_in_several_processes_is_refused_before_the_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "join", lambda: Team(0, 2))
    config = load_config("smoke", ["sampling.backend=vllm"])
    with pytest.raises(ConfigError, match="one process as yet, got 2"):
        selftrain.run(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
