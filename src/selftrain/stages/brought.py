"""Samples made elsewhere (`data.samples`): matched to questions, tokenised once, judged as the model's own are.

A row has a `text`, and the `id` (or `problem_id`) or the `question` that it answers; what `selftrain sample` wrote will
do. `k` is optional. A text gets annotations as gold rationales do: where it has none, and an equation is plain and
right. Its origin is "samples#K", and the digest of the file stands for that of a model. Rows of other questions are
counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from selftrain.calculator.annotation import annotate_equations, canonicalise, find, to_angle
from selftrain.data.reading import Row, read_rows
from selftrain.errors import DataError, listed
from selftrain.judged import BROUGHT, COMPLETIONS, is_right
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.records import Completion, Problem, write_jsonl
from selftrain.rundir import Figures
from selftrain.similarity import normalise_question
from selftrain.stagefolder import file_digest
from selftrain.verify import judge

EXPECTED_FILE = "a file of samples (data.samples)"
IDS = ("id", "problem_id")
IDS_SHOWN = 3
K_CHARS = 9  # of the number of a row, in a CSV
MANY_UNPARSED = 0.5  # of the matched rows


def run_brought(folder: Path, file: Path, questions: Sequence[Problem], *, codec: Codec, progress: Progress) -> Figures:
    """Write completions.jsonl, by question; the figures say how many rows matched and how they were judged.

    Raises:
        DataError: a row without text, id and question, or with another row's k; or no row that matches a question.
    """
    progress.begin(BROUGHT)
    rows, digest = read_rows(file), file_digest(file)
    matched = _matched(rows, questions)
    if not any(matched.values()):
        raise DataError(
            _none_match(file, rows, questions), "Give each row the id or the text of a question of the run."
        )
    completions = [
        completion
        for problem in questions
        for completion in judge(problem, list(_completions(problem, matched[problem.id], codec, digest)))
    ]
    write_jsonl(folder / COMPLETIONS, completions)
    unparsed = sum(c.strict is None or c.strict.outcome == "unparsed" for c in completions)
    figures = {
        "file": file.name,
        "sha256": digest,
        "rows": len(rows),
        "matched": len(completions),
        "unmatched": len(rows) - len(completions),
        "questions": sum(map(bool, matched.values())),
        "right": sum(map(is_right, completions)),
        "unparsed": unparsed,
        "warnings": [],
    }
    if unparsed > MANY_UNPARSED * len(completions):
        figures["warnings"] = [
            f"{unparsed} of {len(completions)} samples from {file.name} do not end in a line '#### ANSWER' and count "
            "as wrong."
        ]
    progress.end(f"{figures['matched']} of {len(rows)} rows match a question, {figures['right']} are right")
    return figures


def _matched(rows: Sequence[Row], questions: Sequence[Problem]) -> dict[str, list[Row]]:
    """problem id -> its rows, in the order of the file."""
    by_question = {normalise_question(problem.question): problem.id for problem in questions}
    found: dict[str, list[Row]] = {problem.id: [] for problem in questions}
    for row in rows:
        identity, question = _id_of(row), row.values.get("question")
        if identity is None and not isinstance(question, str):
            got = listed([name[:80] for name in row.values], 20) or "nothing"
            raise DataError(f"{row.where}: expected an 'id' or a 'question', got {got}.")
        if identity not in found and isinstance(question, str):
            identity = by_question.get(normalise_question(question))
        if identity is not None and identity in found:
            found[identity].append(row)
    return found


def _id_of(row: Row) -> str | None:
    """The row's id as text; None where it has none."""
    values = (row.values.get(name) for name in IDS)
    return next((str(value) for value in values if isinstance(value, str | int) and value != ""), None)


def _completions(problem: Problem, rows: Sequence[Row], codec: Codec, digest: str) -> Iterator[Completion]:
    lines: dict[int, str] = {}
    for number, row in enumerate(rows):
        k = row.values.get("k", number)
        k = int(k) if isinstance(k, str) and len(k) <= K_CHARS and k.isdecimal() else k  # a CSV holds texts
        if not isinstance(k, int) or isinstance(k, bool) or k < 0 or k in lines:
            before = f" (as {lines[k]})" if k in lines else ""
            raise DataError(
                f"{row.where}: expected a k that no other row of {problem.id} has, got {k!r:.40}{before}.",
                "Number each question's rows 0, 1, 2, ..., or leave k out of all rows.",
            )
        lines[k] = row.where
        ids = codec.target(annotated(row.text("text")))
        yield Completion(problem.id, k, ids, codec.text(ids), "eos", model=digest, stage=BROUGHT)


def annotated(text: str) -> str:
    """A text in the records' angle writing, with annotations where it came without any.

    >>> annotated("6 x 7 = 42 pens\\n#### 42"), annotated("6*7 = [ 6 * 7 = 42 ] 42")
    ('6 x 7 = <<6*7=42>>42 pens\\n#### 42', '6*7 = <<6*7=42>>42')
    """
    if any(annotation.value is not None for annotation in find(text, "bracket")):
        text = to_angle(text)
    return canonicalise(text if find(text, "angle") else annotate_equations(text), "angle")


def _none_match(file: Path, rows: Sequence[Row], questions: Sequence[Problem]) -> str:
    theirs = [identity for row in rows if (identity := _id_of(row)) is not None]
    return (
        f"{file}: none of its {len(rows)} rows answers a question of the run; ids there: {_few(theirs)}; ids of the "
        f"run: {_few([problem.id for problem in questions])}."
    )


def _few(names: Sequence[str]) -> str:
    distinct = [name[:80] for name in dict.fromkeys(names)]
    return ", ".join(distinct[:IDS_SHOWN]) + (", ..." if len(distinct) > IDS_SHOWN else "") if distinct else "none"
