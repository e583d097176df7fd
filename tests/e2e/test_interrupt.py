"""Signals in the middle of a run: the exit code of shells, how to go on in one line, no traceback, no step lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.sampling.units import read_shard
from selftrain.training.checkpoint import SEAL

UNTIL = "0-warmup/sft"
GOES_ON = b"Interrupted. Run the same command again to go on."
A_LONG_STEP = f"""
import sys, time
from selftrain import cli
from selftrain.training import fit
train_step = fit._Training._train_step

def long(self, num_steps):
    if self.step == 3:
        print("in a long step", file=sys.stderr, flush=True)
        time.sleep(600)
    return train_step(self, num_steps)

fit._Training._train_step = long
sys.argv = ["selftrain", "run", "smoke", "--out", sys.argv[1], "training.checkpoint_every_s=1e-6", "--until", "{UNTIL}"]
cli.main()
"""


def read_until(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    """What a process says on stderr up to some words."""
    said = b""
    while words not in said:
        assert process.stderr is not None
        part = os.read(process.stderr.fileno(), 1 << 16)
        assert part, said
        said += part
    return said


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


def test_a_second_signal_stops_at_once_and_loses_the_step_alone(
    start: Callable[..., subprocess.Popen[bytes]], cli_environment: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", A_LONG_STEP, str(run)], env=cli_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    alarm = threading.Timer(200, process.kill)  # the step would last longer
    alarm.start()
    said = read_until(process, b"in a long step")
    process.send_signal(signal.SIGTERM)
    said += read_until(process, b"Stopping after the step at hand; the same once more stops at once.")
    assert process.poll() is None, "the step goes on"
    process.send_signal(signal.SIGTERM)
    said += read_until(process, GOES_ON)
    process.communicate()
    alarm.cancel()
    assert process.returncode == 143
    assert b"Traceback" not in said
    (checkpoint,) = (run / UNTIL / "checkpoint").glob(f"*/{SEAL}")
    assert checkpoint.parent.name == "step-00000003"
    assert start("run", "smoke", "--out", str(run), "--until", UNTIL).wait(timeout=120) == 0
    assert json.loads((run / UNTIL / "manifest.json").read_text())["figures"]["resumed_from_step"] == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_inside_sampling_loses_the_open_shard_alone(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, number: int, code: int
) -> None:
    """A clean stop within five seconds on `smoke`; what was written stays and is gone on from."""
    stage = "1-iteration/sample-for-pairs"
    command = (
        "run", "smoke", "--out", str(tmp_path / "run"), "sampling.shard_questions=1", "sampling.samples_for_pairs=60",
        "training.sft.max_steps=2",
    )  # fmt: skip
    shards = tmp_path / "run" / stage / "shards"

    def interrupted_after(num_shards: int) -> dict[str, int]:
        """Start, send the signal once so many shards are there; when each was written."""
        process = start(*command, output=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while len(list(shards.glob("*.jsonl"))) < num_shards and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        sent = time.monotonic()
        said = read_until(process, GOES_ON)
        assert time.monotonic() - sent < 5, "after this Python takes itself down, a second on an idle machine"
        _, rest = process.communicate(timeout=60)
        assert process.returncode == code and b"Traceback" not in said + rest and rest.strip() == b"", rest
        return {path.name: path.stat().st_mtime_ns for path in shards.glob("*.jsonl")}

    first = interrupted_after(2)
    assert 2 <= len(first) < 95 and all(read_shard(shards, shard) for shard in range(len(first)))
    second = interrupted_after(len(first) + 1)
    assert len(second) > len(first) and second.items() >= first.items(), "nothing was drawn again"
