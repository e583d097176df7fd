"""What every source of problems shares: the table of sources, `load`, and the checks on what comes out.

    loaded = load(DataSpec(source="asdiv", path="ASDiv.xml"))
    loaded.problems, loaded.skipped          # [Problem, ...], {"formula is not arithmetic": 371, ...}

A source is a function from a `DataSpec` to a `LoadedSet`, registered by name with `@source`. It yields all its
usable problems in a stable order; which of them a set takes is `assemble`'s business. A row that is broken is a
`DataError` with its line; a row that is sound but of no use here is skipped, with its reason counted.

Leaves out: answers that a set's verifier does not accept (kept as they stand; `gold` says so), downloads (`hub`).
"""

from __future__ import annotations

import collections
import dataclasses
import decimal
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from selftrain.calculator.expression import canonical
from selftrain.config import DataSpec
from selftrain.data.reading import Row
from selftrain.errors import DataError, nearest
from selftrain.records import Problem, to_dict
from selftrain.seeding import derive_seed

KNOWN_SHARE = 0.75
MAX_NUMBER_CHARS = 40
_NUMBER = re.compile(r"([-+]?)\s*\$?\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)")


@dataclasses.dataclass(frozen=True)
class LoadedSet:
    """The problems of a source, rows skipped by reason, remarks, and a SHA-256 of the file or of the rows.

    `formats` counts how a file writes its answers (`verify.formats`); empty where the source has one way.
    """

    problems: list[Problem]
    skipped: dict[str, int]
    notes: list[str]
    digest: str
    formats: dict[str, int] = dataclasses.field(default_factory=dict)


Loader = Callable[[DataSpec, bool], LoadedSet]


@dataclasses.dataclass(frozen=True)
class Source:
    """A registered source: how it loads, and which fields of a `DataSpec` mean something to it."""

    load: Loader
    params: frozenset[str] | None
    takes_path: bool
    takes_fields: bool
    takes_task: bool
    file_splits: frozenset[str]  # parts that a local file has too


SOURCES: dict[str, Source] = {}


def source(
    name: str,
    *,
    params: Iterable[str] | None = (),
    takes_path: bool = True,
    takes_fields: bool = False,
    takes_task: bool = False,
    file_splits: Iterable[str] = (),
) -> Callable[[Loader], Loader]:
    """Register a loader. `params=None` lets the loader check its parameters itself."""

    def register(loader: Loader) -> Loader:
        known = None if params is None else frozenset(params)
        SOURCES[name] = Source(loader, known, takes_path, takes_fields, takes_task, frozenset(file_splits))
        return loader

    return register


def load(spec: DataSpec, *, offline: bool = False) -> LoadedSet:
    """The problems that a spec speaks of: source, groups, verifier and `rationales` applied, nothing else.

    Raises:
        DataError: an unknown source, fields that it has no use for, a broken file or row, or nothing usable.
    """
    return narrow(load_source(spec, offline=offline), spec)


def load_source(spec: DataSpec, *, offline: bool = False) -> LoadedSet:
    """Everything usable in a spec's source, before groups and rationales are looked at."""
    _, task, found = find_source(spec)
    _check_fields(spec, found, task)
    loaded = found.load(spec, offline)
    if not loaded.problems:
        raise DataError(f"{spec.label}: expected usable problems, got none ({_counts(loaded.skipped)}).")
    check_unique_ids(loaded.problems)
    return loaded


def find_source(spec: DataSpec) -> tuple[str, str, Source]:
    """A spec's source: its name, the task after a colon (or ""), and the source itself.

    Raises:
        DataError: there is no source of that name.
    """
    name, _, task = spec.source.partition(":")
    if name not in SOURCES:
        close = nearest(name, SOURCES)
        hint = f"Did you mean {close!r}?" if close else None
        raise DataError(f"No data source is called {name!r}; sources: {', '.join(sorted(SOURCES))}.", hint)
    return name, task, SOURCES[name]


def load_key(spec: DataSpec) -> str:
    """Equal for two specs exactly when `load_source` gives the same for both."""
    return json.dumps(
        [spec.source, spec.path, spec.split, spec.fields, spec.params, spec.verify], sort_keys=True, default=str
    )


def narrow(loaded: LoadedSet, spec: DataSpec) -> LoadedSet:
    """The part of a loaded source that `groups` and `group_split` name, with its verifier; rationales as asked.

    Raises:
        DataError: groups asked for that are not there, or nothing left.
    """
    problems = _in_groups(loaded.problems, spec)
    if spec.group_split is not None:
        problems = _in_part(problems, spec)
    if not problems:
        raise DataError(f"{spec.label}: no problem is left after groups and group_split.")
    if not spec.rationales:
        problems = [dataclasses.replace(problem, rationale=None) for problem in problems]
    if spec.verify != "numeric":
        problems = [dataclasses.replace(problem, verify=spec.verify) for problem in problems]
    return dataclasses.replace(loaded, problems=problems)


def group_part(group: str) -> str:
    """'known' or 'unseen': where the hash of its name puts a group (about three in four are known).

    It depends on the group's name only, so every seed, size and set of a source agrees on it.
    """
    return "known" if derive_seed("group_split", group) < KNOWN_SHARE * 2**63 else "unseen"


def _in_groups(problems: list[Problem], spec: DataSpec) -> list[Problem]:
    if spec.groups is None:
        return problems
    present = {problem.group for problem in problems if problem.group is not None}
    for group in spec.groups:
        if group not in present:
            close = nearest(group, present)
            hint = f"Did you mean {close!r}?" if close else f"Groups found: {_few(sorted(present))}."
            raise DataError(f"{spec.label}: no problem belongs to group {group!r}.", hint)
    return [problem for problem in problems if problem.group in spec.groups]


def _in_part(problems: list[Problem], spec: DataSpec) -> list[Problem]:
    if spec.group_split not in ("known", "unseen"):
        raise DataError(f"{spec.label}: group_split: expected 'known' or 'unseen', got {spec.group_split!r}.")
    if any(problem.group is None for problem in problems):
        raise DataError(
            f"{spec.label}: group_split needs problems with groups, and source {spec.source!r} gives none.",
            "Leave group_split out, or map a group field (fields.group).",
        )
    return [problem for problem in problems if group_part(problem.group or "") == spec.group_split]


def _check_fields(spec: DataSpec, found: Source, task: str) -> None:
    name = spec.source.partition(":")[0]
    if task and not found.takes_task:
        raise DataError(f"Source {name!r} has no parts, got {spec.source!r}.", f"Write source: {name}.")
    if spec.path is not None and not found.takes_path:
        raise DataError(f"Source {name!r} makes its problems itself, got path {spec.path!r}.", "Leave path out.")
    of_file = spec.path is not None and spec.split not in found.file_splits
    if spec.split is not None and (of_file or not found.takes_path):
        raise DataError(f"{spec.label}: split names a part of a hub data set, and this set is not from the hub.")
    if spec.fields and not found.takes_fields:
        raise DataError(f"Source {name!r} knows its own columns, got fields {sorted(spec.fields)}.")
    for param in spec.params:
        if found.params is not None and param not in found.params:
            known = ", ".join(sorted(found.params)) or "none"
            raise DataError(f"{spec.label}: unknown parameter {param!r}; parameters of {name}: {known}.")


def with_own_ids(found: Iterable[tuple[Row, Problem]]) -> list[Problem]:
    """The problems of a file's rows.

    Raises:
        DataError: two have one id; both places are named.
    """
    places: dict[str, str] = {}
    problems = []
    for row, problem in found:
        if problem.id in places:
            raise DataError(
                f"{row.where}: id {problem.id[:80]!r} was used before, at {places[problem.id]}.",
                "Give each row its own id.",
            )
        places[problem.id] = row.where
        problems.append(problem)
    return problems


def check_unique_ids(problems: Iterable[Problem]) -> None:
    """Raise `DataError` for the first id that two problems share."""
    counts = collections.Counter(problem.id for problem in problems)
    identity, count = counts.most_common(1)[0]
    if count > 1:
        raise DataError(
            f"Expected ids that differ, got {count} problems with id {identity!r}.", "Give each its own id."
        )


def whole_number(spec: DataSpec, name: str, default: int, *, least: int, most: int) -> int:
    """An integer parameter of a source, checked for type and range."""
    value = spec.params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise DataError(f"{spec.label}: params.{name}: expected an integer from {least} to {most}, got {value!r}.")
    return value


def number_text(value: object) -> str | None:
    """The canonical writing of a number, or None for anything that is not exactly one number.

    Takes JSON numbers and texts such as "1,800", "$29.00", "-3". None too where the canonical writing
    (at most 6 decimals) would not be exact.

    >>> number_text("1,800"), number_text(51.0), number_text("72 apples"), number_text(1 / 3)
    ('1800', '51', None, None)
    """
    exact = _exact(value)
    if exact is None:
        return None
    text = canonical(exact)
    return text if Fraction(text) == exact else None


def _exact(value: object) -> Fraction | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip()) if len(value) <= MAX_NUMBER_CHARS else None
        return None if match is None else Fraction(match[1] + match[2].replace(",", "").rstrip("."))
    if isinstance(value, float):
        text = repr(value)
        return Fraction(decimal.Decimal(text)) if abs(value) < 1e18 else None
    return Fraction(value) if abs(value) < 10**MAX_NUMBER_CHARS else None


def with_answer(steps: str, answer: str) -> str:
    """A rationale: the steps, then the line that holds the answer.

    >>> with_answer("6*7=<<6*7=42>>42", "42")
    '6*7=<<6*7=42>>42\\n#### 42'
    """
    return f"{steps.rstrip()}\n#### {answer}"


def join_question(body: str, question: str) -> str:
    """One text from a body and a question; a body that ends in a letter or digit gets its period.

    >>> join_question("There are 3 cats", "How many cats?")
    'There are 3 cats. How many cats?'
    """
    body = body.strip()
    return f"{body}{'.' if body[-1:].isalnum() else ''} {question.strip()}".strip()


def rows_digest(problems: Iterable[Problem]) -> str:
    """SHA-256 of problems as they stand, for sources that have no file."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(to_dict(problem), sort_keys=True).encode("ascii") + b"\n")
    return digest.hexdigest()


def _counts(skipped: dict[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no rows"


def _few(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    return f"{shown}, ..." if len(names) > 8 else shown or "none"
