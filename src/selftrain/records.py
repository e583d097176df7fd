"""The nouns that travel between stages, and their JSONL form.

Stages exchange files of these records and nothing else. Every record is frozen; `read_jsonl` and
`write_jsonl` are the only readers and writers, and a write appears whole or not at all.

    Problem     a question, its gold answer where known, its gold rationale where known
    Completion  what a model wrote for a problem: token ids, forced spans, verdicts
    Pair        a right and a wrong completion of one problem
    Example     prompt and target token ids to train on, with where the target came from

Ids and text are kept side by side: training always uses the stored ids, never re-tokenised text.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from selftrain import durable
from selftrain.errors import DataError

Outcome = Literal["right", "wrong", "unparsed", "timeout"]
NO_GOLD = "none"  # a verdict's `source` where there was no gold answer to judge by


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A question to solve.

    >>> Problem(id="gsm8k/train-12", question="6 boxes of 7 pens?", answer="42",
    ...         rationale="6*7=<<6*7=42>>42\\n#### 42").answer
    '42'

    `rationale` is the whole target text, canonical annotations and the `#### answer` line included.
    `group` names what belongs together for clustered intervals (a template), `neighbour` the
    highest word-set Jaccard similarity to any training question (filled for test rows). `verify` names the verifier
    that judges answers to it (`selftrain.verify`).
    """

    id: str
    question: str
    answer: str | None = None
    rationale: str | None = None
    group: str | None = None
    neighbour: float | None = None
    verify: str = "numeric"


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one text: outcome, the answer it found, and why.

    An `unparsed` text is a loser like a wrong one (paper's code); a `timeout` is neither winner nor loser, and so is
    any verdict given without a gold answer (`source` is `NO_GOLD`); see `pairing.py`.
    """

    outcome: Outcome
    extracted: str | None = None
    reason: str = ""
    source: str = "gold"
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """One text that a model wrote for one problem.

    `token_ids` excludes the prompt and includes the end token when `stop == "eos"`. `forced` lists
    [start, end) spans of `token_ids` that the calculator wrote. `k` is the sample index (0 for greedy),
    `model` the digest of the weights that wrote it, `stage` the run stage it came from.
    `calls` counts computed annotations, `uncalculated` those that could not be computed.
    """

    problem_id: str
    k: int
    token_ids: tuple[int, ...]
    text: str
    stop: Literal["eos", "length"]
    forced: tuple[tuple[int, int], ...] = ()
    calls: int = 0
    uncalculated: int = 0
    model: str = ""
    stage: str = ""
    strict: Verdict | None = None
    flexible: Verdict | None = None
    kind: str = "sample"
    parents: tuple[str, ...] = ()
    prefix: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A winner and a loser for one problem, as token ids (no prompt, end token included).

    `chosen_from` and `rejected_from` name each side's origin: "gold", or "STAGE#K" of a completion.
    `similarity` is the Jaccard similarity by which the pair was picked.
    """

    problem_id: str
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_from: str
    rejected_from: str
    similarity: float
    weight: float = 1.0
    context: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A target to imitate for one problem. `origin` is "gold" or "STAGE#K"; `model` the digest that wrote it."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    origin: str
    model: str = ""
    weight: float = 1.0


Record = TypeVar("Record", Problem, Completion, Pair, Example)


def to_dict(record: Any) -> dict[str, Any]:
    """A record as a JSON-ready dict, fields that hold their default left out."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        out[field.name] = to_dict(value) if dataclasses.is_dataclass(value) else value
    return out


def from_dict(kind: type[Record], row: dict[str, Any]) -> Record:
    """The record that `to_dict` wrote; unknown or missing fields raise `TypeError`."""
    return typing.cast(Record, _build(kind, row))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build(kind: Any, row: Any) -> Any:
    hints = _hints(kind)
    return kind(**{name: _value(hints.get(name), value) for name, value in row.items()})


def _value(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(hint, types.UnionType):
        hint = next((part for part in hint.__args__ if part is not type(None)), None)
    if isinstance(value, list):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if isinstance(value, dict) and dataclasses.is_dataclass(hint):
        return _build(hint, value)
    return value


def as_line(record: Any) -> bytes:
    """A record as a line of JSON, in ASCII."""
    return json.dumps(to_dict(record), separators=(",", ":")).encode("ascii") + b"\n"


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records one a line, atomically (temporary file, fsync, rename). Returns the count."""
    count = 0
    with durable.whole(path) as out:
        for record in records:
            out.write(as_line(record))
            count += 1
    return count


def read_jsonl(path: Path, kind: type[Record]) -> list[Record]:
    """Every record of a file that `write_jsonl` wrote.

    Raises:
        DataError: a line that is not such a record, with its number.
    """
    return list(iter_jsonl(path, kind))


def iter_jsonl(path: Path, kind: type[Record]) -> Iterator[Record]:
    """`read_jsonl`, one record at a time."""
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:  # a damaged byte is a line that fails
        for number, line in enumerate(lines, start=1):
            try:
                yield from_dict(kind, json.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(f"{path}, line {number}: not a {kind.__name__} record ({error}).") from error
