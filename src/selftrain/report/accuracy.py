"""How well each model of a run answers, per test set: accuracies with intervals, paired tests, the headline.

Everything is counted from the stored completions. The base model's own figure uses the flexible extraction (it was
never shown our answer format), every other model's the strict one; both are given for all. Intervals and tests
are clustered by group (template) where a set has more than one. Models are compared on the problems that both answered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.config import RunConfig
from selftrain.judged import FLEXIBLE, STRICT, right_by_problem
from selftrain.metrics import PairedTest, accuracy_interval, paired_difference, verdict_sentence
from selftrain.records import Completion, Problem
from selftrain.report.files import RunFiles

NEIGHBOUR = 0.6  # word-set Jaccard to a training question from which a test row counts as having a neighbour
ARM_LABELS = {"st": "plain ST", "st-matched": "plain ST, equal samples", "sft-matched": "SFT on labelled, equal steps"}
WARM_UP_LABELS = {False: "warm-up (SFT on labelled)", True: "warm-up (your own model)"}
NAMES = {"base": "the base model", "warm-up": "the warm-up model"}  # in sentences


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """A model that is evaluated: where in the run folder, and what to call it."""

    key: str
    label: str
    kind: str  # base, warm-up, sampler, iteration or baseline
    at: str

    @property
    def extraction(self) -> str:
        """Which extraction its headline figure uses."""
        return FLEXIBLE if self.kind == "base" else STRICT

    def stage(self, test_set: str) -> str:
        """The stage that evaluates it on a set."""
        return f"{self.at}/evaluate/{test_set}"


def models_of(config: RunConfig) -> list[Model]:
    """Every model that a run of this configuration evaluates, in the order of the table."""
    models = [
        Model("base", "base model, zero-shot", "base", "0-base"),
        Model("warm-up", WARM_UP_LABELS[config.warmup_model is not None], "warm-up", "0-warmup"),
    ]
    numbers = range(1, config.schedule.iterations + 1)
    for number in numbers if config.method != "sft" else ():
        if config.method == "dpo-st":
            at = f"{number}-iteration/sampler"
            models.append(Model(f"sampler-{number}", f"DPO sampler, iteration {number}", "sampler", at))
        models.append(Model(f"iteration-{number}", f"iteration {number}", "iteration", f"{number}-iteration"))
    for arm in config.baselines:
        models += _baseline(arm, [0] if arm == "sft-matched" else list(numbers))
    return models


def _baseline(arm: str, numbers: Sequence[int]) -> list[Model]:
    """The models of a baseline arm; the last one's key is the arm's name."""
    models = []
    for number in numbers:
        is_last = number == numbers[-1]
        at = f"baseline-{arm}/{number}-iteration" if number else f"baseline-{arm}/{arm}"
        label = ARM_LABELS[arm] + ("" if len(numbers) == 1 else f", iteration {number}")
        models.append(Model(arm if is_last else f"{arm}-{number}", label, "baseline", at))
    return models


def delivered_model(run: RunFiles, models: Sequence[Model]) -> Model | None:
    """The model whose weights the run delivered."""
    at = str((run.delivered or {}).get("stage", "")).rpartition("/")[0]
    return next((model for model in models if model.at == at), None)


def test_set_results(run: RunFiles, name: str) -> dict[str, Any]:
    """Everything about one test set, JSON-ready."""
    models, problems = models_of(run.config), run.problems(f"test-{name}")
    delivered = delivered_model(run, models)
    groups = {problem.id: problem.group for problem in problems if problem.group is not None}
    table = _Table(run, name, groups)
    rows = [table.row(model, problems, is_delivered=model == delivered) for model in models]
    return {
        "name": name,
        "rows": len(problems),
        "confidence": run.config.evaluation.confidence,
        "groups": len(set(groups.values())),
        "with_neighbour": sum((problem.neighbour or 0.0) >= NEIGHBOUR for problem in problems),
        "neighbours_known": any(problem.neighbour is not None for problem in problems),
        "models": [row for row in rows if _is_shown(run, row, name)],
        "comparisons": table.comparisons(models, delivered),
        "without_calculator": table.without_calculator(models, delivered),
    }


def _is_shown(run: RunFiles, row: dict[str, Any], name: str) -> bool:
    """Whether a row belongs into the table: it is there, or an unfinished run will bring it."""
    if row["strict"] is not None:
        return True
    expected = name == run.test_sets[0] or row["kind"] not in ("base", "sampler")
    return expected and not run.is_finished


@dataclasses.dataclass(frozen=True, slots=True)
class _Table:
    """One test set's completions, counted."""

    run: RunFiles
    name: str
    groups: dict[str, str]

    @property
    def confidence(self) -> float:
        """Of every interval."""
        return self.run.config.evaluation.confidence

    def row(self, model: Model, problems: Sequence[Problem], *, is_delivered: bool) -> dict[str, Any]:
        """A model's line; its figures are None where it is not evaluated yet."""
        stage = model.stage(self.name)
        completions = self.run.evaluation(stage)
        row: dict[str, Any] = {
            "key": model.key, "label": model.label, "kind": model.kind, "stage": stage, "delivered": is_delivered,
            "extraction": model.extraction, "accuracy": None, STRICT: None, FLEXIBLE: None,
        }  # fmt: skip
        if not completions:
            return row
        alone = {problem.id for problem in problems if (problem.neighbour or 0.0) < NEIGHBOUR}
        row[STRICT], row[FLEXIBLE] = (self.accuracy(completions, kind) for kind in (STRICT, FLEXIBLE))
        row["accuracy"] = row[model.extraction]
        row["without_neighbour"] = self.accuracy([c for c in completions if c.problem_id in alone], model.extraction)
        return {**row, **counts(completions), "prompts_over_limit": len(problems) - len(completions)}

    def accuracy(self, completions: Sequence[Completion], extraction: str) -> dict[str, Any] | None:
        """Share of right answers with its interval; None without any completion."""
        verdicts = right_by_problem(completions, extraction)
        return accuracy_of(verdicts, self._groups(verdicts), self.confidence) if verdicts else None

    def _groups(self, verdicts: Mapping[str, bool]) -> dict[str, str] | None:
        """The groups of these problems, where there is more than one."""
        groups = {name: self.groups[name] for name in verdicts if name in self.groups}
        return groups if len(set(groups.values())) > 1 else None

    def comparisons(self, models: Sequence[Model], delivered: Model | None) -> list[dict[str, Any]]:
        """The delivered model against base, warm-up, and the last model of each baseline arm."""
        if delivered is None:
            return []
        others = [model for model in models if model.key in ("base", "warm-up", *self.run.config.baselines)]
        found = [self.compare(delivered, other) for other in others if other != delivered]
        return [row for row in found if row is not None]

    def compare(self, first: Model, second: Model) -> dict[str, Any] | None:
        """A paired test of the delivered model against another; None where nothing can be compared yet."""
        ours, theirs = (self.run.evaluation(model.stage(self.name)) for model in (first, second))
        if not ours or not theirs:
            return None
        names = ("the delivered model", NAMES.get(second.key, second.label))
        tested = self._paired(ours, first.extraction, theirs, second.extraction, names)
        return {"first": first.key, "second": second.key, "second_label": second.label, **tested}

    def _paired(
        self,
        ours: Sequence[Completion],
        our_extraction: str,
        theirs: Sequence[Completion],
        their_extraction: str,
        names: tuple[str, str],
    ) -> dict[str, Any]:
        first, second = right_by_problem(ours, our_extraction), right_by_problem(theirs, their_extraction)
        test = paired_difference(first, second, self._groups(first), self.confidence)
        sentence = verdict_sentence(test, *names)
        return {
            **dataclasses.asdict(test), "verdict": verdict_of(test), "sentence": sentence[:1].upper() + sentence[1:],
        }  # fmt: skip

    def without_calculator(self, models: Sequence[Model], delivered: Model | None) -> list[dict[str, Any]]:
        """Base and delivered model with the calculator off, and on for the same rows."""
        found = []
        for model, place in ((models[0], "0-base"), (delivered, "final")):
            off = self.run.evaluation(f"{place}/evaluate-without-calculator/{self.name}")
            on = self.run.evaluation(model.stage(self.name)) if model is not None else None
            if model is None or not off or not on:
                continue
            asked, kind = {c.problem_id for c in off}, model.extraction
            same = [c for c in on if c.problem_id in asked]
            names = ("the model with its calculator", "without it")
            found.append({
                "key": model.key, "label": model.label, "delivered": model == delivered, "extraction": kind,
                "rows": len(off), "without": self.accuracy(off, kind), "with": self.accuracy(same, kind),
                "comparison": self._paired(same, kind, off, kind, names),
            })  # fmt: skip
        return found


def accuracy_of(
    verdicts: Mapping[str, bool], groups: Mapping[str, str] | None = None, confidence: float = 0.95
) -> dict[str, Any]:
    """An accuracy as results.json has it: right of rows, share, interval, and groups (0: rows are independent)."""
    found = accuracy_interval(verdicts, groups, confidence)
    return {
        "right": sum(verdicts.values()), "rows": found.num, "accuracy": found.value, "low": found.low,
        "high": found.high, "groups": found.num_groups,
    }  # fmt: skip


def verdict_of(test: PairedTest) -> str:
    """`better`, `worse` or `not shown`: what the interval of the difference says."""
    if test.low > 0:
        return "better"
    return "worse" if test.high < 0 else "not shown"


def counts(completions: Sequence[Completion]) -> dict[str, Any]:
    """What the calculator did and how the completions ended."""
    return {
        "calls": sum(c.calls for c in completions),
        "calls_per_completion": sum(c.calls for c in completions) / max(len(completions), 1),
        "uncalculated": sum(c.uncalculated for c in completions),
        "tokens": sum(len(c.token_ids) for c in completions),
        "forced_tokens": sum(end - start for c in completions for start, end in c.forced),
        "cut_at_limit": sum(c.stop == "length" for c in completions),
    }


def headline(run: RunFiles, first_set: Mapping[str, Any] | None) -> dict[str, Any]:
    """Is it better? Base, warm-up and delivered model on the first test set, and a sentence that its interval says."""
    rows = first_set["models"] if first_set else []
    delivered = next((row for row in rows if row["delivered"] and row["accuracy"]), None)
    by_key = {row["key"]: row for row in rows}
    tests = {row["second"]: row for row in (first_set["comparisons"] if first_set else [])}
    main = tests.get("warm-up") or tests.get("base")
    return {
        "test_set": first_set["name"] if first_set else None,
        "base": by_key.get("base", {}).get("accuracy"),
        "warm_up": by_key.get("warm-up", {}).get("accuracy"),
        "delivered": delivered["accuracy"] if delivered else None,
        "delivered_label": delivered["label"] if delivered else None,
        "against": main["second"] if main else None,
        "verdict": main["verdict"] if main else ("not there yet" if not run.is_finished else "not compared"),
        "p_value": main["p_value"] if main else None,
        "sentence": _headline_sentence(run, first_set, main),
    }


def _headline_sentence(run: RunFiles, first_set: Mapping[str, Any] | None, main: Mapping[str, Any] | None) -> str:
    if main is not None and first_set is not None:
        return f"On {first_set['name']}, {main['sentence'][:1].lower()}{main['sentence'][1:]}"
    if not run.is_finished:
        return "The run is not finished: there is no delivered model to compare yet."
    return "Nothing was compared: the run has no test set, or delivers what it would be compared with."
