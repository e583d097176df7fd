"""The one optimisation loop, for every objective, on accelerate.

    result = fit(module, SFTObjective(...), folder=run / "sft", precision="bf16", model_digest=model.digest)

The module holds fp32 master weights and is trained in place; "bf16" computes under autocast. AdamW, linear
warm-up and cosine, clipping, and accumulation that gives the effective batch's gradient however the batch
is cut. `folder` gets `train-log.jsonl`, `checkpoint/` and `constants/`; call it again with the same
arguments and the same start weights, and it goes on from the newest checkpoint, bitwise as if unbroken
(fp32, CPU, same thread count and micro-batches). `SCRATCH` names the folders that only a resume needs.

Each step seeds torch's generators from (seed, step), so that dropout needs no stored state; the caller's
generators are re-seeded by that. Weight decay leaves vectors out (norms, biases), as usual.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from selftrain.cost import flops
from selftrain.errors import SelftrainError
from selftrain.processes import ALONE, Team
from selftrain.training import checkpoint
from selftrain.training.engine import check_memory, check_weights, device_of, make_accelerator, make_optimizer
from selftrain.training.finite import check_finite
from selftrain.training.gradients import Gradients
from selftrain.training.objective import Forward, Objective, json_digest
from selftrain.training.pieces import fuse
from selftrain.training.schedule import learning_rate, peak_rate
from selftrain.training.sharding import whole
from selftrain.training.steplog import Row, StepLog

Precision = Literal["fp32", "bf16"]
OnStep = Callable[[int, int, Row], None]
LOG_NAME = "train-log.jsonl"
SCRATCH = ("checkpoint", "constants")  # folders that only a resume needs


class Interrupted(SelftrainError):
    """Training stopped because it was asked to; a checkpoint is there, unless no step was done."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a training did.

    `trained_tokens` and `forward_tokens` count real prompt and target tokens with and without gradient
    (6 N and 2 N FLOPs each), over all starts of this training; `seconds` is their wall time. `first` and
    `last` are log rows, each measured before its step's update; `final` the objective's statistics after
    training (DPO only). `notes` says what was found unusable on resume, and where memory ran out.
    `learning_rate` is the peak that was asked for, or that "auto" came to.
    """

    steps: int
    trained_tokens: int
    forward_tokens: int
    seconds: float
    first: Row
    last: Row
    final: dict[str, float]
    resumed_from_step: int
    learning_rate: float
    notes: tuple[str, ...] = ()


def fit(
    module: nn.Module,
    objective: Objective,
    *,
    folder: Path,
    precision: Precision = "fp32",
    model_digest: str = "",
    checkpoint_every_s: float = 300.0,
    peak_flops: float | None = None,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
    team: Team = ALONE,
    sharded: bool = False,
) -> FitResult:
    """Train `module` in place and leave it in evaluation mode.

    Args:
        module: fp32 weights, on the device to train on.
        folder: for the log and checkpoints; may hold those of an earlier start.
        model_digest: of the start weights; a checkpoint of other start weights is not used.
        peak_flops: FLOP/s of a process's matrix products; the log then has each step's share of it.
        on_step: called after each step with (step from 1, number of steps, log row).
        team: the processes that train together, each with the same module; the main one writes.
        sharded: share its weights out over the team (`sharding.py`), and leave them so.
        should_stop: asked after each step and between forwards; true -> checkpoint, then `Interrupted`.

    Raises:
        Interrupted: as asked for.
        ConfigError: gradients and optimiser state cannot fit in memory.
        NonFiniteError: NaN or infinite loss or gradient; names the step and the rows.
        RunError: a checkpoint could not be written.
    """
    training = _Training(
        module, objective, folder, precision, model_digest, checkpoint_every_s, peak_flops, should_stop, team, sharded
    )
    try:
        return training.run(on_step)
    finally:
        training.close()


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
        peak_flops: float | None,
        should_stop: Callable[[], bool] | None,
        team: Team,
        sharded: bool,
    ) -> None:
        self.team, self.peak_flops = team, peak_flops
        self.module, self.objective, self.folder = module, objective, folder
        self.checkpoint_every_s, self.should_stop = checkpoint_every_s, should_stop
        check_weights(module)
        check_memory(module, team.size if sharded else 1)
        self.digest = _training_digest(module, objective, precision, model_digest)
        self.peak = peak_rate(objective.config.learning_rate, objective.plan.num_steps, _num_parameters(module))
        self.accelerator = make_accelerator(precision, device_of(module))
        self.undo = fuse(module)
        self.gradients = Gradients(self.accelerator, module, objective, team, sharded)
        self.optimizer = make_optimizer(module, objective.config)  # of what the process keeps of the weights
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
        final = self.gradients.passing(lambda: self.objective.after(self.module, self._measure))
        return FitResult(
            steps=self.step,
            trained_tokens=self.trained_tokens,
            forward_tokens=self.objective.forward_tokens,
            seconds=self._seconds(),
            first=log.first,
            last=log.last,
            final=final,
            resumed_from_step=resumed,
            learning_rate=self.peak,
            notes=(*self.notes, *self.gradients.notes),
        )

    def close(self) -> None:
        """Leave the module in evaluation mode, without gradients, and held by nothing here."""
        if self.log is not None:
            self.log.close()
        self.module.zero_grad(set_to_none=True)
        self.module.eval()
        self.gradients.close()
        self.undo()

    def _is_time_to_save(self) -> bool:
        return self.team.is_main and time.monotonic() - self.saved_at >= self.checkpoint_every_s

    def _train_step(self, num_steps: int) -> Row:
        """Forward and backward over the effective batch, then one update. Returns the log row."""
        started = time.monotonic()
        config, step = self.objective.config, self.step + 1
        micro_batches, losses, sums = self.gradients.of_step(step)
        norm = float(whole(self.accelerator.clip_grad_norm_(self.module.parameters(), config.max_grad_norm)))
        check_finite(self.objective, step, micro_batches, losses, norm)
        rate = learning_rate(
            step,
            num_steps,
            peak=self.peak,
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
            **self._share_of_peak(tokens / seconds),
        }

    def _share_of_peak(self, tokens_per_second: float) -> Row:
        """6 N FLOPs a token (`cost.py`) over what the processes' matrix products reach."""
        if self.peak_flops is None:
            return {}
        reached = flops(_num_parameters(self.module), trained_tokens=1) * tokens_per_second
        return {"share_of_peak": reached / (self.peak_flops * self.team.size)}

    def _measure(self, forwards: Sequence[Forward]) -> list[Tensor]:
        """Forwards without gradient; precision as in training. May be stopped before each."""

        def stoppable(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
            def work() -> Tensor:
                self._stop_if_asked()
                return forward()

            return work

        return self.gradients.measure([(size, stoppable(forward)) for size, forward in forwards])

    def _measure_constants(self) -> None:
        """Constants of the start weights: from disk where they were measured before, else now."""
        target = self.folder / "constants"
        found, reason = checkpoint.read_sealed(target, self.digest)
        if self.team.any(found is None) or found is None:
            if target.exists():
                self.notes.append(f"the stored constants are measured again: {reason}")
            constants = self.gradients.passing(lambda: self.objective.before(self.module, self._measure))
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
        tensors = checkpoint.training_tensors(self.module, self.optimizer)
        if self.team.is_main:
            if self.log is not None:
                self.log.sync()
            counters = {"step": self.step, "trained_tokens": self.trained_tokens, "seconds": self._seconds()}
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


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _training_digest(module: nn.Module, objective: Objective, precision: str, model_digest: str) -> str:
    """Of all that decides the outcome; micro-batching and checkpoint times are not among it."""
    parameters: list[Any] = [[name, list(parameter.shape)] for name, parameter in checkpoint.trainable(module)]
    settings = objective.config.model_dump(mode="json")
    data = [objective.name, objective.seed, objective.digest()]
    return json_digest([data, settings, precision, model_digest, parameters])
