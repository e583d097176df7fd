"""Binds each stage to its folder, its inputs and its settings, and hands it what it needs.

runner.py says which stages there are and in what order; this file says what each is made from. A stage's key is
the digest of its inputs (the digests of earlier stages or weights) and of the settings that it reads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain import guard
from selftrain.calculator.forcing import forced_spans
from selftrain.config import OptimizerConfig, RunConfig
from selftrain.forwards import Layout
from selftrain.hardware import matrix_flops
from selftrain.judged import COMPLETIONS, accuracy_of, changed_fraction
from selftrain.models import LanguageModel, config_is_encoder_decoder, is_encoder_decoder, load_tokenizer
from selftrain.modelstore import ModelRef, ModelStore
from selftrain.progress import Progress
from selftrain.prompts import Codec, chat_prompt
from selftrain.records import Completion, Pair, Problem, read_jsonl
from selftrain.rundir import Figures, RunDir, StageResult, Work
from selftrain.sampling.base import Sampler, SamplingParams
from selftrain.sampling.engine import Engine
from selftrain.sampling.vllm_sampler import run_sampler
from selftrain.sampling.vllm_support import check_model
from selftrain.seeding import derive_seed
from selftrain.stages.data import load_sets, run_data
from selftrain.stages.pair import PAIRS, run_pair
from selftrain.stages.sample import EVALUATION_TOLERANCE, LABEL_TOLERANCE, SamplePlan, run_sample
from selftrain.stages.select import read_examples, run_select
from selftrain.stages.train import MODEL, run_training
from selftrain.training.dpo import DPOObjective, group_pairs
from selftrain.training.objective import Forced
from selftrain.training.sft import SFTObjective


class Workbench:
    """The stages of one run."""

    def __init__(self, config: RunConfig, rundir: RunDir, progress: Progress) -> None:
        self.config, self.rundir, self.progress = config, rundir, progress
        self.models = ModelStore(config, rundir, progress)

    def prepare(self) -> None:
        """Weights, codec, and the sets of problems."""
        if self.config.compute.threads:
            import torch

            torch.set_num_threads(self.config.compute.threads)
        self.base = self.models.base()
        trust = self.config.compute.trust_remote_code
        self.codec = Codec.build(
            load_tokenizer(self.base.path, trust), self.config.prompt, config_is_encoder_decoder(self.base.path, trust)
        )
        check_model(self.config.sampling, self.config.model, self.codec)
        self.progress.say(
            f"{self.config.name}: {self.config.method} with {self.config.model}, {self.models.device}, "
            f"{self.models.precision}; run folder {self.rundir.path}"
        )
        result = self._stage(
            "data",
            inputs={"tokenizer": self.base.digest},
            settings={
                "data": self.config.data.model_dump(mode="json"),
                "prompt": self.config.prompt.model_dump(),
                "targets": self.config.training.max_target_tokens,
            },
            work=lambda folder: run_data(folder, self.config, self.codec, self.progress),
        )
        self.sets = load_sets(result.folder)
        self.data_digest = result.digest

    def select(self, pool: Sequence[StageResult], at: str) -> StageResult:
        """Gold examples of L, then the pool's right and distinct completions."""
        return self._stage(
            f"{at}/select",
            inputs={"data": self.data_digest, **_digests(pool)},
            settings={"labels": self.config.labels.model_dump(), "targets": self.config.training.max_target_tokens},
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

        def objective(model: LanguageModel, layout: Layout) -> SFTObjective:
            return SFTObjective(
                read_examples(examples.folder),
                settings,
                seed=derive_seed(self.config.seed, "sft", at),
                pad_id=model.pad_id,
                encoder_decoder=is_encoder_decoder(model.module),
                micro_batch_tokens=self.config.training.micro_batch_tokens,
                layout=layout,
                forced=self._forced(settings),
            )

        name = f"{at}/sft"
        inputs = {"start": start.digest, "examples": examples.digest}
        return self._train(name, start, inputs, settings.model_dump(), objective)

    def pair(self, pool: Sequence[StageResult], at: str) -> StageResult:
        """Pairs from the pool of samples."""
        return self._stage(
            f"{at}/pair",
            inputs={"data": self.data_digest, **_digests(pool)},
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

    def dpo(self, model: ModelRef, pairs: StageResult, at: str) -> tuple[ModelRef, str]:
        """The DPO model of an iteration, and why the guard says that it collapsed (empty where it does not)."""
        settings = self.config.training.dpo

        def objective(loaded: LanguageModel, layout: Layout) -> DPOObjective:
            rows = read_jsonl(pairs.folder / PAIRS, Pair)
            prompts = {problem.id: self.codec.prompt(problem.question) for problem in self.sets.questions}
            return DPOObjective(
                group_pairs(rows, prompts),
                settings,
                seed=derive_seed(self.config.seed, "dpo", at),
                pad_id=loaded.pad_id,
                encoder_decoder=is_encoder_decoder(loaded.module),
                micro_batch_tokens=self.config.training.micro_batch_tokens,
                layout=layout,
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
            result = self._stage(
                name,
                inputs=inputs,
                settings={"training": settings, "seed": self.config.seed, **self._adapters()},
                work=lambda folder: run_training(
                    folder,
                    stage=name,
                    open_model=lambda: self.models.open(start, "fp32"),
                    make_objective=objective,
                    config=self.config,
                    precision=self.models.precision,
                    progress=self.progress,
                    team=self.rundir.team,
                ),
                together=True,
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

    def warn(self, message: str, stage: str) -> None:
        """Say it now and keep it for the report; nothing where the message is empty."""
        if message:
            self.progress.say(f"warning: {message}")
            self.rundir.journal("warning", stage=stage, message=message)

    def sample(self, model: ModelRef, num_samples: int, iteration: int, name: str) -> StageResult:
        """K samples a question of U. Streams depend on iteration, question and k: two models meet equal seeds."""
        sampling = self.config.sampling
        params = SamplingParams(
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_new_tokens, sampling.calculator
        )
        seed = (self.config.seed, "sample", iteration)
        return self._sample_stage(name, model, self.sets.questions, num_samples, params, seed, LABEL_TOLERANCE)

    def evaluate(self, model: ModelRef, at: str) -> None:
        """Greedy on the test sets: all of them, but only the first for the base model and for samplers."""
        names = list(self.sets.tests)
        for name in names[:1] if at == "0-base" or at.endswith("/sampler") else names:
            self._evaluate(model, f"{at}/evaluate/{name}", self.sets.tests[name], calculator=True)

    def evaluate_without_calculator(self, model: ModelRef, at: str) -> None:
        """The first rows of the first test set once more, with the calculator off."""
        rows = self.config.evaluation.without_calculator_rows
        for name in list(self.sets.tests)[: 1 if rows else 0]:
            problems = self.sets.tests[name][:rows]
            self._evaluate(model, f"{at}/evaluate-without-calculator/{name}", problems, calculator=False)

    def validation_accuracy(self, model: ModelRef, at: str) -> float:
        """Strict greedy accuracy on the validation set, the only set that decisions read."""
        result = self._evaluate(model, f"{at}/validate", self.sets.validation, calculator=True)
        return accuracy_of(result.folder / COMPLETIONS)

    def validation_drop(self, model: ModelRef, sampler: ModelRef, at: str) -> str:
        """Why a DPO model's validation accuracy rules it out as sampler; empty where it does not."""
        before = self.validation_accuracy(model, f"{at}/start")
        after = self.validation_accuracy(sampler, f"{at}/sampler")
        return guard.lost_accuracy(before, after, len(self.sets.validation), self.config.guard)

    def warn_if_unmoved(self, at: str) -> None:
        """Compare what f' and f_d wrote at equal seeds; warn when DPO changed next to nothing."""
        files = [self.rundir.path / at / kind / COMPLETIONS for kind in ("sample-for-pairs", "sample-for-labels")]
        if not all(file.is_file() for file in files):
            return
        before, after = (read_jsonl(file, Completion) for file in files)
        changed = changed_fraction(before, after)
        if changed is None:
            return
        self.progress.say(f"  {at}: {changed:.0%} of the samples differ from the SFT model's at equal seeds")
        self.warn(guard.unmoved(changed, self.config.guard), at)

    def _evaluate(self, model: ModelRef, name: str, problems: Sequence[Problem], *, calculator: bool) -> StageResult:
        tokens = self.config.evaluation.max_new_tokens or self.config.sampling.max_new_tokens
        params = SamplingParams(0.0, 0, 1.0, tokens, calculator)
        seed = (self.config.seed, "evaluate")
        return self._sample_stage(name, model, problems, 1, params, seed, EVALUATION_TOLERANCE)

    def _sample_stage(
        self,
        name: str,
        model: ModelRef,
        problems: Sequence[Problem],
        num_samples: int,
        params: SamplingParams,
        seed: tuple[str | int, ...],
        tolerance: Any,
    ) -> StageResult:
        sampling = self.config.sampling
        plan = SamplePlan(
            num_samples, params, seed, sampling.shard_questions, self.config.prompt.max_prompt_tokens,
            tolerance, name, model.digest,
        )  # fmt: skip
        is_base = model.stage == "base"

        def work(folder: Path) -> Figures:
            with contextlib.ExitStack() as opened:  # a sampler's memory is given back when its stage ends
                return run_sample(
                    folder, problems, plan, codec=self.codec,
                    prompt=(self._base_prompt if is_base else lambda problem: self.codec.prompt(problem.question)),
                    open_sampler=lambda: self._open_sampler(model, plan, opened), progress=self.progress,
                    team=self.rundir.team,
                )  # fmt: skip

        return self._stage(
            name,
            inputs={"model": model.digest, "data": self.data_digest},
            settings={
                **dataclasses.asdict(plan),
                "tolerance": str(tolerance),
                "slots": sampling.slots,
                "rows": len(problems),
                **({} if sampling.backend == "engine" else {"backend": sampling.backend, "vllm": sampling.vllm}),
            },
            work=work,
            together=True,
        )

    def _base_prompt(self, problem: Problem) -> tuple[int, ...]:
        """The base model is asked through its own chat template where it has one."""
        return chat_prompt(self.codec.tokenizer, problem.question) or self.codec.prompt(problem.question)

    def _open_sampler(self, model: ModelRef, plan: SamplePlan, opened: contextlib.ExitStack) -> Sampler:
        if self.config.sampling.backend == "vllm":
            self.models.restore(model)
            tokens, log = plan.max_prompt_tokens + plan.params.max_new_tokens, self.rundir.path / "vllm.log"
            sampler = run_sampler(
                self.config, model.path, self.codec.style, self.models.precision, tokens, log, self.progress.say
            )
            return opened.enter_context(sampler)
        return Engine(
            self.models.open_to_sample(model), num_slots=self.config.sampling.slots, style=self.codec.style,
            tables=self.codec.tables, say=self.progress.say,
        )  # fmt: skip

    def _stage(
        self, name: str, *, inputs: dict[str, str], settings: dict[str, Any], work: Work, together: bool = False
    ) -> StageResult:
        """`together`: the stage computes on the device, and all processes of a team take part."""

        def timed(folder: Path) -> Figures:
            if together and self.rundir.team.is_main:
                flops = matrix_flops(self.models.device, self.models.precision)
                self.rundir.journal("speed", stage=name, flops=round(flops))
            return work(folder)

        result = self.rundir.stage(name, inputs=inputs, settings=settings, work=timed, together=together)
        if result.skipped:
            self.progress.begin(name)
            self.progress.end(skipped=True)
        return result


def _digests(pool: Sequence[StageResult]) -> dict[str, str]:
    return {result.name: result.digest for result in pool}
