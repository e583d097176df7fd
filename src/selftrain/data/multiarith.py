"""MultiArith: rows {sQuestion, lSolutions} (its first form) or {question, final_ans} (the hub's).

    DataSpec(source="multiarith", path="MultiArith.json")    # or no path: ChilleD/MultiArith, train + test

Ids are "multiarith/FILE-ROW". It has equations in some copies only, so no rationales are made: it evaluates.
"""

from __future__ import annotations

from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, rows_digest, source
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.stagefolder import file_digest

HUB_NAME = "ChilleD/MultiArith"


@source("multiarith")
def load_multiarith(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row; one without exactly one number as its answer is an error."""
    if spec.path is None:
        rows = hub_rows(HUB_NAME, splits_of(spec.split, ["train", "test"]), offline=offline)
        problems = [_problem(row, row.key) for row in rows]
        return LoadedSet(problems, {}, [f"hub data set {HUB_NAME}"], rows_digest(problems))
    path = open_path(spec.path, "a MultiArith file of {sQuestion, lSolutions} or {question, final_ans}")
    problems = [_problem(row, f"{path.stem}-{row.key}") for row in read_rows(path)]
    return LoadedSet(problems, {}, [], file_digest(path))


def _problem(row: Row, key: str) -> Problem:
    question = "sQuestion" if "sQuestion" in row.values else "question"
    column = "lSolutions" if "lSolutions" in row.values else "final_ans"
    value = row.values.get(column)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    answer = number_text(value)
    if answer is None:
        raise DataError(f"{row.where}: expected one number in {column!r}, got {str(value)[:60]!r}.")
    return Problem(f"multiarith/{key}", row.text(question), answer)
