"""The work of every stage of a run under one guess: rows, samples, tokens, steps, disk.

    for work in Estimator(config, counts, LIKELY, device="cpu").works(): ...

Gold rationales, prompts and steps are counted exactly; what samples come to is the guess's. With `run`, an unfinished
run's files, finished stages count as they were, and the guess is corrected by them: lengths by the samples that are
there, labels and pairs by the newest finished stage that made some.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Sequence

from selftrain.config import RunConfig
from selftrain.plan.counts import SetCount, SetCounts
from selftrain.plan.guesses import HIGH, Guess, Pairs, num_labels, num_pairs
from selftrain.plan.work import COMPLETION_BYTES, ID_BYTES, PROBLEM_BYTES, STEP_BYTES, Work, done_work, kind_of
from selftrain.records import Pair
from selftrain.report.expected import expected_stages
from selftrain.report.files import RunFiles
from selftrain.training.batches import group_batches

SEEN_SPREAD = 0.1  # of lengths, once samples were seen
_AT = re.compile(r"(?:baseline-(?P<arm>[^/]+)/)?(?P<number>\d+)-iteration/")


class Estimator:
    """One run under one guess."""

    def __init__(
        self, config: RunConfig, counts: SetCounts, guess: Guess, device: str = "cpu", run: RunFiles | None = None,
        encoder_decoder: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.counts, self.run = config, counts, run
        self.guess = guess if run is None else _corrected(guess, config, counts, run)
        layout = config.training.layout
        self.trees = layout == "trees" or (layout == "auto" and (encoder_decoder or device == "cpu"))

    def works(self) -> list[Work]:
        """Every stage, in order; finished ones as they were."""
        return [self.work(stage) for stage in expected_stages(self.config)]

    def work(self, stage: str) -> Work:
        """One stage."""
        if self.run is not None and self.run.is_done(stage):
            return done_work(self.run, stage)
        last = stage.rpartition("/")[2]
        if kind_of(stage) == "sampling":
            return self._drawn(stage) if last.startswith("sample-for-") else self._greedy(stage)
        if last == "data":
            return Work(stage, rows=self.counts.rows, file_bytes=PROBLEM_BYTES * self.counts.rows)
        if last == "pair":
            pairs = self.pairs(stage)
            size = ID_BYTES * 2 * pairs.all * self._sample_length
            return Work(stage, rows=pairs.all, file_bytes=round(size))
        if last == "select":
            rows, tokens = self.examples(stage)
            return Work(stage, rows=rows, file_bytes=round(ID_BYTES * tokens))
        if last in ("sft", "dpo"):
            return self._sft(stage) if last == "sft" else self._dpo(stage)
        return Work(stage)

    @property
    def questions(self) -> Sequence[SetCount]:
        """U: the labelled questions and the further ones."""
        return self.counts.train, self.counts.unlabelled

    @functools.cached_property
    def _gold_length(self) -> float:
        """Mean gold rationale of L; the limit where it has none that fits."""
        limit = self.config.training.max_target_tokens
        known = [tokens for tokens in self.counts.train.golds if 0 < tokens <= limit]
        return sum(known) / len(known) if known else float(limit)

    @property
    def _sample_length(self) -> float:
        return self.guess.length(self._gold_length, self.config.sampling.max_new_tokens)

    def _drawn(self, stage: str) -> Work:
        """K samples of every question of U; a prompt is read once."""
        rows = sum(one.rows for one in self.questions)
        samples = rows * self._samples_a_question(stage)
        return _sampled(stage, rows, samples, sum(sum(one.prompts) for one in self.questions), self._sample_length)

    def _samples_a_question(self, stage: str) -> int:
        return self.config.sampling.samples_a_question(
            stage.rpartition("/")[2], matched=_place(stage)[0] == "st-matched"
        )

    def _greedy(self, stage: str) -> Work:
        """One answer a problem: evaluation and validation."""
        is_base, name = stage.startswith("0-base/"), stage.rpartition("/")[2]
        found = self.counts.validation if name == "validate" else self.counts.tests.get(name, SetCount())
        first = self.config.evaluation.without_calculator_rows if "-without-calculator/" in stage else None
        prompts = (found.base_prompts if is_base else found.prompts)[:first]
        limit = self.config.evaluation.max_new_tokens or self.config.sampling.max_new_tokens
        length = self.guess.length(found.mean_gold or self._gold_length, limit)
        return _sampled(
            stage, len(prompts), len(prompts), sum(prompts), self.guess.of_limit * limit if is_base else length
        )

    def examples(self, stage: str) -> tuple[int, int]:
        """Rows of a select stage, and their tokens, prompts included."""
        if self.run is not None and self.run.is_done(stage):
            found = self.run.examples(stage)
            return len(found), sum(len(row.prompt_ids) + len(row.target_ids) for row in found)
        limit, train = self.config.training.max_target_tokens, self.counts.train
        gold = [p + g for p, g in zip(train.prompts, train.golds, strict=True) if 0 < g <= limit]
        labels = 0 if stage == "0-warmup/select" else self._labels(stage)
        length = min(self._sample_length, limit)
        return len(gold) + labels, sum(gold) + round(labels * (self._mean_prompt + length))

    @property
    def _mean_prompt(self) -> float:
        rows = sum(one.rows for one in self.questions)
        return sum(sum(one.prompts) for one in self.questions) / max(rows, 1)

    def _with_gold(self) -> tuple[int, int]:
        """Questions of U that have a gold rationale, and those that have none."""
        with_gold = sum(tokens > 0 for tokens in self.counts.train.golds)
        return with_gold, sum(one.rows for one in self.questions) - with_gold

    def _labels(self, stage: str) -> int:
        (arm, iteration), labels = _place(stage), self.config.labels
        number = iteration if labels.pool == "all" else 1
        pool = number * self._samples_a_question(stage.replace("/select", "/sample-for-labels"))
        if labels.reuse_samples_for_pairs and self.config.method == "dpo-st" and not arm:
            pool += number * self.config.sampling.samples_for_pairs
        most, likely = (num_labels(guess, self.config.labels, pool, *self._with_gold()) for guess in (HIGH, self.guess))
        return min(most, round(likely * self._seen("select")))

    def pairs(self, stage: str) -> Pairs:
        """What a pair stage that is not finished will make."""
        number = _place(stage)[1] if self.config.pairs.pool == "all" else 1
        pool = number * self.config.sampling.samples_for_pairs
        found_pairs = num_pairs(self.guess, self.config.pairs, pool, *self._with_gold())
        questions = min(sum(self._with_gold()), round(found_pairs.questions * self._seen("pair")))
        return dataclasses.replace(found_pairs, questions=questions)

    def _seen(self, kind: str) -> float:
        """The newest finished stage's labels or pairs over what was likely there; 1 for bounds, or without any."""
        if self.run is None or self.guess.name != "likely":
            return 1.0
        done = [stage for stage in self.run.manifests if stage.endswith(f"-iteration/{kind}")]
        if not done:
            return 1.0
        newest = done[-1]
        plain = Estimator(self.config, self.counts, self.guess)
        was = self.run.figures(newest)["pairs" if kind == "pair" else "pseudo_labels"]
        likely = plain.pairs(newest).all if kind == "pair" else plain._labels(newest)
        return float(was) / likely if likely else 1.0

    def _sft(self, stage: str) -> Work:
        """As many tokens as its steps hold, at the mean of its rows."""
        settings, steps = self.config.training.sft, None
        if stage == "baseline-sft-matched/sft-matched/sft":
            last = "0-warmup/sft" if self.config.method == "sft" else f"{self.config.schedule.iterations}-iteration/sft"
            steps = self.work(last).steps
        source = "0-warmup/select" if steps is not None else stage.replace("/sft", "/select")
        rows, tokens = self.examples(source)
        steps = steps or settings.max_steps
        total = steps * settings.batch_size if steps else max(1, round(settings.epochs * rows))
        steps = steps or -(-total // settings.batch_size)
        trained = round(total * tokens / rows) if rows else 0
        return Work(stage, rows=rows, steps=steps, trained_tokens=trained, file_bytes=STEP_BYTES * steps)

    def _dpo(self, stage: str) -> Work:
        """The pairs that are there, or those of the guess.

        Where `max_steps` binds, few pairs a question make more tokens than many, so the high guess tries each number.
        """
        source = stage.replace("/dpo", "/pair")
        if self.run is not None and self.run.is_done(source):
            return self._dpo_on_made(stage, self.run.pairs(source))
        pairs = self.pairs(source)
        numbers = range(1, pairs.each + 1) if self.guess.name == "high" else (pairs.each,)
        tried = [self._dpo_on(stage, dataclasses.replace(pairs, each=each)) for each in numbers if pairs.all]
        most = max(tried, key=lambda work: work.tokens, default=Work(stage))
        return dataclasses.replace(most, rows=pairs.all, steps=max((work.steps for work in tried), default=0))

    def _dpo_on_made(self, stage: str, pairs: Sequence[Pair]) -> Work:
        """Pairs that were made, each question with its own completions under a prompt of mean length."""
        sides: dict[str, set[tuple[int, ...]]] = {}
        for pair in pairs:
            sides.setdefault(pair.problem_id, set()).update((tuple(pair.chosen_ids), tuple(pair.rejected_ids)))
        sizes = collections.Counter(pair.problem_id for pair in pairs)
        tokens = [
            (1 if self.trees else len(found)) * self._mean_prompt + sum(map(len, found)) for found in sides.values()
        ]
        return self._dpo_steps(stage, [sizes[name] for name in sides], tokens)

    def _dpo_on(self, stage: str, pairs: Pairs) -> Work:
        """Questions that are all alike."""
        completions = min(pairs.completions, 2 * pairs.each)
        prompts = 1 if self.trees else completions
        a_question = prompts * self._mean_prompt + completions * self._sample_length
        return self._dpo_steps(stage, [pairs.each] * pairs.questions, [a_question] * pairs.questions)

    def _dpo_steps(self, stage: str, sizes: Sequence[int], tokens: Sequence[float]) -> Work:
        """Whole questions in batches; a reference pass and one after training over those that a step reaches.

        `sizes` are the questions' pairs, `tokens` what a forward of each computes.
        """
        settings = self.config.training.dpo
        batches = group_batches(sizes, settings.batch_size, settings.max_epochs, settings.max_steps, 0) if sizes else []
        return Work(
            stage,
            rows=sum(sizes),
            steps=len(batches),
            trained_tokens=round(sum(tokens[item] for batch in batches for item in batch)),
            forwarded_tokens=round(2 * sum(tokens[item] for item in {item for batch in batches for item in batch})),
            file_bytes=2 * STEP_BYTES * len(batches),
        )


def _sampled(stage: str, rows: int, samples: int, prompt_tokens: int, length: float) -> Work:
    written = round(samples * length)
    return Work(
        stage, rows=rows, samples=samples, prompt_tokens=prompt_tokens, sampled_tokens=written,
        file_bytes=round(COMPLETION_BYTES * written),
    )  # fmt: skip


def _place(stage: str) -> tuple[str, int]:
    """Arm ("" for the main one) and iteration of a stage."""
    found = _AT.match(stage)
    return ((found["arm"] or ""), int(found["number"])) if found else ("", 0)


def _corrected(guess: Guess, config: RunConfig, counts: SetCounts, run: RunFiles) -> Guess:
    """The guess with lengths as the finished stages have them, give or take a tenth."""
    spread = {"low": 1 - SEEN_SPREAD, "likely": 1.0, "high": 1 + SEEN_SPREAD}[guess.name]
    plain = Estimator(config, counts, dataclasses.replace(guess, of_gold=1.0, of_limit=1.0))
    ratios: dict[bool, float | None] = {}
    for is_base in (True, False):
        done = [s for s in run.manifests if kind_of(s) == "sampling" and s.startswith("0-base/") == is_base]
        expected = sum(plain.work(stage).sampled_tokens for stage in done)
        was = sum(int(run.figures(stage)["generated_tokens"]) for stage in done)
        ratios[is_base] = spread * was / expected if expected else None
    of_gold, of_limit = ratios[False] or guess.of_gold, ratios[True] or guess.of_limit
    return dataclasses.replace(guess, of_gold=of_gold, of_limit=min(1.0, of_limit))
