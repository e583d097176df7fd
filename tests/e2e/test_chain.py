"""A run that is killed at every kind of fault point comes out as the unbroken one, and nothing is left lying about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = {"data", "evaluate", "select", "sft", "pair", "dpo"}


@pytest.mark.skipif("SELFTRAIN_TORTURE" not in os.environ, reason="takes minutes: make torture")
def test_a_chain_of_kills_changes_nothing(tmp_path: Path) -> None:
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/e2e/chain.py"), "smoke", str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["codes"] == [0, 0], done.stderr[-3000:]
    killed = [(kind, stage) for kind, code, stage in found["kills"] if code == -9]
    assert len(killed) >= 20, found["kills"]
    assert {stage for _, stage in killed} >= STAGES, found["kills"]
    assert {"rename manifest.json", "fsync shard-N.jsonl", "rename step-N", "rename model"} <= {
        kind for kind, _ in killed
    }
    assert found["killed"] == found["unbroken"] and len(found["unbroken"]) > 20
    assert found["left"] == []
