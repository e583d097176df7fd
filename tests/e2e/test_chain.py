"""Runs that are killed at a fault point of every kind come out as the unbroken ones: torture.py, the short way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

STAGES = {
    "data", "evaluate", "select", "sft", "sample-for-pairs", "pair", "dpo", "validate", "sample-for-labels",
    "evaluate-without-calculator",
}  # fmt: skip


@pytest.fixture(scope="module")
def tortured(
    tmp_path_factory: pytest.TempPathFactory, cli_environment: Callable[[], dict[str, str]]
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("torture")
    environment = {**cli_environment(), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "tests.e2e.torture", "--short", "--folder", str(folder)]
    done = subprocess.run(
        [*command, "--markdown", f"{folder}/page.md"],
        env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert (folder / "page.md").is_file(), done.stderr[-3000:]
    assert done.stdout.strip() in (folder / "page.md").read_text()
    content: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return done, content


def test_a_chain_of_kills_changes_nothing(tortured: Any) -> None:
    done, content = tortured
    assert done.returncode == 0, done.stderr[-3000:]
    assert {run["recipe"] for run in content["runs"]} == {"smoke", "smoke-t5"}
    assert all(not run["differing"] and not run["left"] for run in content["runs"])
    assert all(len(whole["fingerprint"]) > 20 for whole in content["unbroken"].values())


def test_every_kind_of_fault_point_and_of_stage_had_its_kill(tortured: Any) -> None:
    _, content = tortured
    whats = {kill["point"].partition(": ")[2] for kill in content["kills"]}
    assert {"rename manifest.json", "fsync shard-N.jsonl", "link shard-N.jsonl", "rename step-N"} <= whats
    passed = {point.partition(": ")[2] for whole in content["unbroken"].values() for point in whole["points"]}
    assert {what for what in passed if "/" not in what} <= whats
    places = {part for kill in content["kills"] for part in kill["place"].split("/")}
    assert places >= STAGES and any(place.startswith("after ") for place in places)


def test_lost_work_is_bounded(tortured: Any) -> None:
    _, content = tortured
    assert all(kill["over"] == "" and kill["lost_shards"] <= 1 for kill in content["kills"])
    assert sum(kill["lost_shards"] for kill in content["kills"]) > 0, "a kill inside a shard was among them"
