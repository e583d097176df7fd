"""One finished `smoke` run for all end-to-end tests, made through the command line as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Start = Callable[..., "subprocess.Popen[bytes]"]
Fingerprint = Callable[[Path], dict[str, str]]


def environment() -> dict[str, str]:
    """One thread, so that results are bitwise the same on every machine that runs the comparison."""
    root = Path(__file__).resolve().parents[2]
    places = os.pathsep.join((str(root / "src"), str(root)))  # and these tests, for scripts of theirs
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": places, "HF_HUB_OFFLINE": "1"}


def selftrain(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selftrain", *arguments],
        capture_output=True, text=True, timeout=300, env=environment(), cwd=cwd, check=False,
    )  # fmt: skip


def start_selftrain(*arguments: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "selftrain", *arguments],
        stdout=output, stderr=output, env=environment(), start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test in the background inherits "ignored"
    )  # fmt: skip


def fingerprint_of(run: Path) -> dict[str, str]:
    """Digests of everything that a run's result consists of: samples, pairs, examples, weights."""
    digests = {}
    for manifest in sorted(run.rglob("manifest.json")):
        content = json.loads(manifest.read_text())
        if "weights" in content["figures"]:
            digests[content["stage"]] = content["figures"]["weights"]
        digests |= {
            f"{content['stage']}/{name}": digest
            for name, digest in content["outputs"].items()
            if name.endswith(".jsonl") and name != "train-log.jsonl"
        }
    return digests


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run the command line to its end."""
    return selftrain


@pytest.fixture(scope="session")
def cli_environment() -> Callable[[], dict[str, str]]:
    """What a process of ours sees."""
    return environment


@pytest.fixture(scope="session")
def start() -> Start:
    """Start the command line and go on."""
    return start_selftrain


@pytest.fixture(scope="session")
def fingerprint() -> Fingerprint:
    """Digests of everything that a run's result consists of."""
    return fingerprint_of


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken `selftrain run smoke` with one baseline."""
    out = tmp_path_factory.mktemp("e2e") / "smoke"
    done = selftrain("run", "smoke", "baselines=[st, sft-matched]", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return out
