"""Experiment trackers: real tensorboard files, and the refusal of what is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.errors import ConfigError
from selftrain.training import trackers
from selftrain.training.trackers import check_trackers, tracking


def test_tensorboard_gets_every_number_under_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(
        ["tensorboard"], project="run", name="dpo", folder=tmp_path, settings={"beta": 0.1, "max_steps": None}
    ) as send:
        send({"step": 1, "loss": 0.5, "note": "not a number"})
        send({"step": 2, "loss": 0.25})
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert "note" not in events.Tags()["scalars"]


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    with tracking([], project="run", name="dpo", folder=tmp_path / "trackers", settings={}) as send:
        send({"step": 1, "loss": 0.5})
    assert not (tmp_path / "trackers").exists()


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_available", lambda: {"tensorboard"})
    check_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match="wandb is not installed") as found:
        check_trackers(["tensorboard", "wandb"])
    assert "installed: tensorboard" in str(found.value.hint)
