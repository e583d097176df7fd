"""GSM8K: rows {question, answer}, the answer holding annotated steps and `#### 72`.

    DataSpec(source="gsm8k", path="train.jsonl")     # or no path: openai/gsm8k from the hub, split train

Ids are "gsm8k/FILE-LINE" ("gsm8k/train-17"). The paper's own split of the public training file (6,705 and 768) is
not made here: give files that hold it. Departs from the paper: gold annotations get the canonical writing.
"""

from __future__ import annotations

from selftrain.calculator.annotation import canonicalise
from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, rows_digest, source, with_answer
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.rundir import file_digest

HUB_NAME = "openai/gsm8k"
MARK = "####"


@source("gsm8k")
def load_gsm8k(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row; one without a number after `####` is an error."""
    if spec.path is None:
        rows = hub_rows(HUB_NAME, splits_of(spec.split, ["train"]), offline=offline, config="main")
        problems = [_problem(row, row.key) for row in rows]
        return LoadedSet(problems, {}, [f"hub data set {HUB_NAME}"], rows_digest(problems))
    path = open_path(spec.path, "a GSM8K file of rows {question, answer}")
    problems = [_problem(row, f"{path.stem}-{row.key}") for row in read_rows(path)]
    return LoadedSet(problems, {}, [], file_digest(path))


def _problem(row: Row, key: str) -> Problem:
    steps, mark, last = row.text("answer").rpartition(MARK)
    answer = number_text(last) if mark else None
    if answer is None:
        got = f"{MARK} {last.strip()[:40]!r}" if mark else f"no {MARK}"
        raise DataError(f"{row.where}: expected an answer that ends in '{MARK} NUMBER', got {got}.")
    rationale = with_answer(canonicalise(steps, "angle"), answer) if steps.strip() else None
    return Problem(f"gsm8k/{key}", row.text("question"), answer, rationale)
