"""Signals in the middle of a run: the exit code of shells, how to go on in one line, no traceback, no step lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def test_ctrl_c_says_how_to_go_on(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("run", "smoke", "--out", str(run), output=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(run.glob("0-warmup/sft/started.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode().rstrip().endswith("Interrupted. Run the same command again to go on.")
    assert b"Traceback" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_inside_a_training_loses_no_step(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, number: int, code: int
) -> None:
    """A clean stop within five seconds on `smoke`, with a checkpoint of the last step; the command goes on there."""
    command = ("run", "smoke", "--out", str(tmp_path / "run"), "baselines=[]", "training.sft.epochs=40")
    process = start(*command, output=subprocess.PIPE)
    log = tmp_path / "run/0-warmup/sft/train-log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - sent < 5
    assert process.returncode == code and b"Traceback" not in errors, errors
    steps = log.read_bytes().count(b"\n")
    (checkpoint,) = (tmp_path / "run/0-warmup/sft/checkpoint").iterdir()
    assert checkpoint.name == f"step-{steps:08d}"
    assert start(*command, "--until", "0-warmup/sft").wait(timeout=120) == 0
    manifest = json.loads((tmp_path / "run/0-warmup/sft/manifest.json").read_text())
    assert manifest["figures"]["resumed_from_step"] == steps
