"""The stages of a run bound to its folder: what loop.py calls. Decides nothing about the algorithm.

    Runner(config, rundir, progress).run()
    Runner(config, rundir, progress, stages_beyond(config, "0-warmup")).run()     # goes no further than that

Each method is one stage: it names the stage's folder, inputs and settings, and hands over to `stages/`. Models
travel as `ModelRef`s; weights are loaded where they are used, and weights that nothing needs any more are
released. Test sets are read by `evaluate` alone and by nothing that decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from selftrain.bench import Stopped
from selftrain.config import RunConfig
from selftrain.loop import self_train
from selftrain.modelstore import ModelRef
from selftrain.progress import Progress
from selftrain.report.account import this_environment
from selftrain.rundir import RunDir, StageResult
from selftrain.workbench import Workbench

Samples = StageResult


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train on the run's data; every arm shares base model and warm-up."""

    name: str
    method: str
    matched: bool = False

    @property
    def prefix(self) -> str:
        """Folder prefix of its stages; the main arm has none."""
        return "" if self.name == "main" else f"baseline-{self.name}/"


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One turn of an arm's loop."""

    arm: Arm
    number: int

    @property
    def name(self) -> str:
        """Folder of its stages."""
        return f"{self.arm.prefix}{self.number}-iteration"


def arms_of(config: RunConfig) -> list[Arm]:
    """The run's method first, then its baselines."""
    baselines = {
        "st": Arm("st", "st"),
        "st-matched": Arm("st-matched", "st", matched=True),
        "sft-matched": Arm("sft-matched", "sft", matched=True),
    }
    return [Arm("main", config.method), *(baselines[name] for name in config.baselines)]


class Runner:
    """What loop.py calls `work`."""

    def __init__(
        self, config: RunConfig, rundir: RunDir, progress: Progress, beyond: Collection[str] = frozenset()
    ) -> None:
        self.config, self.rundir, self.progress = config, rundir, progress
        self.bench = Workbench(config, rundir, progress, beyond)
        self._main: ModelRef | None = None
        self._validation: dict[str, list[tuple[float, ModelRef]]] = {}

    def run(self) -> None:
        """Every arm, the final evaluations, and the delivered model; with `beyond`, up to the first stage of these."""
        try:
            self._run()
        except Stopped as stop:
            self.rundir.journal("stopped", before=stop.stage)
            self.progress.say(f"Stopped before {stop.stage}, as asked. The same command without --until goes on.")

    def _run(self) -> None:
        for message in self.rundir.noticed:
            self.bench.warn(message, "start")
        self.bench.prepare()
        self.rundir.journal("environment", environment=this_environment(), device=self.bench.models.device)
        for arm in arms_of(self.config):
            model = self_train(self, arm)
            if self._main is None:
                self._main = model
                self._hand_over(model)
        kept = [model for model in (self._main, self._best_to_keep()) if model is not None]
        self.bench.models.release_all_but(*kept)
        self.rundir.journal("end")

    def _hand_over(self, model: ModelRef) -> None:
        """Deliver the main arm's model, and see what it and the base model are without the calculator."""
        self.bench.models.deliver(model, self.bench.codec.style)
        self.bench.evaluate_without_calculator(self.base(), "0-base")
        self.bench.evaluate_without_calculator(model, "final")

    def _best_to_keep(self) -> ModelRef | None:
        """With `checkpoints.keep: best`, the main arm's best model on validation."""
        if self.config.checkpoints.keep != "best" or self._main is None:
            return None
        return self._best_of("main", self._main)

    def base(self) -> ModelRef:
        """f0."""
        return self.bench.base

    def gold(self) -> StageResult:
        """L as training examples."""
        return self.bench.select([], "0-warmup")

    def iterations(self, arm: Arm) -> Iterator[Iteration]:
        """1, 2, ... until the schedule's number, or until validation stops getting better (`schedule.patience`)."""
        schedule = self.config.schedule
        for number in range(1, schedule.iterations + 1):
            yield Iteration(arm, number)
            scores = [score for score, _ in self._validation.get(arm.name, [])]
            if schedule.patience and len(scores) - 1 - _argmax(scores) >= schedule.patience:
                self.progress.say(f"No better validation accuracy for {schedule.patience} iteration(s): stopping.")
                return

    def start(self, base: ModelRef, model: ModelRef) -> ModelRef:
        """The weights that an SFT starts from (paper: always the base model)."""
        return base if self.config.schedule.start_from == "base" else model

    def warm_up(self, base: ModelRef, labelled: StageResult) -> ModelRef:
        """f' = SFT(f0, L), or the user's own model in its place."""
        return self.bench.own_warmup or self.sft(base, labelled, "0-warmup")

    def sft(self, start: ModelRef, examples: StageResult, at: str) -> ModelRef:
        """f' = SFT(start, examples)."""
        return self.bench.sft(start, examples, at)

    def sft_matched(self, base: ModelRef, labelled: StageResult, arm: Arm) -> ModelRef:
        """SFT on L alone for as many optimiser steps as the main arm's last SFT."""
        at = f"{arm.prefix}sft-matched"
        model = self.bench.sft(base, labelled, at, num_steps=self._main.steps if self._main else None)
        self.bench.evaluate(model, at)
        return model

    def sample(self, model: ModelRef, iteration: Iteration, kind: str) -> Samples:
        """K samples a question of U: the first draws, or where those for pairs become labels too, further ones."""
        sampling, arm = self.config.sampling, iteration.arm
        number = sampling.samples_a_question(kind, matched=arm.matched)
        further = kind == "sample-for-labels" and arm.method == "dpo-st" and self.config.labels.reuse_samples_for_pairs
        first = sampling.samples_for_pairs if further else 0
        return self.bench.sample(model, range(first, first + number), iteration.number, f"{iteration.name}/{kind}")

    def pair(self, samples: Sequence[Samples], iteration: Iteration) -> StageResult:
        """Right against wrong, from the pool of samples."""
        pool = samples if self.config.pairs.pool == "all" else samples[-1:]
        return self.bench.pair([*self.bench.brought_for("pairs"), *pool], iteration.name)

    def dpo(self, model: ModelRef, pairs: StageResult, iteration: Iteration) -> ModelRef:
        """f_d = DPO(f', pairs), or f' itself where there is nothing to learn from or the guard says so."""
        if not pairs.figures["pairs"]:
            self.progress.say("No pair in the whole pool: this iteration samples from the SFT model, as plain ST does.")
            self.rundir.journal("no-pairs", stage=pairs.name)
            return model
        sampler, reason = self.bench.dpo(model, pairs, iteration.name)
        self.bench.evaluate(sampler, f"{iteration.name}/sampler")
        reason = reason or self._accuracy_fell(model, sampler, iteration)
        if reason and self.config.guard.enabled:
            self.progress.say(f"DPO collapsed ({reason}): this iteration samples from the SFT model instead.")
            self.rundir.journal("collapse", stage=f"{iteration.name}/dpo", reason=reason)
            return model
        return sampler

    def select(self, samples: Sequence[Samples], for_pairs: Sequence[Samples], iteration: Iteration) -> StageResult:
        """Right and distinct completions as examples, after the gold ones."""
        labels = self.config.labels
        wanted = slice(None) if labels.pool == "all" else slice(-1, None)
        pool = [*samples[wanted], *(for_pairs[wanted] if labels.reuse_samples_for_pairs else ())]
        examples = self.bench.select([*self.bench.brought_for("labels"), *pool], iteration.name)
        self.bench.warn_of_samples(iteration.name)
        return examples

    def evaluate(self, model: ModelRef, at: str) -> None:
        """Every test set (base and samplers: the first), and validation where it decides something."""
        self.bench.evaluate(model, at)
        if self.config.data.validation is not None and at.endswith("-iteration"):
            score = self.bench.validation_accuracy(model, at)
            arm = at.removeprefix("baseline-").rpartition("/")[0] or "main"
            self._validation.setdefault(arm, []).append((score, model))

    def best(self, arm: Arm, model: ModelRef) -> ModelRef:
        """The model to deliver: the last, or with `schedule.patience` the best on validation."""
        return self._best_of(arm.name, model) if self.config.schedule.patience else model

    def _best_of(self, arm: str, model: ModelRef) -> ModelRef:
        """The arm's best model on validation; `model` where nothing was validated."""
        scores = self._validation.get(arm, [])
        return scores[_argmax([score for score, _ in scores])][1] if scores else model

    def _accuracy_fell(self, model: ModelRef, sampler: ModelRef, iteration: Iteration) -> str:
        """Why validation accuracy says that the DPO model must not sample; empty where it does not."""
        if self.config.data.validation is None:
            return ""
        return self.bench.validation_drop(model, sampler, iteration.name)


def _argmax(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda index: scores[index]) if scores else 0
