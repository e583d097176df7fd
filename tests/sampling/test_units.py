"""Shards: fixed membership, and nothing trusted without a good seal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from selftrain import durable
from selftrain.processes import Team
from selftrain.records import Completion
from selftrain.sampling.units import collect, is_damaged, read_shard, shards, write_shard


def test_membership_is_fixed() -> None:
    assert [list(s) for s in shards(range(5), 2)] == [[0, 1], [2, 3], [4]]


def test_finished_shards_are_not_sampled_again_and_torn_ones_are(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def sample(members: Sequence[str]) -> list[Completion]:
        asked.append(list(members))
        return [Completion(name, 0, (1, 2), f"text of {name}", "eos") for name in members]

    first = collect(tmp_path, ["a", "b", "c"], 2, sample, Team())
    assert collect(tmp_path, ["a", "b", "c"], 2, sample, Team()) == first
    assert asked == [["a", "b"], ["c"]]
    (tmp_path / "shard-00001.jsonl").write_text("{")
    assert read_shard(tmp_path, 1) is None
    assert collect(tmp_path, ["a", "b", "c"], 2, sample, Team()) == first
    assert asked[2:] == [["c"]]


def rows_of(writer: str, members: Sequence[str]) -> list[Completion]:
    return [Completion(name, 0, (1,), f"{name} by {writer}", "eos") for name in members]


def test_of_two_writers_of_a_shard_the_first_wins(tmp_path: Path) -> None:
    def slow(members: Sequence[str]) -> list[Completion]:
        write_shard(tmp_path, 0, rows_of("the other", members))  # while this one is still sampling
        return rows_of("this one", members)

    found = collect(tmp_path, ["a", "b"], 2, slow, Team())
    assert found == rows_of("the other", ["a", "b"]) == read_shard(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.jsonl"]


@pytest.mark.parametrize("found", ["", "damaged"])
def test_a_writer_never_takes_away_what_another_put_there_after_its_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    if found:
        (tmp_path / "shard-00000.jsonl").write_text(found)
    late: list[str] = []

    def point(kind: str, name: str) -> None:  # what every change of the disk passes
        if not late:
            late.append(kind)
            write_shard(tmp_path, 0, rows_of("the first", ["a"]))

    monkeypatch.setattr(durable, "_point", point)
    write_shard(tmp_path, 0, rows_of("the second", ["a"]))
    assert late and read_shard(tmp_path, 0) == rows_of("the first", ["a"])


def test_a_shard_that_is_damaged_again_and_again_is_done_again_and_again(tmp_path: Path) -> None:
    for number in range(3):
        rows = rows_of(str(number), ["a"])
        write_shard(tmp_path, 0, rows)
        assert read_shard(tmp_path, 0) == rows and not is_damaged(tmp_path, 0)
        for file in tmp_path.iterdir():
            file.write_bytes(b"{}")
        assert is_damaged(tmp_path, 0) and not is_damaged(tmp_path, 1)


WRITER = """
import sys
from pathlib import Path
from selftrain.processes import Team
from selftrain.records import Completion
from selftrain.sampling.units import collect
folder, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
rows = collect(folder, [str(n) for n in range(120)], 2, lambda members: [
    Completion(member, 0, (1,), name, "eos") for member in members
], Team())
print(" ".join(f"{row.problem_id}:{row.text}" for row in rows))
"""


def test_two_processes_that_write_the_same_shards_end_with_the_same_rows(tmp_path: Path) -> None:
    """Sixty shards, begun at one moment: no row twice, none lost, and both are told the same."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    first, second = (writer.communicate(timeout=60)[0] for writer in writers)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert first == second and [row.partition(":")[0] for row in first.split()] == [str(n) for n in range(120)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"shard-{n:05d}.jsonl" for n in range(60)]


@pytest.mark.parametrize("damage", [b"", b"\n", b"[]\n", b"{}\n", b"\xff\n"])
def test_an_altered_shard_is_no_shard(tmp_path: Path, damage: bytes) -> None:
    rows = rows_of("one", ["a", "b"])
    write_shard(tmp_path, 0, rows)
    shard = tmp_path / "shard-00000.jsonl"
    whole = shard.read_bytes()
    for content in (damage, damage + whole, whole + damage, whole[:-2] + damage, whole.replace(b"by one", b"by two")):
        if content != whole:
            shard.write_bytes(content)
            assert read_shard(tmp_path, 0) is None, content
    write_shard(tmp_path, 0, rows)
    assert read_shard(tmp_path, 0) == rows
