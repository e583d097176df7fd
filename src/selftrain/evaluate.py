"""`selftrain evaluate`: a model's accuracy on sets of problems, outside a run.

    print(evaluate_sets("runs/quickstart/model", ["svamp=SVAMP.json", "my.jsonl"], take=200))

A set is a source of `selftrain.data` ("svamp"), a source with its file ("svamp=SVAMP.json") or a file of rows
("my.jsonl"). The model is asked as it was trained to be, greedily; strict and flexible extraction stand side by side.
All sets are read and checked before the model is loaded, which is when torch is imported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.claim import RUN
from selftrain.config import DataSpec
from selftrain.config.data import SUFFIXES
from selftrain.data import SOURCES, load, prove_gold
from selftrain.data.gold import formats_of, gold_hint
from selftrain.errors import DataError
from selftrain.judged import FLEXIBLE, STRICT, right_by_problem
from selftrain.outfile import check_new
from selftrain.progress import Progress, Silent
from selftrain.records import Completion, Problem, read_jsonl, write_jsonl
from selftrain.report.accuracy import accuracy_of, counts
from selftrain.report.text import clean, table
from selftrain.report.wording import interval, percent
from selftrain.similarity import normalise_question

if TYPE_CHECKING:
    from selftrain.use import Tutor

HEADER = (
    "", "rows", "strict %", "95 % interval", "flexible %", "95 % interval", "calls", "uncalculated", "cut", "too long",
)  # fmt: skip


def evaluate_sets(
    model: str,
    data: Sequence[str],
    *,
    take: int | None = None,
    verify: str = "numeric",
    fields: Sequence[str] = (),
    calculator: bool = True,
    out: Path | None = None,
    progress: Progress | None = None,
) -> str:
    """Evaluate a model on each set; the table as text, and a line for each set that the model was trained on.

    Args:
        model: a delivered model's folder, any local folder, a hub name, or `smollm2-135m`.
        data: sets, as the module says.
        take: only the first so many problems of each.
        verify: what judges the answers of all sets, as `DataSpec.verify`.
        fields: columns of all files, each as OURS=THEIRS ("question=prompt").
        calculator: compute annotations while decoding.
        out: a new file for the judged completions of all sets, as JSONL; `stage` names the set.
        progress: hears of each set.

    Raises:
        DataError: a set that cannot be used, or rows without a usable answer.
        ModelError: a model that cannot be found or loaded.
        RunError: `out` is there already, or cannot be written.
    """
    if out is not None:
        check_new(out)
    sets = load_named(data, take, verify, fields)
    seen = _seen_in_training(Path(model), sets)
    from selftrain.use import open_model

    progress = progress or Silent()
    tutor = open_model(model, say=progress.say)
    rows: list[list[str]] = []
    written: list[Completion] = []
    for name, problems in sets.items():
        completions = _evaluate(tutor, name, problems, calculator, progress)
        rows.append(_row(name, problems, completions))
        written += [dataclasses.replace(completion, stage=f"evaluate/{name}") for completion in completions]
    if out is not None:
        write_jsonl(out, written)
    return "\n".join(clean(line) for line in [*table(HEADER, rows), *seen])


def load_named(
    data: Sequence[str], take: int | None = None, verify: str = "numeric", fields: Sequence[str] = ()
) -> dict[str, list[Problem]]:
    """name -> problems of each set, checked; a name that comes twice gets a number.

    Raises:
        DataError: see `evaluate_sets`.
    """

    columns = mapped_fields(fields)

    def read(text: str) -> tuple[str, list[Problem]]:
        spec = parse_spec(text, verify).model_copy(update={"fields": columns})
        problems = load(spec).problems[:take]
        _check_answers(text, problems)
        return spec.label, problems

    return named_sets(data, take, "evaluate", read)


def named_sets(
    data: Sequence[str], take: int | None, verb: str, read: Callable[[str], tuple[str, list[Problem]]]
) -> dict[str, list[Problem]]:
    """name -> problems of each set, as `read` gives label and problems; a label that comes twice gets a number.

    Raises:
        DataError: no set, or none of its problems asked for; and what `read` raises.
    """
    if take is not None and take < 1:
        raise DataError(f"--take: expected at least 1 problem, got {take}.")
    if not data:
        raise DataError(f"Expected a set to {verb} on, got none.", "Name one, such as --data svamp=SVAMP.json.")
    sets: dict[str, list[Problem]] = {}
    for text in data:
        label, problems = read(text)
        name, number = label, 2
        while name in sets:
            name, number = f"{label}-{number}", number + 1
        sets[name] = problems
    return sets


def parse_spec(text: str, verify: str = "numeric") -> DataSpec:
    """What SOURCE, SOURCE=PATH or a file's path stands for.

    >>> parse_spec("svamp=a/SVAMP.json").source, parse_spec("my.jsonl").source, parse_spec("my.jsonl").label
    ('svamp', 'file', 'my')
    """
    name, equals, path = text.partition("=")
    if equals and name.partition(":")[0] in SOURCES:
        return DataSpec(source=name, path=path, verify=verify, rationales=False)
    if text.partition(":")[0] not in SOURCES and (text.endswith(SUFFIXES) or "/" in text):
        return DataSpec(source="file", name=set_name(text), path=text, verify=verify, rationales=False)
    return DataSpec(source=text, verify=verify, rationales=False)


def mapped_fields(fields: Sequence[str]) -> dict[str, str]:
    """Columns of a file from texts such as "question=prompt".

    Raises:
        DataError: a text of another form.
    """
    pairs = [field.partition("=") for field in fields]
    for field, (ours, equals, theirs) in zip(fields, pairs, strict=True):
        if not (ours and equals and theirs):
            raise DataError(f"--field: expected OURS=THEIRS, got {field!r}.", "Such as --field question=prompt.")
    return {ours: theirs for ours, _, theirs in pairs}


def set_name(path: str) -> str:
    """A set's name from its file's: letters, digits, '.', '_' and '-'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-._") or "file"


def _check_answers(text: str, problems: Sequence[Problem]) -> None:
    failures = prove_gold(problems)
    if failures:
        raise DataError(
            f"{text}: {len(failures)} of {len(problems)} answers cannot be judged: {'; '.join(failures[:3])}"
            f"{formats_of(problems)}.",
            gold_hint(problems),
        )


def _evaluate(
    tutor: Tutor, name: str, problems: Sequence[Problem], calculator: bool, progress: Progress
) -> list[Completion]:
    """Judged completions of the problems whose prompt is within the model's limit."""
    limit = tutor.codec.config.max_prompt_tokens
    short = [problem for problem in problems if len(tutor.codec.prompt(problem.question)) <= limit]
    if not short:
        raise DataError(f"{name}: all {len(problems)} prompts are longer than {limit} tokens.")
    progress.begin(name, len(short), "problems")
    completions = tutor.evaluate(short, calculator=calculator, progress=progress)
    right = sum(right_by_problem(completions).values())
    progress.end(f"{right} of {len(completions)} right")
    return completions


def _seen_in_training(model: Path, sets: Mapping[str, Sequence[Problem]]) -> list[str]:
    """A line for each set with questions that the model's run trained on, where it lies in its run's folder."""
    run = model.parent
    if not (run / RUN).is_file():
        return []
    sampled = any(run.glob("*-iteration"))  # plain SFT trains on the labelled questions alone
    files = [run / "data" / name for name in ("train.jsonl", *(["unlabelled.jsonl"] if sampled else []))]
    trained = {
        normalise_question(problem.question)
        for file in files
        if file.is_file()
        for problem in read_jsonl(file, Problem)
    }
    counts = {
        name: sum(normalise_question(problem.question) in trained for problem in problems)
        for name, problems in sets.items()
    }
    return [
        f"warning: {count} of {len(sets[name])} questions of {name} were trained on: this is no test on new ones"
        for name, count in counts.items()
        if count
    ]


def _row(name: str, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[str]:
    groups = {problem.id: problem.group for problem in problems if problem.group is not None}
    shared = groups if len(set(groups.values())) > 1 else None
    written = counts(completions)
    cells = [name, str(len(completions))]
    for extraction in (STRICT, FLEXIBLE):
        accuracy = accuracy_of(right_by_problem(completions, extraction), shared)
        cells += [percent(accuracy), interval(accuracy)]
    cells.append(f"{written['calls_per_completion']:.2f}")
    left_out = len(problems) - len(completions)
    return [*cells, str(written["uncalculated"]), str(written["cut_at_limit"]), str(left_out)]
