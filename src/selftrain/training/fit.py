"""The one optimisation loop, for every objective, on accelerate.

    result = fit(module, SFTObjective(...), folder=run / "sft", precision="bf16", model_digest=model.digest)

The module holds fp32 master weights and is trained in place; "bf16" computes under autocast. AdamW, linear
warm-up and cosine, clipping, and accumulation that gives the effective batch's gradient however the batch
is cut. `folder` gets `train-log.jsonl`, `checkpoint/` and `constants/`; call it again with the same
arguments and the same start weights, and it goes on from the newest checkpoint, bitwise as if unbroken
(fp32, CPU, same thread count and micro-batches). Call `clear_checkpoints` once the result is safe elsewhere.

Each step seeds torch's generators from (seed, step), so that dropout needs no stored state; the caller's
generators are re-seeded by that. Weight decay leaves vectors out (norms, biases), as usual. Left out as
yet: sharded weights, trackers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from selftrain.errors import SelftrainError, UserError
from selftrain.processes import ALONE, Team
from selftrain.training import checkpoint
from selftrain.training.batches import MicroBatch
from selftrain.training.engine import check_memory, check_weights, device_of, make_accelerator, make_optimizer
from selftrain.training.gradients import Gradients
from selftrain.training.objective import Objective, json_digest
from selftrain.training.schedule import learning_rate
from selftrain.training.steplog import Row, StepLog

Precision = Literal["fp32", "bf16"]
OnStep = Callable[[int, int, Row], None]
LOG_NAME = "train-log.jsonl"
NAMES_SHOWN = 20


class Interrupted(SelftrainError):
    """Training stopped because it was asked to; a checkpoint is there, unless no step was done."""


class NonFiniteError(UserError):
    """A loss or gradient that is NaN or infinite; the step was not applied."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a training did.

    `trained_tokens` and `forward_tokens` count real prompt and target tokens with and without gradient
    (6 N and 2 N FLOPs each), over all starts of this training; `seconds` is their wall time. `first` and
    `last` are log rows, each measured before its step's update; `final` the objective's statistics after
    training (DPO only). `notes` says what was found unusable on resume.
    """

    steps: int
    trained_tokens: int
    forward_tokens: int
    seconds: float
    first: Row
    last: Row
    final: dict[str, float]
    resumed_from_step: int
    notes: tuple[str, ...] = ()


def fit(
    module: nn.Module,
    objective: Objective,
    *,
    folder: Path,
    precision: Precision = "fp32",
    model_digest: str = "",
    checkpoint_every_s: float = 300.0,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    team: Team = ALONE,
) -> FitResult:
    """Train `module` in place and leave it in evaluation mode.

    Args:
        module: fp32 weights, on the device to train on.
        folder: for the log and checkpoints; may hold those of an earlier start.
        model_digest: of the start weights; a checkpoint of other start weights is not used.
        on_step: called after each step with (step from 1, number of steps, log row).
        team: the processes that train together, each with the same module; the main one writes.
        should_stop: asked after each step and between forwards; true -> checkpoint, then `Interrupted`.

    Raises:
        Interrupted: as asked for.
        ConfigError: gradients and optimiser state cannot fit in memory.
        NonFiniteError: NaN or infinite loss or gradient; names the step and the rows.
        RunError: a checkpoint could not be written.
    """
    training = _Training(module, objective, folder, precision, model_digest, checkpoint_every_s, should_stop, team)
    try:
        return training.run(on_step)
    finally:
        training.close()


def clear_checkpoints(folder: Path) -> None:
    """Remove what only a resume needs; the log stays."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    shutil.rmtree(folder / "constants", ignore_errors=True)


class _Training:
    """The state of one training: what `fit` would otherwise hand from function to function."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        folder: Path,
        precision: Precision,
        model_digest: str,
        checkpoint_every_s: float,
        should_stop: Callable[[], bool] | None,
        team: Team,
    ) -> None:
        self.team = team
        self.module, self.objective, self.folder = module, objective, folder
        self.checkpoint_every_s, self.should_stop = checkpoint_every_s, should_stop
        check_weights(module)
        check_memory(module)
        self.digest = _training_digest(module, objective, precision, model_digest)
        self.accelerator = make_accelerator(precision, device_of(module))
        self.optimizer = make_optimizer(module, objective.config)
        self.gradients = Gradients(self.accelerator, module, objective, team)
        self.stepper = self.accelerator.prepare(self.optimizer)
        self.step = self.saved_step = self.trained_tokens = 0
        self.earlier_s = 0.0
        self.started = self.saved_at = time.monotonic()
        self.notes: list[str] = []
        self.log: StepLog | None = None

    def run(self, on_step: OnStep | None) -> FitResult:
        self._measure_constants()
        self._resume()
        resumed, num_steps = self.step, self.objective.plan.num_steps
        self.log = log = StepLog(self.folder / LOG_NAME, self.step, writes=self.team.is_main)
        self.objective.set_mode(self.module)
        while self.step < num_steps:
            row = self._train_step(num_steps)
            log.append(row)
            if on_step is not None:
                on_step(self.step, num_steps, row)
            self._stop_if_asked()
            if self.team.any(self._is_time_to_save()) and self.step < num_steps:
                self._save()
        final = self.objective.after(self.module, self._measuring)
        return FitResult(
            steps=self.step,
            trained_tokens=self.trained_tokens,
            forward_tokens=self.objective.forward_tokens,
            seconds=self._seconds(),
            first=log.first,
            last=log.last,
            final=final,
            resumed_from_step=resumed,
            notes=(*self.notes, *self.gradients.notes),
        )

    def close(self) -> None:
        """Leave the module in evaluation mode, without gradients, and held by nothing here."""
        if self.log is not None:
            self.log.close()
        self.module.zero_grad(set_to_none=True)
        self.module.eval()
        self.gradients.close()

    def _is_time_to_save(self) -> bool:
        return self.team.is_main and time.monotonic() - self.saved_at >= self.checkpoint_every_s

    def _train_step(self, num_steps: int) -> Row:
        """Forward and backward over the effective batch, then one update. Returns the log row."""
        started = time.monotonic()
        config, step = self.objective.config, self.step + 1
        micro_batches, losses, sums = self.gradients.of_step(step)
        norm = float(self.accelerator.clip_grad_norm_(self.module.parameters(), config.max_grad_norm))
        self._check_finite(step, micro_batches, losses, norm)
        rate = learning_rate(
            step,
            num_steps,
            peak=config.learning_rate,
            warmup_fraction=config.warmup_fraction,
            final_lr_fraction=config.final_lr_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.stepper.step()
        self.stepper.zero_grad()
        self.step = step
        tokens = sum(micro_batch.tokens for micro_batch in micro_batches)
        seconds = time.monotonic() - started
        self.trained_tokens += tokens
        return {
            "step": step,
            "loss": math.fsum(losses),
            **self.objective.report(sums),
            "learning_rate": rate,
            "grad_norm": norm,
            "tokens": tokens,
            "padded_tokens": sum(micro_batch.padded_tokens for micro_batch in micro_batches),
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
        }

    def _check_finite(self, step: int, micro_batches: Sequence[MicroBatch], losses: list[float], norm: float) -> None:
        bad = [batch for batch, loss in zip(micro_batches, losses, strict=True) if not math.isfinite(loss)]
        if not bad and math.isfinite(norm):
            return
        what = "loss" if bad else "gradient"
        names = self.objective.names(item for batch in bad or micro_batches for item in batch.items)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        raise NonFiniteError(
            f"{self.objective.name} step {step}: expected a finite {what}, got NaN or infinity; "
            f"rows of {', '.join(names[:NAMES_SHOWN])}{more}. The step was not applied.",
            "Lower the learning rate, use compute.precision=fp32, or look at these rows.",
        )

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        """Around each forward without gradient: precision as in training."""
        self._stop_if_asked()
        with torch.no_grad(), self.accelerator.autocast():
            yield

    def _measure_constants(self) -> None:
        """Constants of the start weights: from disk where they were measured before, else now."""
        target = self.folder / "constants"
        found, reason = checkpoint.read_sealed(target, self.digest)
        if self.team.any(found is None) or found is None:
            if target.exists():
                self.notes.append(f"the stored constants are measured again: {reason}")
            constants = self.objective.before(self.module, self._measuring)
            if constants and self.team.is_main:
                checkpoint.write_sealed(target, self.digest, {}, {"constants": constants})
            self.objective.restore(constants)
        else:
            self.objective.restore(found.tensors["constants"])

    def _resume(self) -> None:
        found, notes = checkpoint.load_checkpoint(self.folder / "checkpoint", self.digest)
        self.notes += notes
        if found is not None:
            checkpoint.restore_tensors(self.module, self.optimizer, found.tensors)
            self.step = self.saved_step = int(found.counters["step"])
            self.trained_tokens = int(found.counters["trained_tokens"])
            self.earlier_s = float(found.counters["seconds"])
        elif notes:
            self.notes.append("training starts again from step 0")

    def _save(self) -> None:
        if self.team.is_main:
            if self.log is not None:
                self.log.sync()
            counters = {"step": self.step, "trained_tokens": self.trained_tokens, "seconds": self._seconds()}
            tensors = checkpoint.training_tensors(self.module, self.optimizer)
            checkpoint.save_checkpoint(self.folder / "checkpoint", self.digest, counters, tensors)
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def _stop_if_asked(self) -> None:
        if self.should_stop is None or not self.should_stop():
            return
        if self.step > self.saved_step:
            self._save()
        raise Interrupted(f"{self.objective.name} stopped after step {self.step}.")

    def _seconds(self) -> float:
        return self.earlier_s + time.monotonic() - self.started


def _training_digest(module: nn.Module, objective: Objective, precision: str, model_digest: str) -> str:
    """Of all that decides the outcome; micro-batching and checkpoint times are not among it."""
    parameters: list[Any] = [[name, list(parameter.shape)] for name, parameter in checkpoint.trainable(module)]
    settings = objective.config.model_dump(mode="json")
    data = [objective.name, objective.seed, objective.digest()]
    return json_digest([data, settings, precision, model_digest, parameters])
