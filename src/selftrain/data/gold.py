"""The proof that gold answers pass: each is judged by the very verifier that will judge the model's.

    prove_gold(problems)           # [] or ["my/7: gold answer '7', found '8' (expected 7)", ...]

A row whose own answer would be called wrong makes every right completion of it a loser, so runs and evaluations
refuse such rows, and `selftrain data check` shows them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from selftrain.errors import listed
from selftrain.records import Problem
from selftrain.verify import expected_answers, verdicts
from selftrain.verify.formats import count_formats, formats_text
from selftrain.verify.numeric import MARK, states

UNREACHED_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class GoldFailure:
    """A gold answer or rationale that its own verifier does not accept. `found` is None where nothing was found."""

    problem_id: str
    expected: str | None
    found: str | None
    why: str

    def __str__(self) -> str:
        return f"{self.problem_id}: gold answer {self.expected!r}, found {self.found!r} ({self.why})"


def gold_failure(problem: Problem, text: str) -> GoldFailure | None:
    """What is wrong with a gold text of a problem, by the verifier that judges the model's; None where it is right."""
    verdict = verdicts(problem, text)[0]
    if verdict.outcome == "right":
        return None
    return GoldFailure(problem.id, problem.answer, verdict.extracted, verdict.reason or verdict.outcome)


def answer_line(problem: Problem) -> str:
    """The bare line that holds a problem's gold answer."""
    return f"#### {problem.answer}"


def steps(rationale: str) -> str:
    """A rationale without the line that states the answer: what `data.base.with_answer` was given."""
    return rationale.rpartition(MARK)[0].rstrip()


def prove_gold(problems: Iterable[Problem]) -> list[str]:
    """What is wrong with gold answers and rationales, by the verifier that judges the model's: "ID: reason".

    Each rationale (or, without one, the bare line `#### answer`) must be judged right for its problem.
    """
    failures = []
    for problem in problems:
        text = problem.rationale if problem.rationale is not None else answer_line(problem)
        failure = gold_failure(problem, text)
        if failure is not None:
            failures.append(str(failure))
    return failures


def unreached(problems: Iterable[Problem]) -> list[Problem]:
    """Rows whose rationale never writes its answer before the line that states it ("18 + 17 = 35", answer 36).

    Of numbers only. No proof of a mistake: a rationale may end in words ("the 65th"). Of GSM8K's 7,473 it names 19.
    """
    return [
        problem
        for problem in problems
        if problem.verify == "numeric" and problem.rationale is not None and problem.answer is not None
        and not states(steps(problem.rationale), problem.answer)
    ]  # fmt: skip


def unreached_warnings(problems: Sequence[Problem]) -> list[str]:
    """What to say of such rows among those that are learned from, if there are any."""
    found = unreached(problems)
    if not found:
        return []
    explained = sum(problem.rationale is not None for problem in problems)
    shown = listed([problem.id for problem in found], UNREACHED_SHOWN)
    return [
        f"{len(found)} of {explained} rationales never come to their row's answer ({shown}); a model learns from them "
        "to work out one number and claim another; selftrain data check shows them"
    ]


def formats_of(problems: Iterable[Problem]) -> str:
    """How the answers are written, counted, where there is more than one way: "; they are 5 number, 3 letter"."""
    counts = count_formats(problem.answer for problem in problems if problem.answer)
    return f"; they are {formats_text(counts)}" if len(counts) > 1 else ""


def gold_hint(problems: Sequence[Problem]) -> str:
    """What to do about gold answers that their verifier does not accept."""
    expected = " ".join(f"{expected_answers(name)} (verify: {name})." for name in sorted({p.verify for p in problems}))
    return f"{expected} Each rationale must end in its row's answer. `selftrain data check` shows every row that fails."
