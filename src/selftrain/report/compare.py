"""Two runs against each other, from their folders alone: the same test problems, answered by the models of both.

    found = compare_runs(RunFiles(Path("runs/plain")), RunFiles(Path("runs/beta")))
    found["headline"]["sentence"]    # "On svamp, B's delivered model is better than A's delivered model: ..."

A is the first run, B the second, and a difference is B's accuracy minus A's. Compared are the delivered models (of a
run that is under way its newest one) and the warm-up models, on problems that both runs hold under the same id with the
same question, joined by id. Intervals and tests are `metrics.paired_difference`'s, McNemar's exact test stands beside.
Two runs differ by all their settings at once: `settings` lists them, and says nothing of which one did it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selftrain.errors import RunError
from selftrain.identity import identity
from selftrain.judged import right_by_problem
from selftrain.metrics import mcnemar_exact, paired_difference, verdict_sentence
from selftrain.records import Completion, Problem
from selftrain.report.account import cost_results, environment, run_facts
from selftrain.report.accuracy import Model, accuracy_of, delivered_model, models_of, verdict_of
from selftrain.report.files import RunFiles

Json = Mapping[str, Any]
FORMAT = 1
LETTERS = ("A", "B")
Side = tuple[str, dict[str, bool]]  # a model's name in sentences, its verdicts by problem


@dataclasses.dataclass(frozen=True)
class CommonSet:
    """A test set of each run, and the problems that they share."""

    names: tuple[str, str]
    problems: list[Problem]
    num_problems: tuple[int, int]
    other_question: int  # the same id, another question

    @property
    def title(self) -> str:
        """One name where both runs use the same."""
        return self.names[0] if self.names[0] == self.names[1] else f"{self.names[0]} / {self.names[1]}"

    @property
    def groups(self) -> dict[str, str] | None:
        """problem id -> group, where there is more than one."""
        groups = {problem.id: problem.group for problem in self.problems if problem.group is not None}
        return groups if len(set(groups.values())) > 1 else None


def compare_runs(first: RunFiles, second: RunFiles) -> dict[str, Any]:
    """The comparison, JSON-ready.

    Raises:
        RunError: the runs share no test problem, or none that models of both have answered; says why.
    """
    runs = (first, second)
    common = common_sets(first, second)
    confidence = max(run.config.evaluation.confidence for run in runs)
    found = [_set_results(runs, one, confidence) for one in common]
    sets = [one for one in found if one["comparisons"] and one["comparisons"][0]["role"] == "main"]
    if not sets:
        raise RunError(
            f"{first.folder} and {second.folder} share test problems, and no trained model of both has answered them.",
            "Go on with the run that is not finished (`selftrain run ...`), then compare again.",
        )
    main = sets[0]["comparisons"][0]
    return {
        "format": FORMAT,
        "runs": [_run(letter, run) for letter, run in zip(LETTERS, runs, strict=True)],
        "headline": {
            "test_set": sets[0]["name"], "verdict": main["verdict"],
            "sentence": f"On {sets[0]['name']}, {_inside(main['sentence'])}",
        },
        "sets": sets,
        "settings": setting_differences(first, second),
    }  # fmt: skip


def _inside(sentence: str) -> str:
    """A sentence after a comma; "A's" keeps its letter."""
    return sentence.replace("A difference", "a difference", 1) if sentence.startswith("A difference") else sentence


def common_sets(first: RunFiles, second: RunFiles) -> list[CommonSet]:
    """Each test set of the first run with the set of the second that shares problems with it, the namesake first.

    Raises:
        RunError: no problem is in a test set of both; says what each run has.
    """
    found, clashes = [], 0
    for name in first.test_sets:
        ours = first.problems(f"test-{name}")
        for other in sorted(second.test_sets, key=lambda candidate: candidate != name):
            theirs = {problem.id: problem.question for problem in second.problems(f"test-{other}")}
            shared = [problem for problem in ours if problem.id in theirs]
            same = [problem for problem in shared if problem.question == theirs[problem.id]]
            clashes += len(shared) - len(same)
            if same:
                sizes = len(ours), len(theirs)
                found.append(CommonSet((name, other), same, sizes, len(shared) - len(same)))
                break
    if not found:
        why = f" {clashes} ids are the same, and their questions differ." if clashes else ""
        raise RunError(
            f"{first.folder} and {second.folder} have no test problem in common: A has {_sets(first)}; "
            f"B has {_sets(second)}.{why}",
            "Evaluate both models on one set instead: selftrain evaluate RUN/model --data problems.jsonl",
        )
    return found


def _sets(run: RunFiles) -> str:
    """Its test sets in words."""
    sizes = {name: len(run.problems(f"test-{name}")) for name in run.test_sets}
    named = [f"{name} ({size:,} problems)" if size else f"{name} (not made yet)" for name, size in sizes.items()]
    return ", ".join(named) or "no test set"


def compared_models(run: RunFiles, test_set: str) -> Iterator[tuple[str, Model]]:
    """What is compared of a run: the delivered model, else its newest one that is evaluated, and the warm-up model."""
    models = models_of(run.config)
    there = [model for model in models if run.evaluation(model.stage(test_set))]
    delivered = delivered_model(run, models)
    trained = [model for model in there if model.kind in ("warm-up", "iteration")]
    if delivered in there and delivered is not None:
        yield "delivered model", delivered
    elif trained:
        yield f"newest model ({trained[-1].label})", trained[-1]
    yield from (("warm-up model", model) for model in there if model.kind == "warm-up")


def _set_results(runs: tuple[RunFiles, RunFiles], common: CommonSet, confidence: float) -> dict[str, Any]:
    """One set: every compared model's accuracy on the common problems, and the pairs that can be compared."""
    rows: list[dict[str, Any]] = []
    sides: list[dict[str, Side]] = []
    for letter, run, name in zip(LETTERS, runs, common.names, strict=True):
        side: dict[str, Side] = {}
        for what, model in compared_models(run, name):
            verdicts = _verdicts(run.evaluation(model.stage(name)), model, common)
            role = "warm-up" if what == "warm-up model" else "main"
            side[role] = (f"{letter}'s {what}", verdicts)
            rows.append({
                "run": letter, "role": role, "label": f"{letter}: {what}", "stage": model.stage(name),
                "kind": "warm-up" if role == "warm-up" else "delivered" if letter == "B" else "iteration",
                "accuracy": accuracy_of(verdicts, common.groups, confidence) if verdicts else None,
            })  # fmt: skip
        sides.append(side)
    pairs = [(role, sides[0][role], sides[1][role]) for role in ("main", "warm-up") if all(role in s for s in sides)]
    return {
        "name": common.title,
        "names": list(common.names),
        "rows": len(common.problems),
        "in_all": list(common.num_problems),
        "other_question": common.other_question,
        "groups": len(set((common.groups or {}).values())),
        "confidence": confidence,
        "models": [row for row in rows if row["accuracy"]],
        "comparisons": [
            _comparison(role, ours, theirs, common, confidence)
            for role, ours, theirs in pairs
            if ours[1].keys() & theirs[1].keys()
        ],
    }


def _verdicts(completions: Sequence[Completion] | None, model: Model, common: CommonSet) -> dict[str, bool]:
    wanted = {problem.id for problem in common.problems}
    verdicts = right_by_problem(completions or [], model.extraction)
    return {name: right for name, right in verdicts.items() if name in wanted}


def _comparison(role: str, ours: Side, theirs: Side, common: CommonSet, confidence: float) -> dict[str, Any]:
    """B's model against A's."""
    test = paired_difference(theirs[1], ours[1], common.groups, confidence)
    return {
        "role": role, "first": ours[0], "second": theirs[0],
        "difference": test.difference, "low": test.low, "high": test.high, "p_value": test.p_value,
        "mcnemar_p_value": mcnemar_exact(test.only_a, test.only_b), "num": test.num, "num_groups": test.num_groups,
        "only_first": test.only_b, "only_second": test.only_a, "confidence": confidence,
        "verdict": verdict_of(test), "sentence": verdict_sentence(test, theirs[0], ours[0]),
    }  # fmt: skip


def setting_differences(first: RunFiles, second: RunFiles) -> list[dict[str, str]]:
    """Settings that say what a run is (no run control) and differ, and what else was not the same."""
    made = [{**identity(run.config), **_made_of(run)} for run in (first, second)]
    keys = [key for key in {**made[0], **made[1]} if made[0].get(key) != made[1].get(key)]
    return [
        {"key": key, **{at: _text(there.get(key)) for at, there in zip(LETTERS, made, strict=True)}} for key in keys
    ]


def _made_of(run: RunFiles) -> dict[str, Any]:
    """What else may make two runs differ: weights, versions, machine, precision."""
    facts, around = run_facts(run), environment(run)
    return {
        "(weights of the base model)": facts["weights"],
        "(selftrain)": ", ".join(around["selftrain"]),
        "(precision)": ", ".join(facts["precision"]),
        "(processor)": around["cpu"],
        "(packages)": ", ".join(f"{name} {version}" for name, version in around["packages"].items()),
    }


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _run(letter: str, run: RunFiles) -> dict[str, Any]:
    """A run in short."""
    facts, cost = run_facts(run), cost_results(run)
    kept = ("name", "folder", "method", "model", "seed", "finished", "weights")
    return {
        "letter": letter,
        "title": run.folder.resolve().name,
        **{name: facts[name] for name in kept},
        "delivered": facts["delivered"] and facts["delivered"]["digest"],
        "seconds": cost["total"]["seconds"],
        "flops": cost["total"]["flops"],
    }
