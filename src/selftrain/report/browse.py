"""What the sample browser of a page holds: problems with every model's answers, JSON-ready, and never too much of it.

    browser = run_browser(run, results["test_sets"])      # one set a test set, one of sampled questions
    browser["sets"][0]["problems"], ["rows"], ["models"], ["answers"]

`rows` are (place of the problem, k), `answers` has a list a row with one answer a model, null where there is none.
An answer is {"text", "found", "right", "calls", "cut"}, the last three left out where false or 0; `text` is pieces that
take turns: plain, written by the calculator, plain, ... Right is by the extraction of the model's headline figure.

Sets are bounded in bytes. What fits is decided by a hash of the problems' ids, whole problems, so that nobody picks and
no answer's length does; `note` says how many there are. Stages that are not finished are left out.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selftrain.judged import COMPLETIONS, STRICT, is_right
from selftrain.records import Completion, Problem, iter_jsonl
from selftrain.report.files import RunFiles
from selftrain.report.learning import iterations_of
from selftrain.report.samples import MAX_CHARS, marked
from selftrain.report.wording import visible
from selftrain.seeding import derive_seed

Json = Mapping[str, Any]
Key = tuple[str, int]  # problem id, k

TESTS_BYTES, SAMPLED_BYTES = 4_000_000, 1_000_000  # of JSON, in all: a page that a phone still opens
SAMPLED_QUESTIONS = 400  # read at most; what was sampled can be far more than fits


@dataclasses.dataclass(frozen=True)
class Source:
    """The answers of one model to one set."""

    label: str
    extraction: str
    answers: Mapping[Key, Completion]

    @classmethod
    def of(cls, label: str, extraction: str, completions: Iterable[Completion]) -> Source:
        """From completions in any order."""
        return cls(label, extraction, {(c.problem_id, c.k): c for c in completions})


def run_browser(run: RunFiles, test_sets: Sequence[Json]) -> Json | None:
    """The browser of one run's page; None where nothing is evaluated or sampled yet."""
    sets = []
    for test_set in test_sets:
        shown = [row for row in test_set["models"] if row["accuracy"]]
        sources = [Source.of(row["label"], row["extraction"], run.evaluation(row["stage"]) or []) for row in shown]
        if sources:
            name = test_set["name"]
            first, second = compared_places(shown)
            budget = TESTS_BYTES // len(test_sets)
            sets.append(answer_set(f"test set {name}", run.problems(f"test-{name}"), sources, first, second, budget))
    sampled = _sampled(run)
    return {"sets": [*sets, *([sampled] if sampled else [])]} if sets or sampled else None


def compared_places(rows: Sequence[Json]) -> tuple[int, int | None]:
    """Which models a browser begins with: the warm-up model (else the first), and the delivered or newest one."""
    first = next((place for place, row in enumerate(rows) if row["kind"] == "warm-up"), 0)
    trained = [place for place, row in enumerate(rows) if row["kind"] == "iteration"]
    second = next((place for place in trained if rows[place]["delivered"]), trained[-1] if trained else None)
    if second is None and len(rows) > 1:
        second = next(place for place in range(len(rows)) if place != first)
    return first, second


def _sampled(run: RunFiles) -> dict[str, Any] | None:
    """The questions that were sampled, draw by draw: the n-th before each DPO beside the n-th after it."""
    problems = [*run.problems("train"), *run.problems("unlabelled")]
    wanted = set(sorted((problem.id for problem in problems), key=_place)[:SAMPLED_QUESTIONS])
    chosen = [problem for problem in problems if problem.id in wanted]
    sources = []
    for arm, number, at in iterations_of(run):
        for kind, purpose in (("sample-for-pairs", "pairs"), ("sample-for-labels", "labels")):
            file = run.folder / at / kind / COMPLETIONS
            if run.is_done(f"{at}/{kind}") and file.is_file():
                drawn = [c for c in iter_jsonl(file, Completion) if c.problem_id in wanted]
                first = min((c.k for c in drawn), default=0)  # further draws have higher k
                found = (dataclasses.replace(c, k=c.k - first) for c in drawn)
                label = f"{arm + ', ' if arm else ''}iteration {number}, drawn for {purpose}"
                sources.append(Source.of(label, STRICT, found))
    if not sources:
        return None
    second = 1 if len(sources) > 1 else None
    found_set = answer_set("questions that were sampled", chosen, sources, 0, second, SAMPLED_BYTES, len(problems))
    return {**found_set, "sampled": True}


def answer_set(
    title: str, problems: Sequence[Problem], sources: Sequence[Source], first: int, second: int | None, budget: int,
    num_problems: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One set of the browser, as the module says.

    Args:
        first, second: the models to begin with, places among `sources`.
        budget: bytes of JSON that it may take, but for names.
        num_problems: how many there are, where `problems` are some of them already.
    """
    draws: dict[str, set[int]] = collections.defaultdict(set)
    for source in sources:
        for name, k in source.answers:
            draws[name].add(k)
    answered = [problem for problem in problems if problem.id in draws]
    entries: dict[str, list[list[Any]]] = {}  # problem -> a list a draw: answers by model
    for problem in sorted(answered, key=lambda problem: _place(problem.id)):
        found = [[_answer(source, (problem.id, k)) for source in sources] for k in sorted(draws[problem.id])]
        budget -= len(json.dumps([found, _problem(problem)]))
        if budget < 0:
            break
        entries[problem.id] = found
    kept = [problem for problem in answered if problem.id in entries]
    of = len(answered) if num_problems is None else num_problems
    return {
        "title": title,
        "note": _note(len(kept), of),
        "first": first,
        "second": second,
        "models": [{"label": visible(source.label)} for source in sources],
        "problems": [_problem(problem) for problem in kept],
        "rows": [[place, k] for place, problem in enumerate(kept) for k in sorted(draws[problem.id])],
        "answers": [row for problem in kept for row in entries[problem.id]],
    }


def _place(name: str) -> int:
    return derive_seed("samples to read", name)


def _note(kept: int, of: int) -> str:
    if kept == of:
        return f"All {of:,} problems are here."
    return f"{kept:,} of {of:,} problems are here, chosen by a hash of their ids, so that the page stays small."


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "id": visible(problem.id),
        "question": visible(problem.question[:MAX_CHARS]),
        "answer": None if problem.answer is None else visible(problem.answer),
    }


def _answer(source: Source, key: Key) -> dict[str, Any] | None:
    completion = source.answers.get(key)
    if completion is None:
        return None
    verdict = completion.strict if source.extraction == STRICT else completion.flexible
    found = None if verdict is None else verdict.extracted
    answer: dict[str, Any] = {"text": _turns(completion)}
    if found is not None:
        answer["found"] = visible(found)
    if is_right(completion, source.extraction):
        answer["right"] = 1
    if completion.calls:
        answer["calls"] = completion.calls
    if completion.stop == "length" or len(completion.text) > MAX_CHARS:
        answer["cut"] = 1
    return answer


def _turns(completion: Completion) -> list[str]:
    """The text in pieces: plain and written by the calculator by turns, plain first.

    >>> _turns(Completion("q", 0, (), "6*7=<<6*7=42>>42", "eos", forced=((4, 7),)))
    ['6*7=<<6*7=', '42>>', '42']
    """
    turns = [""]
    for text, forced in marked(completion):
        if forced != (len(turns) % 2 == 0):
            turns.append("")
        turns[-1] += visible(text)
    return turns
