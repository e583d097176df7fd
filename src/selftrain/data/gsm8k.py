"""GSM8K: rows {question, answer}, the answer holding annotated steps and `#### 72`.

    DataSpec(source="gsm8k", path="train.jsonl")          # or no path: openai/gsm8k from the hub, split train
    DataSpec(source="gsm8k", split="paper-validation")    # the paper's share of the public training rows

Ids are "gsm8k/FILE-LINE" ("gsm8k/train-17"). The paper holds 768 of the 7,473 public training rows out: splits
`paper-train` and `paper-validation`, of the hub's rows or of a file's, by `gsm8k_validation.txt` (of each held-out
question the first 12 digits of the SHA-256 of its normalised text). Departs from the paper: gold annotations get the
canonical writing.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from selftrain.calculator.annotation import canonicalise
from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, rows_digest, source, with_answer
from selftrain.data.hub import hub_rows, splits_of
from selftrain.data.reading import Row, open_path, read_rows
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.similarity import normalise_question
from selftrain.stagefolder import file_digest

HUB_NAME = "openai/gsm8k"
MARK = "####"
PAPER_SPLITS = {"paper-train": False, "paper-validation": True}  # whether it is the part held out


@source("gsm8k", file_splits=PAPER_SPLITS)
def load_gsm8k(spec: DataSpec, offline: bool) -> LoadedSet:
    """Every row, or the paper's share of them; one without a number after `####` is an error."""
    if spec.path is None:
        split = "train" if spec.split in PAPER_SPLITS else spec.split
        rows = hub_rows(HUB_NAME, splits_of(split, ["train"]), offline=offline, config="main")
        problems, skipped = _share([_problem(row, row.key) for row in rows], spec.split)
        return LoadedSet(problems, skipped, [f"hub data set {HUB_NAME}"], rows_digest(problems))
    path = open_path(spec.path, "a GSM8K file of rows {question, answer}")
    problems, skipped = _share([_problem(row, f"{path.stem}-{row.key}") for row in read_rows(path)], spec.split)
    return LoadedSet(problems, skipped, [], file_digest(path))


def _share(problems: list[Problem], split: str | None) -> tuple[list[Problem], dict[str, int]]:
    """All of them, or one side of the paper's split; where that side is empty, how many the other has."""
    if split not in PAPER_SPLITS:
        return problems, {}
    held_out, wanted = _held_out(), PAPER_SPLITS[split]
    found = [problem for problem in problems if (question_key(problem.question) in held_out) == wanted]
    return found, {} if found else {f"not in the split {split}": len(problems)}


def question_key(question: str) -> str:
    """What a question is known by in gsm8k_validation.txt."""
    return hashlib.sha256(normalise_question(question).encode()).hexdigest()[:12]


@functools.cache
def _held_out() -> frozenset[str]:
    return frozenset(resources.files("selftrain.data").joinpath("gsm8k_validation.txt").read_text("ascii").split())


def _problem(row: Row, key: str) -> Problem:
    steps, mark, last = row.text("answer").rpartition(MARK)
    answer = number_text(last) if mark else None
    if answer is None:
        got = f"{MARK} {last.strip()[:40]!r}" if mark else f"no {MARK}"
        raise DataError(f"{row.where}: expected an answer that ends in '{MARK} NUMBER', got {got}.")
    rationale = with_answer(canonicalise(steps, "angle"), answer) if steps.strip() else None
    return Problem(f"gsm8k/{key}", row.text("question"), answer, rationale)
