"""The training log."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain import durable
from selftrain.errors import RunError
from selftrain.training.steplog import StepLog, read_steps


def test_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    log = StepLog(tmp_path / "run" / "log.jsonl", 0)
    log.append({"step": 1, "loss": 0.1 + 0.2})
    assert read_steps(log.path) == [{"step": 1, "loss": 0.1 + 0.2}]
    log.close()


def test_reopening_cuts_later_steps_and_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step":1,"loss":3}\n{"step":2,"loss":2}\n{"step":3,"loss":1}\n{"step":4,"lo')
    log = StepLog(path, 2)
    log.append({"step": 3, "loss": 1.5})
    log.close()
    assert [row["loss"] for row in read_steps(path)] == [3, 2, 1.5]
    assert log.first == {"step": 1, "loss": 3} and log.last == {"step": 3, "loss": 1.5}


def test_bringing_the_rows_to_the_disk_is_a_fault_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = StepLog(tmp_path / "full.jsonl", 0)
    log.append({"step": 1})
    log.sync()
    monkeypatch.setenv(durable.FAULTS, "fail:sync full.jsonl:1")
    with pytest.raises(RunError, match="full.jsonl: could not be written"):
        log.sync()
    log.close()


def test_a_line_that_is_no_row_ends_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step":1}\n[2]\n{"step":3}\n')
    assert read_steps(path) == [{"step": 1}]
