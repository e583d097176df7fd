"""Experiment trackers: real tensorboard files, and the refusal of what is not installed."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

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


class Stub(types.ModuleType):
    """A tracker's package that notes what it was called with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any, Any]] = []
        self.config = types.SimpleNamespace(update=self._noting("config"))
        self.run = self
        mlflow = ("create_experiment", "start_run", "log_params", "log_metrics", "end_run", "search_experiments")
        for method in ("log", "finish", *mlflow):
            setattr(self, method, self._noting(method))

    def init(self, *args: Any, **more: Any) -> Stub:
        self.calls.append(("init", args, more))
        return self

    def _noting(self, method: str) -> Any:
        def note(*args: Any, **more: Any) -> Any:
            self.calls.append((method, args, more))
            return [] if method == "search_experiments" else None

        return note

    def of(self, method: str) -> tuple[Any, Any]:
        """The only call of a method."""
        (found,) = [(args, more) for name, args, more in self.calls if name == method]
        return found


def _track(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Two rows and the settings of a training, sent through accelerate's tracker to a stub of its package."""
    stub = Stub(name)
    stub.active_run = lambda: None  # type: ignore[attr-defined]
    stub.utils = types.SimpleNamespace(  # type: ignore[attr-defined]
        validation=types.SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    )
    stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
    monkeypatch.setitem(sys.modules, name, stub)
    settings = {"beta": 0.3, "loss": "dpo", "learning_rate": "auto", "max_steps": None}
    with tracking([name], project="my-run", name="1-iteration/dpo", folder=folder, settings=settings) as send:
        send({"step": 1, "loss": 0.5, "note": "not a number"})
        send({"step": 2, "loss": 0.25})
    return stub


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_name_settings_and_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = _track(name, tmp_path, monkeypatch)
    _, given = stub.of("init")
    assert given["project"] == "my-run" and given["name"] == "1-iteration/dpo"
    assert given.get("dir") == (str(tmp_path) if name == "wandb" else None)
    assert stub.of("config")[0][0] == {"beta": 0.3, "loss": "dpo", "learning_rate": "auto"}
    logged = [(args[0], more["step"]) for method, args, more in stub.calls if method == "log"]
    assert logged == [({"loss": 0.5}, 1), ({"loss": 0.25}, 2)]
    assert stub.calls[-1][0] == "finish"


def test_mlflow_gets_name_settings_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = _track("mlflow", tmp_path, monkeypatch)
    assert "my-run" in str(stub.of("search_experiments"))
    assert stub.of("start_run")[1]["run_name"] == "1-iteration/dpo"
    assert dict(stub.of("log_params")[0][0]) == {"beta": 0.3, "loss": "dpo", "learning_rate": "auto"}
    logged = [(args[0], more["step"]) for method, args, more in stub.calls if method == "log_metrics"]
    assert logged == [({"loss": 0.5}, 1), ({"loss": 0.25}, 2)]
    assert stub.calls[-1][0] == "end_run"
