"""`selftrain data check`: does a set's verifier accept the set's own gold answers?

    checked = check("my.jsonl", verify="choice")
    print(checked.text(), checked.ok)

The set is loaded as a run loads it. Each gold answer (as the line `#### answer`) and each gold rationale is judged by
the verifier that would judge the model. A rationale whose steps never come to its answer is shown beside them; a set
may have such rows. Nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from selftrain.data import load
from selftrain.data.gold import GoldFailure, answer_line, gold_failure, steps, unreached
from selftrain.errors import DataError
from selftrain.evaluate import mapped_fields, parse_spec
from selftrain.records import Problem
from selftrain.report.text import clean
from selftrain.similarity import normalise_question
from selftrain.verify import expected_answers, open_verifier
from selftrain.verify.formats import count_formats, formats_text

FAILURES_SHOWN = 20
VALUE_CHARS = 60


@dataclasses.dataclass(frozen=True)
class Checked:
    """What was found: rows looked at, formats of all the set's answers, and what the verifier does not accept."""

    name: str
    verify: str
    num_rows: int
    num_rationales: int
    formats: dict[str, int]
    skipped: dict[str, int]
    num_repeated: int
    answers: tuple[GoldFailure, ...]
    rationales: tuple[GoldFailure, ...]
    unreached: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Every gold answer and rationale passes."""
        return not self.answers and not self.rationales

    def text(self) -> str:
        """The account, for the terminal."""
        lines = [
            f"{self.name}: {self.num_rows} rows, verify: {self.verify}",
            f"answers of the whole set are written as: {formats_text(self.formats)}",
            f"gold answers that pass: {self.num_rows - len(self.answers)} of {self.num_rows}",
            f"gold rationales that pass: {self.num_rationales - len(self.rationales)} of {self.num_rationales}",
            *(f"skipped: {count} rows, {reason}" for reason, count in self.skipped.items()),
            *([f"rows with the question of an earlier row: {self.num_repeated}"] if self.num_repeated else []),
            *_listed("answer", self.answers),
            *_listed("rationale", self.rationales),
            *self._unreached(),
        ]
        if not self.ok:
            lines.append(f"{expected_answers(self.verify)}, and each rationale must end in its row's answer.")
        return "\n".join(clean(line) for line in lines)

    def _unreached(self) -> list[str]:
        if not self.unreached:
            return []
        return [
            f"rationales that never come to their row's answer, worth a look: {len(self.unreached)}",
            *_cut(
                [
                    f"  {row.id}: {steps(row.rationale or '')[-VALUE_CHARS:]!r}, answer {_short(row.answer)}"
                    for row in self.unreached
                ],
                "rationale",
            ),
        ]


def check(data: str, *, verify: str = "numeric", rows: int | None = None, fields: Sequence[str] = ()) -> Checked:
    """Judge a set's gold answers and rationales.

    Args:
        data: a set, as `selftrain evaluate` names them: "asdiv", "svamp=SVAMP.json", "my.jsonl".
        verify: the verifier, as `DataSpec.verify`.
        rows: only the first so many.
        fields: columns of a file, each as OURS=THEIRS ("question=prompt").

    Raises:
        ConfigError: a verifier that cannot be had.
        DataError: a set that cannot be loaded, rows without answers, or a verifier of the user's that raises.
    """
    if rows is not None and rows < 1:
        raise DataError(f"--rows: expected at least 1, got {rows}.")
    open_verifier(verify)
    spec = parse_spec(data, verify).model_copy(update={"rationales": True, "fields": mapped_fields(fields)})
    loaded = load(spec)
    problems = loaded.problems[:rows]
    explained = [problem for problem in problems if problem.rationale is not None]
    return Checked(
        name=data,
        verify=verify,
        num_rows=len(problems),
        num_rationales=len(explained),
        formats=loaded.formats or count_formats(row.rationale or row.answer or "" for row in loaded.problems),
        skipped=loaded.skipped,
        num_repeated=len(problems) - len({normalise_question(problem.question) for problem in problems}),
        answers=_failures([(problem, answer_line(problem)) for problem in problems]),
        rationales=_failures([(problem, problem.rationale or "") for problem in explained]),
        unreached=tuple(unreached(explained)),
    )


def _failures(texts: Sequence[tuple[Problem, str]]) -> tuple[GoldFailure, ...]:
    return tuple(failure for problem, text in texts if (failure := gold_failure(problem, text)) is not None)


def _listed(what: str, failures: Sequence[GoldFailure]) -> list[str]:
    lines = [
        f"  {failure.problem_id}: {what}: expected {_short(failure.expected)}, "
        f"got {_short(failure.found)} ({failure.why})"
        for failure in failures
    ]
    return _cut(lines, what)


def _cut(lines: list[str], what: str) -> list[str]:
    """The first of the lines, and how many more there are."""
    more = len(lines) - FAILURES_SHOWN
    return [*lines[:FAILURES_SHOWN], f"  and {more} more {what}s"] if more > 0 else lines


def _short(value: str | None) -> str:
    shown = repr(value)
    return shown if len(shown) <= VALUE_CHARS else f"{shown[:VALUE_CHARS]}..."
