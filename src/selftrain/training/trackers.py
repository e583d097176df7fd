"""A training's log rows, sent to experiment trackers too, through accelerate's tracker classes.

    with tracking(["tensorboard"], project="quickstart", name="1-iteration/dpo", folder=folder, settings={}) as send:
        send({"step": 1, "loss": 0.7})

train-log.jsonl is always written and is what the report reads; a tracker is a view. After a resume the steps go on
where they stopped, in a new run of the tracker where it cannot reopen the old one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.errors import ConfigError
from selftrain.training.steplog import Row

Send = Callable[[Row], None]


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is not installed, before any work.

    Raises:
        ConfigError: names the missing package and those that are there.
    """
    if not names:
        return
    there = _available()
    for name in names:
        if name not in there:
            raise ConfigError(
                f"training.trackers: {name} is not installed.",
                f"pip install {name}, or leave it out; installed: {', '.join(sorted(there)) or 'none'}.",
            )


@contextlib.contextmanager
def tracking(
    names: Sequence[str], *, project: str, name: str, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Send]:
    """Within, `send` logs a row to every named tracker under its step; without names it does nothing.

    Args:
        project: what the trackers group runs by: the run's name.
        name: of this training: its stage.
        folder: for trackers that write files.
        settings: flat, shown as the hyper-parameters.
    """
    opened = [_open(kind, project, name, folder, settings) for kind in names]

    def send(row: Row) -> None:
        values = {key: value for key, value in row.items() if key != "step" and isinstance(value, int | float)}
        for tracker in opened:
            tracker.log(values, step=row["step"])

    try:
        yield send
    finally:
        for tracker in opened:
            tracker.finish()


def _available() -> set[str]:
    from accelerate.tracking import get_available_trackers

    return {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}


def _open(kind: str, project: str, name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, dict[str, Any]] = {
        "tensorboard": {"logging_dir": folder},
        "wandb": {"name": name, "dir": str(folder)},
        "trackio": {"name": name},
        "mlflow": {"run_name": name},
    }
    tracker: Any = LOGGER_TYPE_TO_CLASS[kind](project, **given[kind])
    tracker.start()
    tracker.store_init_configuration({key: value for key, value in settings.items() if value is not None})
    return tracker
