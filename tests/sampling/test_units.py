"""Shards: fixed membership, and nothing trusted without a good seal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selftrain.processes import Team
from selftrain.records import Completion
from selftrain.sampling.units import collect, read_shard, shards


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
