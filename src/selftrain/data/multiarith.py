"""MultiArith: rows {sQuestion, lEquations, lSolutions} (its first form) or {question, final_ans} (the hub's).

    DataSpec(source="multiarith", path="MultiArith.json")    # or no path: ChilleD/MultiArith, train + test

Ids are "multiarith/FILE-ROW". Rationales are made of the equation ("X=((8.0+5.0)*2.0)", `formula`) where it equals the
answer exactly; rows where it does not, or that have none (the hub's), are kept with their answer only, and noted.
"""

from __future__ import annotations

import re

from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, rows_digest, source
from selftrain.data.formula import FormulaError, rationale
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.stagefolder import file_digest

HUB_NAME = "ChilleD/MultiArith"
_UNKNOWN = re.compile(r"\s*[A-Za-z]\s*=")  # before the formula; behind it ("8+5=X") `formula` leaves it out


@source("multiarith")
def load_multiarith(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row; one without exactly one number as its answer is an error."""
    if spec.path is None:
        rows = hub_rows(HUB_NAME, splits_of(spec.split, ["train", "test"]), offline=offline)
        problems, notes = [_problem(row, row.key) for row in rows], [f"hub data set {HUB_NAME}"]
        digest = rows_digest(problems)
    else:
        path = open_path(spec.path, "a MultiArith file of {sQuestion, lSolutions} or {question, final_ans}")
        problems, notes = [_problem(row, f"{path.stem}-{row.key}") for row in read_rows(path)], []
        digest = file_digest(path)
    without = sum(problem.rationale is None for problem in problems)
    if without:
        notes.append(f"{without} rows have no rationale: no equation gives their answer exactly")
    return LoadedSet(problems, {}, notes, digest)


def _problem(row: Row, key: str) -> Problem:
    question = "sQuestion" if "sQuestion" in row.values else "question"
    column = "lSolutions" if "lSolutions" in row.values else "final_ans"
    value = _only(row.values.get(column))
    answer = number_text(value)
    if answer is None:
        raise DataError(f"{row.where}: expected one number in {column!r}, got {str(value)[:60]!r}.")
    return Problem(
        f"multiarith/{key}", row.text(question), answer, _worked(_only(row.values.get("lEquations")), answer)
    )


def _worked(equation: object, answer: str) -> str | None:
    text = equation if isinstance(equation, str) else ""
    unknown = _UNKNOWN.match(text)
    try:
        return rationale(text[unknown.end() :] if unknown else text, answer)
    except FormulaError:
        return None


def _only(value: object) -> object:
    """The item of a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
