"""The stages of a run that sample: for pairs and labels, and greedily for evaluation and validation.

Two models meet equal seeds where they make the same draws, since streams depend on iteration, question and k. Test sets
are read by evaluation alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selftrain import guard
from selftrain.bench import Bench
from selftrain.judged import COMPLETIONS, accuracy_of, changed_fraction, right_shares
from selftrain.models import DTYPES
from selftrain.modelstore import ModelRef
from selftrain.records import Completion, Problem, read_jsonl
from selftrain.rundir import Figures, StageResult
from selftrain.sampling.base import Sampler, SamplingParams
from selftrain.sampling.engine import Engine
from selftrain.sampling.paths import SLOTS, Shape, check_memory, check_positions
from selftrain.sampling.vllm_sampler import run_sampler
from selftrain.stages.sample import EVALUATION_TOLERANCE, LABEL_TOLERANCE, SHARDS, SamplePlan, run_sample


class SampleBench(Bench):
    """The bench with a sampler on it."""

    def prepare(self) -> None:
        """See `Bench`; then, as a run begins, refuse sampling that would not fit: nothing is sampled or trained yet.

        Raises:
            ConfigError: a prompt and its new tokens are more than the model's positions, or the key/value storage is
                more than the free memory.
        """
        super().prepare()
        if (self.rundir.path / "0-base").exists():
            return  # it was checked when the run began
        model = self.model_config
        shapes, dtype, device = list(self._shapes()), DTYPES[self.models.precision], self.models.device
        for shape in shapes:
            check_positions(model, shape.prompt_tokens, shape.new_tokens)
        sampling = self.config.sampling
        if shapes and sampling.backend == "engine" and not (sampling.slots == "auto" and device == "cuda"):
            largest = max(shapes, key=lambda shape: shape.storage_bytes(model, dtype))
            check_memory(model, dtype, device, largest)
            self.progress.say(f"sampling: at most {largest.stated(model, dtype)}")

    def _shapes(self) -> Iterator[Shape]:
        """The largest of each kind of sampling: K a question of U, greedy on what judges, the base model's."""
        sampling, tests = self.config.sampling, list(self.sets.tests.values())
        questions = [] if self.config.method == "sft" and not self.config.baselines else self.sets.questions
        judged = [*self.sets.validation, *itertools.chain(*tests)]
        labels = sampling.samples_a_question("sample-for-labels", matched="st-matched" in self.config.baselines)
        greedy = self.config.evaluation.max_new_tokens or sampling.max_new_tokens
        slots = SLOTS if sampling.slots == "auto" else sampling.slots
        for problems, ask, samples, tokens in (
            (questions, self.codec.prompt, max(sampling.samples_for_pairs, labels), sampling.max_new_tokens),
            (judged, self.codec.prompt, 1, greedy),
            (list(itertools.chain(*tests[:1])), self.codec.base_prompt, 1, greedy),
        ):
            lengths = [len(ask(problem.question)) for problem in problems]
            kept = [length for length in lengths if length <= self.config.prompt.max_prompt_tokens]
            if kept:
                yield Shape(min(slots, samples * min(len(kept), sampling.shard_questions)), max(kept), tokens)

    def sample(self, model: ModelRef, draws: range, iteration: int, name: str) -> StageResult:
        """The draws of each question of U, by k. Streams depend on iteration, question and k alone."""
        sampling = self.config.sampling
        params = SamplingParams(
            sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_new_tokens, sampling.calculator
        )
        seed = (self.config.seed, "sample", iteration)
        return self._sample_stage(name, model, self.sets.questions, draws, params, seed, LABEL_TOLERANCE)

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

    def warn_of_samples(self, at: str) -> None:
        """Compare what f' and f_d drew of each question; warn where DPO changed next to nothing, or did harm.

        Nothing where f' drew both, since there was no pair or the guard spoke: that was said then.
        """
        files = [self.rundir.path / at / kind / COMPLETIONS for kind in ("sample-for-pairs", "sample-for-labels")]
        if not all(file.is_file() for file in files):
            return
        before, after = (read_jsonl(file, Completion) for file in files)
        if {completion.model for completion in before} == {completion.model for completion in after}:
            return
        changed = changed_fraction(before, after)
        if changed is not None:
            self.progress.say(f"  {at}: {changed:.0%} of the samples differ from the SFT model's at equal seeds")
            self.warn(guard.unmoved(changed, self.config.guard), at)
        groups = {problem.id: problem.group for problem in self.sets.questions}
        gold_wins = self.config.pairs.gold_winner != "never"
        self.warn(guard.fewer_right(right_shares(before), right_shares(after), groups, gold_wins=gold_wins), at)

    def _evaluate(self, model: ModelRef, name: str, problems: Sequence[Problem], *, calculator: bool) -> StageResult:
        tokens = self.config.evaluation.max_new_tokens or self.config.sampling.max_new_tokens
        params = SamplingParams(0.0, 0, 1.0, tokens, calculator)
        seed = (self.config.seed, "evaluate")
        return self._sample_stage(name, model, problems, range(1), params, seed, EVALUATION_TOLERANCE)

    def _sample_stage(
        self,
        name: str,
        model: ModelRef,
        problems: Sequence[Problem],
        draws: range,
        params: SamplingParams,
        seed: tuple[str | int, ...],
        tolerance: Any,
    ) -> StageResult:
        sampling = self.config.sampling
        plan = SamplePlan(
            len(draws), params, seed, sampling.shard_questions, self.config.prompt.max_prompt_tokens,
            tolerance, name, model.digest, draws.start,
        )  # fmt: skip
        ask = self.codec.base_prompt if model.stage == "base" else self.codec.prompt

        def work(folder: Path) -> Figures:
            with contextlib.ExitStack() as opened:  # a sampler's memory is given back when its stage ends
                return run_sample(
                    folder, problems, plan, codec=self.codec,
                    prompt=lambda problem: ask(problem.question),
                    open_sampler=lambda: self._open_sampler(model, plan, opened), progress=self.progress,
                    warn=lambda message: self.warn(message, name), team=self.rundir.team,
                )  # fmt: skip

        return self.stage(
            name,
            inputs={"model": model.digest, "data": self.data_digest},
            settings={
                **{key: value for key, value in dataclasses.asdict(plan).items() if key != "first_k" or value},
                "tolerance": str(tolerance),
                "slots": sampling.slots,
                "rows": len(problems),
                **({} if sampling.backend == "engine" else {"backend": sampling.backend, "vllm": sampling.vllm}),
            },
            work=work,
            together=True,
            scratch=(SHARDS,),
        )

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
            tables=self.codec.tables, say=self.progress.say, warn=lambda message: self.warn(message, plan.stage),
        )  # fmt: skip
