"""A full disk, a tmpfs of one megabyte, and one that can only be read: told clearly, nothing lost, gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

UNTIL = "0-warmup/sft"
SCENES = """
import json, subprocess, sys
from pathlib import Path
from selftrain.api import run
from selftrain.errors import RunError
from selftrain.stagefolder import file_digest, read_manifest
from tests.e2e.conftest import fingerprint_of

disk, roomy, until = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
folder = disk / "run"
settings = [
    "compute.precision=fp32", "compute.min_free_disk_gb=0", "training.checkpoint_every_s=0.01",
    "training.sft.epochs=2", "sampling.max_new_tokens=12",
]

def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)], check=True)

def scene(out):
    try:
        run("smoke", settings, out=out, until=until)
        message = ""
    except RunError as error:
        message = str(error)
    stages = [path.parent for path in out.rglob("manifest.json")]
    manifests = {stage: read_manifest(stage) for stage in stages}
    damaged = [
        str(stage / name) for stage, manifest in manifests.items() for name, digest in manifest["outputs"].items()
        if file_digest(stage / name) != digest
    ]
    left = [path.name for path in out.rglob("*.tmp")]
    return {"message": message, "made": fingerprint_of(out), "damaged": damaged, "left": left}

mount("size=1m")
scenes = {"full": scene(folder)}
mount("remount", "size=64m")
scenes["room"] = scene(folder)
mount("remount", "ro")
scenes["read only"] = scene(folder)
mount("remount", "rw")
scenes["writable"] = scene(folder)
scenes["never stopped"] = scene(roomy)
print(json.dumps(scenes))
"""


def tried(*command: str) -> str:
    """Why a command is refused in a namespace of its own; empty where it works."""
    try:
        done = subprocess.run(["unshare", "-rm", *command], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


@pytest.fixture(scope="module")
def scenes(
    tmp_path_factory: pytest.TempPathFactory, cli_environment: Callable[[], dict[str, str]]
) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "disk").mkdir()
    refused = tried("true")
    refused = refused or tried("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder / "disk"))
    if refused:
        reason = f"needs a disk of its own (unshare -rm): {refused}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    command = ["unshare", "-rm", sys.executable, "-c", SCENES, str(folder / "disk"), str(folder / "roomy"), UNTIL]
    done = subprocess.run(command, env=cli_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_full_disk_is_named_and_what_was_there_stays_readable(scenes: dict[str, dict[str, Any]]) -> None:
    full = scenes["full"]
    assert "could not be written" in full["message"] and "No space left on device" in full["message"]
    assert full["left"] == [] and full["damaged"] == []
    assert any(name.startswith("data/") for name in full["made"]) and UNTIL not in full["made"]


def test_with_room_the_same_command_goes_on(scenes: dict[str, dict[str, Any]]) -> None:
    assert scenes["room"]["message"] == ""
    assert UNTIL in scenes["room"]["made"]
    assert scenes["room"]["made"] == scenes["never stopped"]["made"]


def test_a_disk_that_can_only_be_read_is_named(scenes: dict[str, dict[str, Any]]) -> None:
    read_only = scenes["read only"]
    assert "could not be written (Read-only file system)" in read_only["message"]
    assert "choose another folder with --out" in read_only["message"]
    assert read_only["made"] == scenes["room"]["made"] and read_only["damaged"] == []
    assert scenes["writable"]["message"] == "" and scenes["writable"]["made"] == scenes["room"]["made"]
