"""Shards: the unit of resume inside sampling.

A stage's questions are cut into shards of fixed membership. A shard is sampled whole, written whole, and then
sealed by a small file that names its digest; a shard without a good seal is done again from its start, so what
comes out does not depend on where a run was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from selftrain.errors import RunError
from selftrain.processes import Team
from selftrain.records import Completion, read_jsonl, write_jsonl
from selftrain.stagefolder import file_digest, read_json, write_json

Item = TypeVar("Item")


def shards(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive runs of `size` items; the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def read_shard(folder: Path, number: int) -> list[Completion] | None:
    """A finished shard's completions; None when it is missing, torn or altered."""
    data, seal = _paths(folder, number)
    sealed = read_json(seal)
    if sealed is None or not data.is_file() or file_digest(data) != sealed.get("sha256"):
        return None
    return read_jsonl(data, Completion)


def write_shard(folder: Path, number: int, completions: Sequence[Completion]) -> None:
    """Write a shard, then its seal."""
    data, seal = _paths(folder, number)
    write_jsonl(data, completions)
    write_json(seal, {"sha256": file_digest(data), "rows": len(completions)})


def collect(
    folder: Path,
    items: Sequence[Item],
    size: int,
    sample: Callable[[Sequence[Item]], list[Completion]],
    team: Team,
) -> list[Completion]:
    """Every shard's completions in order, sampling those that are not there yet.

    A team shares the shards out in turn; its main process alone gets the completions.
    """
    parts = shards(items, size)
    made: dict[int, list[Completion]] = {}
    for number, members in enumerate(parts):
        if number % team.size == team.rank:
            found = read_shard(folder, number)
            if found is None:
                found = sample(members)
                write_shard(folder, number, found)
            made[number] = found
    team.wait()
    if not team.is_main:
        return []
    for number in range(len(parts)):
        found = made[number] if number in made else read_shard(folder, number)
        if found is None:
            raise RunError(f"{folder}: shard {number}, which another process made, cannot be read back from here.")
        made[number] = found
    return [row for number in range(len(parts)) for row in made[number]]


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"shard-{number:05d}.jsonl", folder / f"shard-{number:05d}.seal.json"
