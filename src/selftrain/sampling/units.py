"""Shards: the unit of resume inside sampling.

A stage's questions are cut into shards of fixed membership. A shard is sampled whole and written whole: a line a
completion, then a line with the digest of those before, its seal. A shard without a good seal is done again from its
start, so what comes out does not depend on where a run was cut. Where two processes make the same shard, the one that
is finished first wins, and the other takes what it finds. So a damaged file is not removed, which might hit the good
one that another process has just put in its place: what is done again lies beside it, as shard-NNNNN.jsonl.1.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from selftrain import durable
from selftrain.errors import RunError
from selftrain.processes import Team
from selftrain.records import Completion, as_line, from_dict

Item = TypeVar("Item")


def shards(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive runs of `size` items; the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def read_shard(folder: Path, number: int) -> list[Completion] | None:
    """A finished shard's completions; None when it is missing, torn or altered."""
    return _look(folder, number)[0]


def is_damaged(folder: Path, number: int) -> bool:
    """Whether a shard is torn or altered, and was not done again yet."""
    found, again = _look(folder, number)
    return found is None and again != _path(folder, number)


def write_shard(folder: Path, number: int, completions: Sequence[Completion]) -> None:
    """Write a shard, unless a good one is there already."""
    found, path = _look(folder, number)
    if found is not None:
        return
    lines = [as_line(completion) for completion in completions]
    with durable.whole(path, first_wins=True) as out:
        out.writelines(lines)
        out.write(json.dumps(_seal(lines)).encode() + b"\n")


def collect(
    folder: Path,
    items: Sequence[Item],
    size: int,
    sample: Callable[[Sequence[Item]], list[Completion]],
    team: Team,
) -> list[Completion]:
    """Every shard's completions in order, sampling those that are not there yet.

    A team shares the shards out in turn; its main process alone gets the completions.

    Raises:
        RunError: a shard cannot be written, or what was written cannot be read back.
    """
    parts = shards(items, size)
    made: dict[int, list[Completion]] = {}
    for number, members in enumerate(parts):
        if number % team.size == team.rank:
            found = read_shard(folder, number)
            if found is None:
                write_shard(folder, number, sample(members))
                found = _read_back(folder, number)
            made[number] = found
    team.wait()
    if not team.is_main:
        return []
    for number in range(len(parts)):
        if number not in made:
            made[number] = _read_back(folder, number)
    return [row for number in range(len(parts)) for row in made[number]]


def _read_back(folder: Path, number: int) -> list[Completion]:
    found = read_shard(folder, number)
    if found is None:
        raise RunError(f"{folder}: shard {number} was written and cannot be read back from here.")
    return found


def _seal(lines: Sequence[bytes]) -> dict[str, str | int]:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return {"rows": len(lines), "sha256": digest.hexdigest()}


def _look(folder: Path, number: int) -> tuple[list[Completion] | None, Path]:
    """A shard's completions and its file; else None and where to write it, the first of its names that is free."""
    for again in itertools.count():
        path = _path(folder, number, again)
        if not os.path.lexists(path):
            break
        found = _read(path)
        if found is not None:
            return found, path
    return None, path


def _read(path: Path) -> list[Completion] | None:
    try:
        *lines, seal = path.read_bytes().splitlines(keepends=True)
        if json.loads(seal) != _seal(lines):
            return None
        return [from_dict(Completion, json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, AttributeError):  # an empty file, bytes that are no record
        return None


def _path(folder: Path, number: int, again: int = 0) -> Path:
    return folder / f"shard-{number:05d}.jsonl{f'.{again}' if again else ''}"
