"""How well each model of a run answers, per test set: accuracies with intervals, paired tests, the headline.

Everything is counted from the stored completions. The base model's own figure uses the flexible extraction (it was
never shown our answer format), every other model's the strict one; both are given for all. Intervals and tests
are clustered by group (template) where a set has more than one. Models are compared on the problems that both answered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from selftrain.config import RunConfig
from selftrain.metrics import accuracy_interval, paired_difference, verdict_sentence
from selftrain.records import Completion, Problem
from selftrain.report.files import RunFiles

NEIGHBOUR = 0.6  # word-set Jaccard to a training question from which a test row counts as having a neighbour
ARM_LABELS = {"st": "plain ST", "st-matched": "plain ST, equal samples", "sft-matched": "SFT on labelled, equal steps"}


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
        return "flexible" if self.kind == "base" else "strict"

    def stage(self, test_set: str) -> str:
        """The stage that evaluates it on a set."""
        return f"{self.at}/evaluate/{test_set}"


def models_of(config: RunConfig) -> list[Model]:
    """Every model that a run of this configuration evaluates, in the order of the table."""
    models = [
        Model("base", "base model, zero-shot", "base", "0-base"),
        Model("warm-up", "warm-up (SFT on labelled)", "warm-up", "0-warmup"),
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
    table = _Table(run, name, groups, run.config.evaluation.confidence)
    rows = [table.row(model, problems, is_delivered=model == delivered) for model in models]
    return {
        "name": name,
        "rows": len(problems),
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
    confidence: float

    def row(self, model: Model, problems: Sequence[Problem], *, is_delivered: bool) -> dict[str, Any]:
        """A model's line."""
        stage = model.stage(self.name)
        completions = self.run.evaluation(stage)
        row: dict[str, Any] = {
            "key": model.key, "label": model.label, "kind": model.kind, "stage": stage, "delivered": is_delivered,
            "extraction": model.extraction, "accuracy": None, "strict": None, "flexible": None,
        }  # fmt: skip
        if not completions:
            return row
        alone = {problem.id for problem in problems if (problem.neighbour or 0.0) < NEIGHBOUR}
        row["strict"], row["flexible"] = (self.accuracy(completions, kind) for kind in ("strict", "flexible"))
        row["accuracy"] = row[model.extraction]
        row["without_neighbour"] = self.accuracy([c for c in completions if c.problem_id in alone], model.extraction)
        return {**row, **_counts(completions), "prompts_over_limit": len(problems) - len(completions)}

    def accuracy(self, completions: Sequence[Completion], extraction: str) -> dict[str, Any] | None:
        """Right answers of completions, with an interval; None without any."""
        if not completions:
            return None
        right = [is_right(c, extraction) for c in completions]
        return accuracy_of(right, self._groups([c.problem_id for c in completions]), self.confidence)

    def _groups(self, ids: Sequence[str]) -> list[str] | None:
        """Their groups, where all have one and there is more than one."""
        groups = [self.groups[name] for name in ids if name in self.groups]
        return groups if len(groups) == len(ids) and len(set(groups)) > 1 else None

    def comparisons(self, models: Sequence[Model], delivered: Model | None) -> list[dict[str, Any]]:
        """The delivered model against base, warm-up, and the last model of each baseline arm."""
        if delivered is None:
            return []
        others = [model for model in models if model.key in ("base", "warm-up", *self.run.config.baselines)]
        found = [self.compare(delivered, other) for other in others if other != delivered]
        return [row for row in found if row is not None]

    def compare(self, first: Model, second: Model) -> dict[str, Any] | None:
        """A paired test of two models on the problems that both answered; None where there are none."""
        ours, theirs = (self.run.evaluation(model.stage(self.name)) for model in (first, second))
        compared = self._paired(ours, first.extraction, theirs, second.extraction)
        if compared is None:
            return None
        return {"first": first.key, "second": second.key, "second_label": second.label, **compared}

    def _paired(
        self,
        ours: Sequence[Completion] | None,
        our_extraction: str,
        theirs: Sequence[Completion] | None,
        their_extraction: str,
    ) -> dict[str, Any] | None:
        mine = {c.problem_id: is_right(c, our_extraction) for c in ours or []}
        other = {c.problem_id: is_right(c, their_extraction) for c in theirs or []}
        ids = [name for name in mine if name in other]
        if not ids:
            return None
        first, second = [mine[name] for name in ids], [other[name] for name in ids]
        return compare(first, second, self._groups(ids), self.confidence)

    def without_calculator(self, models: Sequence[Model], delivered: Model | None) -> list[dict[str, Any]]:
        """Base and delivered model with the calculator off, and the same rows with it on."""
        found = []
        for model, place in ((models[0], "0-base"), (delivered, "final")):
            off = self.run.evaluation(f"{place}/evaluate-without-calculator/{self.name}")
            on = self.run.evaluation(model.stage(self.name)) if model is not None else None
            if model is None or not off or not on:
                continue
            asked = {c.problem_id for c in off}
            same = [c for c in on if c.problem_id in asked]
            found.append({
                "key": model.key, "label": model.label, "delivered": model == delivered,
                "extraction": model.extraction, "rows": len(off),
                "without": self.accuracy(off, model.extraction), "with": self.accuracy(same, model.extraction),
                "comparison": self._paired(same, model.extraction, off, model.extraction),
            })  # fmt: skip
        return found


def _counts(completions: Sequence[Completion]) -> dict[str, Any]:
    """What the calculator did and how the completions ended."""
    tokens = sum(len(c.token_ids) for c in completions)
    forced = sum(end - start for c in completions for start, end in c.forced)
    calls = sum(c.calls for c in completions)
    return {
        "calls": calls,
        "calls_per_completion": calls / len(completions),
        "forced_tokens": forced,
        "tokens": tokens,
        "uncalculated": sum(c.uncalculated for c in completions),
        "cut_at_limit": sum(c.stop == "length" for c in completions),
    }
