"""The time of a stage over all attempts, killed ones too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain import spent
from selftrain.spent import counted
from selftrain.stagefolder import read_json, write_json

KILLED = """
import os, signal, sys, time
from pathlib import Path
from selftrain import spent
note = Path(sys.argv[1])
spent.NOTE_S = 0.01
before = note.read_bytes() if note.exists() else b""
with spent.counted(note):
    while not note.exists() or note.read_bytes() == before:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_attempt_counts(tmp_path: Path) -> None:
    note, seen = tmp_path / "spent.json", [0.0]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(note)], env=environment, check=False, timeout=60)
        assert done.returncode == -9
        seen.append(read_json(note)["seconds"])
    assert 0 < seen[1] < seen[2]
    with counted(note) as seconds:
        assert seconds() >= seen[2]


@pytest.mark.parametrize("damage", ["", "[]", "{}"])
def test_an_interrupted_attempt_is_noted_and_a_damaged_note_counts_nothing(tmp_path: Path, damage: str) -> None:
    note = tmp_path / "spent.json"
    write_json(note, {"seconds": 100.0})
    with pytest.raises(KeyboardInterrupt), counted(note):
        raise KeyboardInterrupt
    assert read_json(note)["seconds"] >= 100
    note.write_text(damage)
    with counted(note) as seconds:
        assert seconds() < 100


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spent, "NOTE_S", 0.0)
    (tmp_path / "file").write_text("")
    with counted(tmp_path / "file/spent.json") as seconds:
        pass
    assert seconds() > 0
