"""The results file: one JSON, a record a (system, repetition), written whole each time, so a run can be cut anywhere.

    results = Results.open(path, setup)          # refuses a file of another setup
    if results.record("ours", 0, rows=128, code=digest) is None:
        results.put("ours", 0, summary(task, codec, found, job))

Records name no machine's folders and hold no text: only counts and times.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import ChildError
from benchmarks.work import Portable, Question, Task
from selftrain.calculator.annotation import find
from selftrain.calculator.expression import canonical
from selftrain.errors import RunError
from selftrain.prompts import Codec
from selftrain.records import Problem
from selftrain.stagefolder import read_json, write_json
from selftrain.verify.numeric import verify

FORMAT = 1
Json = dict[str, Any]


class Results:
    """What was measured so far."""

    def __init__(self, path: Path, content: Json) -> None:
        self.path, self.content = path, content

    @classmethod
    def open(cls, path: Path, setup: Mapping[str, Any]) -> Results:
        """A new file, or one of the same setup to go on with.

        Raises:
            RunError: the file holds results of another setup; the differing keys are named.
        """
        known = read_json(path)
        if known is None:
            if path.exists():
                raise RunError(f"{path} is not a results file.", "Give another --out.")
            known = {"format": FORMAT, "setup": dict(setup), "tasks": {}, "matrix_peak": {}, "batches": {}}
            return cls(path, {**known, "records": {}, "failures": {}})
        _refuse_other(path, known.get("setup", {}), setup)
        return cls(path, known)

    def add_task(self, task: Portable) -> None:
        """Record what a task consists of.

        Raises:
            RunError: the file's records are of another task of that name.
        """
        known = self.content["tasks"].get(task.name)
        if known is not None:
            _refuse_other(self.path, known, task.facts())
        self.content["tasks"][task.name] = task.facts()

    def record(self, system: str, repetition: int, rows: int | None, code: str | None) -> Json | None:
        """The record of a repetition, if it was made with these rows (None: it names none) and this code."""
        found: Json | None = self.content["records"].get(system, {}).get(str(repetition))
        if found is None or found.get("rows") != rows or found.get("code") != code:
            return None
        return found

    def drop_others(self, system: str, rows: int | None, code: str | None) -> int:
        """Forget a system's records of other rows or other code; how many those were."""
        known = self.content["records"].get(system, {})
        kept = {key: row for key, row in known.items() if row.get("rows") == rows and row.get("code") == code}
        if known:
            self.content["records"][system] = kept
        return len(known) - len(kept)

    def put(self, system: str, repetition: int, record: Json) -> None:
        """Add a record and write the file."""
        self.content["records"].setdefault(system, {})[str(repetition)] = record
        self.content["failures"].pop(system, None)
        self.save()

    def fail(self, system: str, reason: str) -> None:
        """Remember why a system was not measured."""
        self.content["failures"][system] = reason
        self.save()

    def save(self) -> None:
        """Write the file whole."""
        write_json(self.path, self.content)

    def rows_of(self, system: str) -> list[tuple[int, Json]]:
        """(repetition, record) of a system, in order."""
        return sorted((int(key), row) for key, row in self.content["records"].get(system, {}).items())


def _refuse_other(path: Path, known: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = sorted(key for key in {*known, *now} if known.get(key) != now.get(key))
    if keys:
        shown = ", ".join(f"{key} ({known.get(key)!r} there, {now.get(key)!r} now)" for key in keys)
        raise RunError(f"{path} holds results of something else: {shown}.", "Give another --out, or remove that file.")


def summary(
    task: Task, codec: Codec, questions: Sequence[Question], samples: int, rows: int, found: Mapping[str, Any]
) -> Json:
    """A repetition's record: speed, what the completions are like, what the system said of itself.

    Raises:
        ChildError: completions are missing, or not of the length that the task forces.
    """
    completions: list[list[int]] = found["token_ids"]
    if len(completions) != len(questions) * samples:
        raise ChildError(f"expected {len(questions) * samples} completions, got {len(completions)}")
    lengths = [len(ids) for ids in completions]
    if task.forced_length and set(lengths) != {task.max_new_tokens}:
        raise ChildError(f"expected {task.max_new_tokens} tokens each, got {min(lengths)} to {max(lengths)}")
    seconds = found["seconds"]
    said = {key: value for key, value in found.items() if key not in ("token_ids", "seconds")}
    return {
        "rows": rows,
        "seconds": round(seconds, 3),
        "completions": len(completions),
        "tokens": sum(lengths),
        "completions_per_s": round(len(completions) / seconds, 4),
        "tokens_per_s": round(sum(lengths) / seconds, 2),
        "mean_tokens": round(statistics.fmean(lengths), 3),
        "sd_tokens": round(statistics.pstdev(lengths), 3),
        "cut": sum(ids[-1] != codec.eos_id for ids in completions),
        **_judged(codec, questions, samples, completions),
        **said,
    }


def _judged(codec: Codec, questions: Sequence[Question], samples: int, completions: Sequence[Sequence[int]]) -> Json:
    """Right answers by our verifier, and annotations: how many could be computed, how many hold their value."""
    right = computable = computed = judged = 0
    for number, ids in enumerate(completions):
        question = questions[number // samples]
        if question.answer is None:
            continue
        text = codec.text(list(ids))
        judged += 1
        right += verify(Problem(question.id, "", question.answer), text).outcome == "right"
        for annotation in find(text, codec.style):
            if annotation.value is not None:
                computable += 1
                computed += annotation.result == canonical(annotation.value)
    return {"judged": judged, "right": right, "annotations": computable, "annotations_right": computed}
