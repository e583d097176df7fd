"""Ctrl-C in the middle of a run: the exit code of shells, one line that says how to go on, and no traceback."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


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
