"""SVAMP: rows {ID, Body, Question, Equation, Answer} in a JSON list; variations made from problems of ASDiv.

    DataSpec(source="svamp", path="SVAMP.json")      # or no path: ChilleD/SVAMP from the hub, train + test

Ids are "svamp/ID". Its authors made it by varying ASDiv's problems, so it is not out of domain for a model
trained on those. Rationales are made of the equation (`formula`) where it equals the answer exactly; rows where
it does not are kept, with their answer only, and noted.
"""

from __future__ import annotations

from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, join_question, number_text, rows_digest, source, with_own_ids
from selftrain.data.formula import FormulaError, rationale
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.stagefolder import file_digest

HUB_NAME = "ChilleD/SVAMP"


@source("svamp")
def load_svamp(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row; one without a number as its answer is an error."""
    if spec.path is None:
        rows = hub_rows(HUB_NAME, splits_of(spec.split, ["train", "test"]), offline=offline)
        digest, notes = None, [f"hub data set {HUB_NAME}"]
    else:
        path = open_path(spec.path, "SVAMP's JSON list of {ID, Body, Question, Equation, Answer}")
        rows, digest, notes = read_rows(path), file_digest(path), []
    problems = with_own_ids((row, _problem(row)) for row in rows)
    without = sum(problem.rationale is None for problem in problems)
    if without:
        notes.append(f"{without} rows have no rationale: their equation does not give the answer exactly")
    return LoadedSet(problems, {}, notes, digest or rows_digest(problems))


def _problem(row: Row) -> Problem:
    answer = number_text(row.values.get("Answer"))
    if answer is None:
        raise DataError(f"{row.where}: expected a number in 'Answer', got {str(row.values.get('Answer'))[:60]!r}.")
    try:
        worked = rationale(str(row.values.get("Equation") or ""), answer)
    except FormulaError:
        worked = None
    question = join_question(row.text("Body"), row.text("Question"))
    return Problem(f"svamp/{row.text('ID')}", question, answer, worked)
