"""Whole or not at all: failures, kills and power cuts at every fault point of a write, seen from child processes."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain import durable
from selftrain.errors import RunError

SOURCE = Path(__file__).parents[1] / "src"
AFTER = ["journal.jsonl", "log.jsonl", "model", "note.json", "shard-0.jsonl"]
CHANGES = """
import sys
from pathlib import Path
from selftrain import durable
folder = Path(sys.argv[1])
durable.write(folder / "note.json", b"new")
made = durable.temporary_of(folder / "model")
(made / "inner").mkdir(parents=True)
(made / "weights.bin").write_bytes(b"new weights")
(made / "inner" / "config.json").write_bytes(b"new config")
durable.place(made, folder / "model")
durable.append(folder / "journal.jsonl", "second")
durable.remove(folder / "old.txt")
with durable.whole(folder / "shard-0.jsonl", first_wins=True) as out:
    out.write(b"rows")
with (folder / "log.jsonl").open("wb") as out:
    out.write(b"row")
    out.flush()
    durable.sync(out, folder / "log.jsonl")
"""


def before(folder: Path) -> None:
    """What the changes find."""
    (folder / "model").mkdir(parents=True)
    (folder / "note.json").write_bytes(b"old")
    (folder / "model" / "weights.bin").write_bytes(b"old weights")
    (folder / "journal.jsonl").write_bytes(b"first\nto")
    (folder / "old.txt").write_bytes(b"old")


def change(folder: Path, faults: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), durable.FAULTS: faults}
    return subprocess.run(
        [sys.executable, "-c", CHANGES, str(folder)], env=environment, capture_output=True, text=True, check=False
    )


def points(folder: Path) -> list[str]:
    before(folder / "seen")
    assert change(folder / "seen", f"record:{folder / 'points'}").returncode == 0
    return (folder / "points").read_text().splitlines()


def test_what_was_changed_is_there(tmp_path: Path) -> None:
    before(tmp_path)
    assert change(tmp_path).returncode == 0
    assert (tmp_path / "note.json").read_bytes() == b"new"
    assert (tmp_path / "model" / "inner" / "config.json").read_bytes() == b"new config"
    assert (tmp_path / "journal.jsonl").read_text() == "first\nto\nsecond\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == AFTER


@pytest.mark.parametrize("fault", ["kill", "power", "fail"])
def test_at_every_fault_point_all_is_old_or_new_and_can_be_done_again(tmp_path: Path, fault: str) -> None:
    names = points(tmp_path)
    assert {"fsync note.json", "rename note.json", "fsync model/weights.bin", "rename model"} <= {*names}
    assert {"remove old.txt", "link shard-N.jsonl", "sync log.jsonl"} <= {*names}
    folders = ("note.json", "model/.", "model/inner", "model", "shard-N.jsonl")
    assert {f"fsync-folder {name}" for name in folders} <= {*names}
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        before(folder)
        done = change(folder, f"{fault}:{name}:{names[: number + 1].count(name)}")
        assert done.returncode == (1 if fault == "fail" else -9), (name, done.stderr)
        assert (folder / "note.json").read_bytes() in (b"old", b"new"), name
        if (folder / "shard-0.jsonl").exists():
            assert (folder / "shard-0.jsonl").read_bytes() == b"rows", name
        if (folder / "model").exists():
            weights = (folder / "model" / "weights.bin").read_bytes()
            assert weights in (b"old weights", b"new weights"), name
            assert (weights == b"new weights") == (folder / "model" / "inner" / "config.json").exists(), name
        if fault == "fail":
            assert "No space left on device" in done.stderr and "RunError" in done.stderr
        assert change(folder).returncode == 0
        durable.sweep(folder)
        assert sorted(path.name for path in folder.iterdir()) == AFTER, name
        assert (folder / "model" / "weights.bin").read_bytes() == b"new weights"


def test_a_disk_that_brings_no_folder_to_it_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int, number: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", lambda descriptor: fsync(descriptor, errno.EINVAL))
    durable.write(tmp_path / "note.json", b"new")
    assert (tmp_path / "note.json").read_bytes() == b"new"
    monkeypatch.setattr(os, "fsync", lambda descriptor: fsync(descriptor, errno.EIO))
    with pytest.raises(RunError, match="Input/output error"):
        durable.write(tmp_path / "note.json", b"newer")


def test_a_failed_write_leaves_what_was_there_and_no_temporary(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), durable.whole(tmp_path / "kept.txt") as out:
        out.write(b"half")
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept.txt", b"old")]


def test_of_two_the_first_wins_where_that_is_asked(tmp_path: Path) -> None:
    with durable.whole(tmp_path / "shard", first_wins=True) as slow:
        slow.write(b"slow")
        with durable.whole(tmp_path / "shard.other", first_wins=True) as quick:
            quick.write(b"quick")
        durable.move(tmp_path / "shard.other", tmp_path / "shard")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("shard", b"quick")]


def test_where_nothing_can_be_written_the_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="could not be written"):
        durable.write(tmp_path / "file" / "inside.json", json.dumps({}).encode())


def test_only_temporaries_of_dead_processes_are_swept(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    number = int(dead.stdout)
    (tmp_path / "deep").mkdir()
    for name in (
        f".a.json.{number}.tmp",
        f".b.{os.getpid()}.tmp",
        ".c.tmp",
        "deep/d.tmp",
        f"deep/.e.{number}.gone.tmp",
    ):
        (tmp_path / name).write_bytes(b"")
    durable.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        [f".b.{os.getpid()}.tmp", ".c.tmp", "d.tmp", "deep"]
    )
