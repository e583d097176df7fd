"""Your own problems: JSONL, a JSON list or CSV, with a mapping from our field names to the file's columns.

    DataSpec(source="file", path="my.jsonl", fields={"question": "prompt", "answer": "target"})

Our fields are question, answer, rationale, id and group; a column that is not mapped is looked for under its
usual names (`USUAL_NAMES`). An answer that holds `####`, as GSM8K's, is split into rationale and answer; with
`verify: symbolic` a rationale's last `\\boxed{}` counts too. Answers get the set's verifier's canonical writing.
A rationale without annotations gets them where its plain equations are right (`params: {annotate: false}` leaves
it as it is). Ids are "FILE/ID", or "FILE/LINE" without an id column. Rows without an answer are refused, or with
`params: {unanswered: true}` taken as questions alone, for work that needs no answers (sampling).
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path

from selftrain.calculator.annotation import canonicalise
from selftrain.calculator.equations import annotate_equations
from selftrain.calculator.expression import canonical
from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, source, with_answer
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError, nearest
from selftrain.records import Problem
from selftrain.rundir import file_digest
from selftrain.verify.choice import parse_choice
from selftrain.verify.extract import last_boxed
from selftrain.verify.formats import count_formats
from selftrain.verify.numeric import parse_number

MARK = "####"
OTHER_ANSWER = "rationale ends in another answer"
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt", "input", "query"),
    "answer": ("answer", "final_answer", "final_ans", "target", "label", "gold"),
    "rationale": ("rationale", "solution", "reasoning", "explanation"),
    "id": ("id", "problem_id", "question_id"),
    "group": ("group", "template"),
}
Columns = Mapping[str, str]


@source("file", params=["annotate", "unanswered"], takes_fields=True)
def load_file(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row of the file; those whose rationale ends in another answer than theirs are skipped and counted."""
    if spec.path is None:
        raise DataError(f"{spec.label}: source file needs a path.", "Write path: my.jsonl.")
    annotate, unanswered = _flag(spec, "annotate", True), _flag(spec, "unanswered", False)
    path = open_path(spec.path, "a file of rows with questions and answers")
    rows = read_rows(path)
    columns = find_columns(spec.fields, _names(rows), path, unanswered=unanswered)
    problems: list[Problem] = []
    skipped: collections.Counter[str] = collections.Counter()
    lines: dict[str, str] = {}
    for row in rows:
        made = _problem(row, columns, path.stem, spec.verify, annotate, unanswered)
        if made is None:
            skipped[OTHER_ANSWER] += 1
            continue
        if made.id in lines:
            raise DataError(
                f"{row.where}: id {made.id!r} was used before, at {lines[made.id]}.", "Give each row its own id."
            )
        lines[made.id] = row.where
        problems.append(made)
    written = [text for row in rows if (text := _value(row, columns, "answer") or _value(row, columns, "rationale"))]
    notes = [f"columns {dict(columns)}"]
    return LoadedSet(problems, dict(skipped), notes, file_digest(path), count_formats(written))


def _flag(spec: DataSpec, name: str, default: bool) -> bool:
    value = spec.params.get(name, default)
    if not isinstance(value, bool):
        raise DataError(f"{spec.label}: params.{name}: expected true or false, got {value!r}.")
    return value


def find_columns(
    fields: Mapping[str, str], names: Iterable[str], path: Path, *, unanswered: bool = False
) -> dict[str, str]:
    """Which column each of our fields is read from: as mapped, else by its usual names (case does not matter).

    Raises:
        DataError: a mapping of an unknown field or to a column that is not there, no question, or (unless
            `unanswered`) no answer.
    """
    found = list(names)
    by_case = {name.lower(): name for name in reversed(found)}
    shown = ", ".join(found[:20]) or "none"
    columns: dict[str, str] = {}
    for ours, theirs in fields.items():
        if ours not in USUAL_NAMES:
            close = nearest(ours, USUAL_NAMES)
            hint = f"Did you mean {close!r}?" if close else None
            raise DataError(f"fields: unknown field {ours!r}; fields: {', '.join(USUAL_NAMES)}.", hint)
        if theirs not in found:
            close = nearest(theirs, found)
            hint = f"Did you mean {close!r}?" if close else None
            raise DataError(f"{path}: fields.{ours} names column {theirs!r}; columns found: {shown}.", hint)
        columns[ours] = theirs
    for ours, usual in USUAL_NAMES.items():
        match = next((by_case[name] for name in usual if name in by_case), None)
        if match is not None and match not in columns.values():
            columns.setdefault(ours, match)
    for ours in ("question",) if unanswered else ("question", "answer"):
        if ours not in columns and not (ours == "answer" and "rationale" in columns):
            raise DataError(
                f"{path}: no column for {ours!r} was found; columns found: {shown}.",
                f"Name it: fields: {{{ours}: COLUMN}}.",
            )
    return columns


def _names(rows: Iterable[Row]) -> list[str]:
    """Every column name of a file, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def _problem(row: Row, columns: Columns, stem: str, verify: str, annotate: bool, unanswered: bool) -> Problem | None:
    """The row's problem, without answer and rationale where it has none and may; None where they contradict.

    Where equal answers can be written in many ways, the rationale keeps its own ending, for the verifier to judge.
    """
    stated, steps = _value(row, columns, "answer"), _value(row, columns, "rationale")
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
            f"{row.where}: expected an answer in {columns.get('answer', columns.get('rationale'))!r}, got none.",
            "Every row needs an answer that can be checked.",
        )
    ending = _cleaned(last, verify) if last and last.strip() else answer
    rationale = with_answer(_annotated(steps, annotate), ending) if ending and steps and steps.strip() else None
    identity = _value(row, columns, "id") or row.key
    return Problem(
        f"{stem}/{identity}", row.text(columns["question"]), answer, rationale, _value(row, columns, "group")
    )


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
