"""Kills one run at fault points of each kind, one after the other, and tells what came of it.

    python tests/e2e/chain.py smoke FOLDER     # prints JSON: kinds, kills, the two fingerprints

An unbroken run, which notes the fault points that it passes, comes first. Attempts are forked, so that what is imported
once is there for all of them. A script of its own: a process that forks must have no threads.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from selftrain import durable
from selftrain.api import run
from tests.e2e.conftest import fingerprint_of

OVERRIDES = (
    "compute.precision=fp32",
    "training.checkpoint_every_s=0.05",
    "baselines=[st]",
    "evaluation.without_calculator_rows=8",
)


def attempt(recipe: str, folder: Path, faults: str) -> int:
    """Carry out the run, or go on with it, in a child; its exit code, -9 where it was killed."""
    child = os.fork()
    if child == 0:
        os.environ[durable.FAULTS] = faults
        try:
            run(recipe, OVERRIDES, out=folder)
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stage_at(folder: Path) -> str:
    """The kind of the stage that was begun last and not ended; "between" where there is none."""
    begun = "between"
    journal = folder / "journal.jsonl"
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "stage-start":
            begun = event["stage"].split("/")[1] if "/" in event["stage"] else event["stage"]
        elif event["event"] == "stage-end":
            begun = "between"
    return begun


def main(recipe: str, folder: Path) -> None:
    """The unbroken run, the chain, and what they left."""
    points = folder / "points"
    code = attempt(recipe, folder / "unbroken", f"record:{points}")
    kinds = [
        kind
        for kind in dict.fromkeys(points.read_text().splitlines())
        if "/" not in kind or kind.endswith("model.safetensors")
    ]
    killed = folder / "killed"
    kills = [(kind, attempt(recipe, killed, f"kill:{kind}:1"), stage_at(killed)) for kind in kinds]
    last = attempt(recipe, folder / "killed", "")
    found = {
        "kinds": kinds, "kills": kills, "codes": [code, last],
        "unbroken": fingerprint_of(folder / "unbroken"), "killed": fingerprint_of(folder / "killed"),
        "left": [path.name for path in (folder / "killed").rglob("*.tmp")],
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
