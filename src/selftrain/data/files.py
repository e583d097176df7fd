"""Your own problems: JSONL, a JSON list, CSV or Parquet, with a mapping from our field names to the file's columns.

    DataSpec(source="file", path="my.jsonl", fields={"question": "prompt", "answer": "target"})

Our fields are question, answer, rationale, id and group; a column that is not mapped is looked for under its
usual names (`USUAL_NAMES`). `worked`, which is only ever mapped, is a text whose last number is the answer: it is read
in place of an answer, and is the rationale too where it holds further numbers and there is no rationale of its own.
An answer that holds `####`, as GSM8K's, is split into rationale and answer; with `verify: symbolic` a rationale's last
`\\boxed{}` counts too. Answers get the set's verifier's canonical writing. A rationale without annotations gets them
where its plain equations are right (`params: {annotate: false}` leaves it as it is). Ids are "FILE/ID", or "FILE/LINE"
without an id column. Rows without an answer are refused, or with `params: {unanswered: true}` taken as questions alone,
for work that needs no answers (sampling).

A hub data set goes the same way: source "hub:NAME", "hub:NAME:SPLIT" or "hub:NAME:SPLIT:SUBSET", with ids
"NAME/SPLIT-ROW".
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from selftrain.calculator.annotation import canonicalise
from selftrain.calculator.equations import annotate_equations
from selftrain.calculator.expression import canonical
from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, rows_digest, source, with_answer, with_own_ids
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError, listed, nearest
from selftrain.records import Problem
from selftrain.stagefolder import file_digest
from selftrain.verify.choice import parse_choice
from selftrain.verify.extract import last_boxed
from selftrain.verify.formats import BOXED, count_formats
from selftrain.verify.numeric import flexible_answer, parse_number

MARK = "####"
OTHER_ANSWER = "rationale ends in another answer"
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "input", "query"),
    "answer": ("answer", "final_answer", "final_ans", "target", "label", "gold"),
    "rationale": ("rationale", "solution", "reasoning", "explanation"),
    "id": ("id", "problem_id", "question_id"),
    "group": ("group", "template"),
    "worked": (),
}
HUB = "hub"
_HUB_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")
Columns = Mapping[str, str]


@source("file", params=["annotate", "unanswered"], takes_fields=True)
def load_file(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row of the file; those whose rationale ends in another answer than theirs are skipped and counted."""
    rows, name = rows_of(spec, offline=offline)
    return _loaded(spec, rows, name, Path(name).stem, file_digest(Path(name)))


@source(HUB, params=["annotate", "unanswered"], takes_fields=True, takes_task=True)
def load_hub_set(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row of a hub data set's split, as `load_file` reads a file's."""
    rows, name = rows_of(spec, offline=offline)
    return _loaded(spec, rows, name, name.rpartition("/")[2], None)


def rows_of(spec: DataSpec, *, offline: bool = False) -> tuple[list[Row], str]:
    """The rows of a spec's file or hub data set as they stand, and what messages call it.

    Raises:
        DataError: no path or name, or rows that cannot be had.
    """
    kind, _, task = spec.source.partition(":")
    if kind != HUB:
        if spec.path is None:
            raise DataError(f"{spec.label}: source file needs a path.", "Write path: my.jsonl.")
        path = open_path(spec.path, "a file of rows with questions and answers")
        return read_rows(path), str(path)
    name, _, part = task.partition(":")
    split, _, subset = part.partition(":")
    if spec.path is not None or not _HUB_NAME.fullmatch(name) or (split and spec.split):
        raise DataError(
            f"Source hub: expected hub:NAME, hub:NAME:SPLIT or hub:NAME:SPLIT:SUBSET, got {spec.source!r}"
            f"{' and a path' if spec.path is not None else f' and split {spec.split!r}' if spec.split else ''}.",
            "Such as hub:openai/gsm8k:train:main. A local file is source: file.",
        )
    return hub_rows(name, splits_of(split or spec.split, ["train"]), offline=offline, config=subset or None), name


def _loaded(spec: DataSpec, rows: Sequence[Row], where: str, stem: str, digest: str | None) -> LoadedSet:
    annotate, unanswered = _flag(spec, "annotate", True), _flag(spec, "unanswered", False)
    columns = find_columns(spec.fields, column_names(rows), where, unanswered=unanswered)
    if "worked" in columns and spec.verify != "numeric":
        raise DataError(f"fields.worked: the last number of a text is for verify: numeric, got {spec.verify}.")
    found: list[tuple[Row, Problem]] = []
    skipped: collections.Counter[str] = collections.Counter()
    for row in rows:
        made = _problem(row, columns, stem, spec.verify, annotate, unanswered)
        if made is None:
            skipped[OTHER_ANSWER] += 1
            continue
        found.append((row, made))
    formats = count_formats(text for row in rows if (text := answer_text(row, columns)))
    problems = with_own_ids(found)
    return LoadedSet(problems, dict(skipped), [f"columns {columns}"], digest or rows_digest(problems), formats)


def answer_text(row: Row, columns: Columns) -> str | None:
    """The text that a row's answer stands in, as it is written; None where it has none.

    Beside a column of answers, a rationale counts where it marks its own.
    """
    stated, steps = _value(row, columns, "worked") or _value(row, columns, "answer"), _value(row, columns, "rationale")
    if stated is None and "answer" in columns and steps is not None and MARK not in steps and BOXED not in steps:
        return None
    return stated or steps


def _flag(spec: DataSpec, name: str, default: bool) -> bool:
    value = spec.params.get(name, default)
    if not isinstance(value, bool):
        raise DataError(f"{spec.label}: params.{name}: expected true or false, got {value!r}.")
    return value


def find_columns(
    fields: Mapping[str, str], names: Iterable[str], where: Path | str, *, unanswered: bool = False
) -> dict[str, str]:
    """Which column each of our fields is read from: as mapped, else by its usual names (case does not matter).

    Raises:
        DataError: a mapping of an unknown field or to a column that is not there, no question, or (unless
            `unanswered`) no answer.
    """
    found = list(names)
    by_case = {name.lower(): name for name in reversed(found)}
    shown = listed([name[:80] for name in found], 20) or "none"
    columns: dict[str, str] = {}
    for ours, theirs in fields.items():
        if ours not in USUAL_NAMES:
            close = nearest(ours, USUAL_NAMES)
            hint = f"Did you mean {close!r}?" if close else None
            raise DataError(f"fields: unknown field {ours!r}; fields: {', '.join(USUAL_NAMES)}.", hint)
        if theirs not in found:
            close = nearest(theirs, found)
            hint = f"Did you mean {close!r}?" if close else None
            raise DataError(f"{where}: fields.{ours} names column {theirs[:80]!r}; columns found: {shown}.", hint)
        columns[ours] = theirs
    for ours, usual in USUAL_NAMES.items():
        match = next((by_case[name] for name in usual if name in by_case), None)
        stated_there = ours == "answer" and "worked" in columns
        if match is not None and match not in columns.values() and not stated_there:
            columns.setdefault(ours, match)
    for ours in ("question",) if unanswered else ("question", "answer"):
        if ours not in columns and not (ours == "answer" and columns.keys() & {"rationale", "worked"}):
            raise DataError(
                f"{where}: no column for {ours!r} was found; columns found: {shown}.",
                f"Name it: fields: {{{ours}: COLUMN}}, or --field {ours}=COLUMN.",
            )
    return columns


def column_names(rows: Iterable[Row]) -> list[str]:
    """Every column name of a file, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def _problem(row: Row, columns: Columns, stem: str, verify: str, annotate: bool, unanswered: bool) -> Problem | None:
    """The row's problem, without answer and rationale where it has none and may; None where they contradict.

    Where equal answers can be written in many ways, the rationale keeps its own ending, for the verifier to judge.
    """
    stated, steps = _value(row, columns, "answer"), _value(row, columns, "rationale")
    worked = _value(row, columns, "worked")
    if worked is not None:
        stated = flexible_answer(worked)
        steps = steps or (worked if _shows_work(worked) else None)
    if stated is not None and MARK in stated:
        head, _, stated = stated.rpartition(MARK)
        steps = steps or head
    last = None
    if steps is not None and MARK in steps:
        steps, _, last = steps.rpartition(MARK)
    elif steps is not None and verify == "symbolic":
        last = last_boxed(steps)
    if last is not None:
        stated = stated or last
        if verify in ("numeric", "choice") and _cleaned(last, verify) != _cleaned(stated, verify):
            return None
    answer = _cleaned(stated, verify) if stated and stated.strip() else None
    if answer is None and not unanswered:
        raise DataError(
            f"{row.where}: expected an answer in {_answer_column(columns)!r}, got none.",
            "Every row needs an answer that can be checked.",
        )
    ending = _cleaned(last, verify) if last and last.strip() else answer
    rationale = with_answer(_annotated(steps, annotate), ending) if ending and steps and steps.strip() else None
    identity = _value(row, columns, "id") or row.key
    return Problem(
        f"{stem}/{identity}", row.text(columns["question"]), answer, rationale, _value(row, columns, "group")
    )


def _shows_work(text: str) -> bool:
    """Whether a text holds more numbers than its answer."""
    return len(re.findall(r"[0-9]+(?:[.,][0-9]+)*", text)) > 1


def _answer_column(columns: Columns) -> str | None:
    return next((columns[ours] for ours in ("worked", "answer", "rationale") if ours in columns), None)


def _value(row: Row, columns: Columns, ours: str) -> str | None:
    """A column's value as text; None where the column, or the value, is not there."""
    value = row.values.get(columns[ours]) if ours in columns else None
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{row.where}: expected text or a number in {columns[ours]!r}, got {type(value).__name__}.")
    return row.checked(value if isinstance(value, str) else number_text(value) or str(value), columns[ours])


def _cleaned(answer: str, verify: str) -> str:
    """The canonical writing of an answer that its verifier can read ("5/2": 2.5; "(b)": B), else itself, stripped."""
    if verify == "choice":
        return parse_choice(answer) or answer.strip()
    if verify == "symbolic":
        return (last_boxed(answer) or answer).strip()
    if verify != "numeric":
        return answer.strip()
    value = parse_number(answer)
    if value is None or Fraction(canonical(value)) != value:
        return answer.strip()
    return canonical(value)


def _annotated(steps: str, annotate: bool) -> str:
    text = steps.strip()
    if annotate and "<<" not in text:
        text = annotate_equations(text)
    return canonicalise(text, "angle")
