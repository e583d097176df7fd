"""The stages of a run that select and train: pseudo-labels, pairs, SFT, DPO; with the sampling ones, all of them.

runner.py says which stages there are and in what order; this file, samplebench.py and bench.py say what each is made
from.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from selftrain import guard
from selftrain.bench import digests
from selftrain.calculator.forcing import forced_spans
from selftrain.config import OptimizerConfig
from selftrain.judged import COMPLETIONS
from selftrain.models import LanguageModel, is_encoder_decoder
from selftrain.modelstore import ModelRef
from selftrain.pool import over_limit_warning
from selftrain.records import Pair, read_jsonl
from selftrain.rundir import StageResult
from selftrain.samplebench import SampleBench
from selftrain.seeding import derive_seed
from selftrain.stages.pair import PAIRS, run_pair
from selftrain.stages.select import read_examples, run_select
from selftrain.stages.train import MODEL, run_training
from selftrain.training.adapters import weights_precision
from selftrain.training.dpo import DPOObjective, group_pairs
from selftrain.training.fit import SCRATCH
from selftrain.training.objective import Forced
from selftrain.training.sft import SFTObjective


class Workbench(SampleBench):
    """The stages of one run."""

    def select(self, pool: Sequence[StageResult], at: str) -> StageResult:
        """Gold examples of L, then the pool's right and distinct completions."""
        rules = self.config.labels.model_dump(exclude={"reuse_samples_for_pairs"})  # that says what the pool is
        return self._told(
            f"{at}/select",
            inputs={"data": self.data_digest, **digests(pool)},
            settings={"labels": rules, "targets": self.config.training.max_target_tokens},
            work=lambda folder: run_select(
                folder,
                f"{at}/select",
                self.sets.train,
                self.sets.questions,
                [result.folder / COMPLETIONS for result in pool],
                config=self.config,
                codec=self.codec,
                progress=self.progress,
            ),
        )

    def sft(self, start: ModelRef, examples: StageResult, at: str, num_steps: int | None = None) -> ModelRef:
        """A model trained on examples from `start`'s weights."""
        settings = self.config.training.sft
        if num_steps is not None:
            settings = settings.model_copy(update={"max_steps": num_steps})

        def objective(model: LanguageModel) -> SFTObjective:
            return SFTObjective(
                read_examples(examples.folder),
                settings,
                seed=derive_seed(self.config.seed, "sft", at),
                pad_id=model.pad_id,
                encoder_decoder=is_encoder_decoder(model.module),
                micro_batch_tokens=self.config.training.micro_batch_tokens,
                forced=self._forced(settings),
            )

        name = f"{at}/sft"
        inputs = {"start": start.digest, "examples": examples.digest}
        return self._train(name, start, inputs, settings.model_dump(), objective)

    def pair(self, pool: Sequence[StageResult], at: str) -> StageResult:
        """Pairs from the pool of samples."""
        return self._told(
            f"{at}/pair",
            inputs={"data": self.data_digest, **digests(pool)},
            settings={"pairs": self.config.pairs.model_dump(), "targets": self.config.training.max_target_tokens},
            work=lambda folder: run_pair(
                folder,
                f"{at}/pair",
                self.sets.questions,
                [result.folder / COMPLETIONS for result in pool],
                config=self.config,
                codec=self.codec,
                progress=self.progress,
            ),
        )

    def _told(self, name: str, **made: Any) -> StageResult:
        """A stage's result, and a warning where it left out rows that are too long."""
        result = self.stage(name, **made)
        self.warn(over_limit_warning(result.figures, self.config.training.max_target_tokens), name)
        return result

    def dpo(self, model: ModelRef, pairs: StageResult, at: str) -> tuple[ModelRef, str]:
        """The DPO model of an iteration, and why the guard says that it collapsed (empty where it does not)."""
        settings = self.config.training.dpo

        def objective(loaded: LanguageModel) -> DPOObjective:
            rows = read_jsonl(pairs.folder / PAIRS, Pair)
            prompts = {problem.id: self.codec.prompt(problem.question) for problem in self.sets.questions}
            return DPOObjective(
                group_pairs(rows, prompts),
                settings,
                seed=derive_seed(self.config.seed, "dpo", at),
                pad_id=loaded.pad_id,
                encoder_decoder=is_encoder_decoder(loaded.module),
                micro_batch_tokens=self.config.training.micro_batch_tokens,
                forced=self._forced(settings),
            )

        name = f"{at}/dpo"
        trained = self._train(
            name, model, {"start": model.digest, "pairs": pairs.digest}, settings.model_dump(), objective
        )
        return trained, self._guard(name)

    def _train(
        self, name: str, start: ModelRef, inputs: dict[str, str], settings: dict[str, Any], objective: Any
    ) -> ModelRef:
        def make() -> ModelRef:
            result = self.stage(
                name,
                inputs=inputs,
                settings={"training": settings, "seed": self.config.seed, **self._adapters()},
                work=lambda folder: run_training(
                    folder,
                    stage=name,
                    open_model=lambda: self.models.open(
                        start, weights_precision(self.config.training.lora, self.models.precision)
                    ),
                    make_objective=objective,
                    config=self.config,
                    precision=self.models.precision,
                    peak_flops=self.peak_flops,
                    progress=self.progress,
                    team=self.rundir.team,
                ),
                together=True,
                scratch=SCRATCH,
            )
            return ModelRef(name, result.folder / MODEL, result.figures["weights"], result.figures["steps"])

        return self.models.make(name, make)

    def _forced(self, settings: OptimizerConfig) -> Forced | None:
        """What finds the calculator's tokens, where they are to be left out of the loss."""
        return None if settings.forced_tokens else functools.partial(forced_spans, self.codec.tables)

    def _adapters(self) -> dict[str, Any]:
        lora = self.config.training.lora
        return {"lora": lora.model_dump()} if lora.rank else {}

    def _guard(self, name: str) -> str:
        """Warn of a DPO that did nothing; say why one that collapsed must not sample."""
        figures = self.rundir.figures(name)
        self.warn(guard.learned_little(figures["reward_accuracy"], self.config.guard), name)
        return guard.lost_right_answers(figures["chosen_change_per_token"], self.config.guard)
