"""`compute.isolation=process`: the same run; what becomes of it when a child is killed, fails or is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.claim import take_lock
from selftrain.durable import FAULTS
from selftrain.errors import ConfigError
from selftrain.isolate import is_isolated
from selftrain.recipe import load_config

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
PROCESS = "compute.isolation=process"
SHORT = ("method=st", "baselines=[]", "data.test=[]", "data.validation=null", "training.sft.max_steps=4")


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def test_it_ends_as_in_one_process_also_when_a_child_is_killed(
    tmp_path: Path, cli: Cli, fingerprint: Callable[[Path], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child is killed as its third shard is written; the next one has only that shard left to do."""
    alone, apart = tmp_path / "alone", tmp_path / "apart"
    until = ("--until", "1-iteration/sample-for-labels")
    done = cli("run", "smoke", *SHORT, "--out", str(alone), *until)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setenv(FAULTS, "kill:fsync shard-N.jsonl:3")
    done = cli("run", "smoke", *SHORT, PROCESS, "--out", str(apart), *until)
    assert done.returncode == 0, done.stderr[-3000:]
    assert fingerprint(apart) == fingerprint(alone)
    kept = [[e["event"] for e in events(run) if e["event"] not in ("speed", "warning")] for run in (alone, apart)]
    assert kept[0] == kept[1], "one keeps the books"
    killed = [event for event in events(apart) if "was started once more" in event.get("message", "")]
    assert [event["stage"] for event in killed] == ["1-iteration/sample-for-labels"]
    assert done.stderr.count("0-warmup/sft: 4 steps\n") == 1 and "already done" not in done.stderr
    assert list(apart.rglob("*.tmp")) == []


def test_a_child_that_is_killed_again_and_again_ends_the_run(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "kill:fsync shard-N.jsonl:1")
    done = cli("run", "smoke", PROCESS, "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "0-base/evaluate/made-up: its process was killed by signal 9" in done.stderr
    assert done.stderr.count("was started once more") == 1


def test_an_error_of_a_child_is_the_error_of_the_run(tmp_path: Path, cli: Cli) -> None:
    done = cli("run", "smoke", PROCESS, "evaluation.max_new_tokens=1000", "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error: Expected prompt and completion to fit the model's" in done.stderr
    assert done.stderr.count("prompt.max_prompt_tokens") == 1


def test_a_signal_is_the_childs_too_and_its_end_is_waited_for(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = start(
        "run", "smoke", *SHORT[:-1], "training.sft.epochs=40", PROCESS, "--out", str(run), output=subprocess.PIPE
    )
    log = run / "0-warmup/sft/train-log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    os.close(take_lock(run))  # the child holds it too
    _, errors = process.communicate()
    assert process.returncode == 143 and b"Traceback" not in errors, errors
    assert errors.decode().rstrip().endswith("Interrupted. Run the same command again to go on.")
    (checkpoint,) = (run / "0-warmup/sft/checkpoint").iterdir()
    steps = log.read_bytes().count(b"\n")
    assert checkpoint.name == f"step-{steps:08d}"


@pytest.mark.parametrize(
    ("settings", "num_processes", "isolated"),
    [
        (["compute.device=cpu"], 1, False),
        (["compute.device=cuda"], 1, True),
        (["compute.device=cuda"], 2, False),
        (["compute.device=cuda", "compute.isolation=none"], 1, False),
        (["compute.device=cpu", PROCESS], 1, True),
    ],
)
def test_stages_have_processes_of_their_own_on_a_gpu(settings: list[str], num_processes: int, isolated: bool) -> None:
    assert is_isolated(load_config("smoke", settings), num_processes) is isolated


def test_two_ways_to_several_processes_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="is for a run of one process, and this one has 2"):
        is_isolated(load_config("smoke", [PROCESS]), 2)
