"""A team's forwards: one step's gradients, cut finer when memory runs out, and passes without gradient.

gradients = Gradients(accelerator, module, objective, team)
micro_batches, losses, sums = gradients.of_step(1)      # the module's .grad are those of the effective batch
values = gradients.measure([(3, forward), ...])         # of forwards without gradient, their results [3], ...
made = gradients.passing(lambda: ...)                   # of work that measures; again where memory ran out
gradients.notes                                         # what a user should know
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from selftrain.errors import SelftrainError, UserError
from selftrain.forwards import attention_of
from selftrain.hardware import is_out_of_memory
from selftrain.processes import Team
from selftrain.seeding import derive_seed
from selftrain.training.batches import MicroBatch
from selftrain.training.checkpoint import trainable
from selftrain.training.objective import Forward, Objective
from selftrain.training.sharding import barred_from_memory_errors, shard

Result = TypeVar("Result")


class NoRoom(SelftrainError):
    """Memory ran out in a forward without gradient; `Gradients.passing` tries again."""


class Accumulated(NamedTuple):
    """What a step forwarded: its micro-batches, their parts of the loss, and the objective's summed statistics."""

    micro_batches: Sequence[MicroBatch]
    losses: list[float]
    sums: dict[str, float]


class _Root(nn.Module):
    """Any work with a module as a forward of its own, so that autocast and sharding see its beginning and end."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, work: Callable[[], Any]) -> Any:
        return work()


class Gradients:
    """Accumulates a step's gradients in the module that it is given.

    A team shares out the step's micro-batches and sums what comes of them. Every micro-batch carries the whole batch's
    denominator and a dropout stream of its own, so the result does not depend on who forwards it, but for the order of
    the sum. With sharded weights all processes forward equally often: who has no micro-batch left repeats one, times 0.
    """

    def __init__(
        self, accelerator: Accelerator, module: nn.Module, objective: Objective, team: Team, sharded: bool = False
    ) -> None:
        self.accelerator, self.module, self.objective, self.team = accelerator, module, objective, team
        self.sharded = sharded
        root = _Root(module)
        if sharded:
            shard(root, module, team, "bf16" if accelerator.mixed_precision == "bf16" else "fp32")
        # evaluation_mode: autocast without a wrapper for several processes; the team sums gradients itself
        self.root = accelerator.prepare_model(root, device_placement=False, evaluation_mode=True)
        self.notes: list[str] = []

    def of_step(self, step: int) -> Accumulated:
        """Forward and backward over the effective batch of `step`, counted from 1.

        Where memory runs out the plan's micro-batches are halved, for this step and those after it; the effective batch
        and its gradient stay as they are.

        Raises:
            UserError: not even one item at a time fits.
        """
        while True:
            micro_batches = self.objective.plan.step(step - 1)
            table = self._that_fits(partial(self._accumulate, step, micro_batches))
            if table is not None:
                return self._all_of(micro_batches, table)
            self._halve(f"step {step}", micro_batches)

    def passing(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, which calls `measure` with forwards of the plan's micro-batches.

        Where memory runs out these are halved as in `of_step`, and it is called again.

        Raises:
            UserError: not even one item at a time fits.
        """
        while True:
            with contextlib.suppress(NoRoom):
                return work()
            self._halve("a pass without gradient", self.objective.plan.covering())

    def measure(self, forwards: Sequence[Forward]) -> list[Tensor]:
        """The results [R] of forwards without gradient, in fp32 on the CPU, each carried out by one process.

        Raises:
            NoRoom: memory ran out, here or in another process.
        """
        flat = self._that_fits(partial(self._forwarded, forwards))
        if flat is None:
            raise NoRoom
        flat = flat.to(self.team.device)
        self.team.add([flat])
        return list(torch.split(flat.cpu(), [size for size, _ in forwards]))

    def close(self) -> None:
        """Let go of the module: accelerate's wrapped forward is a reference cycle."""
        del self.root.module

    def _that_fits(self, work: Callable[[], Tensor]) -> Tensor | None:
        """What `work` gives; None where memory ran out in any process, and what the forward held is freed."""
        found: Tensor | None = None
        try:
            found = work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.sharded:
                raise barred_from_memory_errors(error) from error
        return None if self.team.any(found is None) else found

    def _turns(self, count: int) -> Iterator[tuple[int, bool]]:
        """This process's share of `count` forwards, and whether each counts or only keeps step with the others."""
        rounds = -(-count // self.team.size) * self.team.size if self.sharded else count
        for number in range(self.team.rank, rounds, self.team.size):
            yield min(number, count - 1), number < count

    def _forwarded(self, forwards: Sequence[Forward]) -> Tensor:
        """This process's share of the forwards' results, one after another, else zeros."""
        values = [torch.zeros(size) for size, _ in forwards]
        for number, counts in self._turns(len(forwards)):
            with torch.no_grad():
                result = self.root(forwards[number][1]).float().cpu()
            if counts:
                values[number] = result
        return torch.cat(values)

    def _accumulate(self, step: int, micro_batches: Sequence[MicroBatch]) -> Tensor:
        """Forward and backward over this process's micro-batches; a row of loss and statistics for each, else zeros."""
        seed, names = (self.objective.seed, self.objective.name, "dropout", step), self.objective.stat_names
        table = torch.zeros(len(micro_batches), 1 + len(names), dtype=torch.float64)
        for number, counts in self._turns(len(micro_batches)):
            torch.manual_seed(derive_seed(*seed, number))
            with attention_of(self.module, self.objective.plan.layout):  # gradient checkpointing computes layers again
                loss, stats = self.root(partial(self.objective.loss, self.module, micro_batches[number]))
                self.accelerator.backward(loss if counts else loss * 0.0)
            if not counts:
                continue
            table[number] = torch.stack([loss.detach(), *(stats[name] for name in names)]).cpu().double()
        return table

    def _all_of(self, micro_batches: Sequence[MicroBatch], table: Tensor) -> Accumulated:
        """The team's sums: every process has the whole gradient afterwards."""
        table = table.to(self.team.device)
        self.team.add([table])
        for _, parameter in trainable(self.module) if self.team.size > 1 and not self.sharded else ():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self.team.add([parameter.grad])
        rows = table.cpu()
        sums = dict(zip(self.objective.stat_names, rows[:, 1:].sum(0).tolist(), strict=True))
        return Accumulated(micro_batches, rows[:, 0].tolist(), sums)

    def _halve(self, where: str, micro_batches: Sequence[MicroBatch]) -> None:
        plan, name = self.objective.plan, self.objective.name
        if all(len(micro_batch.items) == 1 for micro_batch in micro_batches):
            longest = max(micro_batch.padded_tokens for micro_batch in micro_batches)
            raise UserError(
                f"{name}, {where}: the device's memory holds not even one item of {longest} tokens.",
                "Lower training.max_target_tokens, or take a smaller model.",
            )
        tokens = max(1, plan.micro_batch_tokens // 2)
        self.objective.plan = dataclasses.replace(plan, micro_batch_tokens=tokens)
        self.notes.append(
            f"out of memory in {where}; went on with training.micro_batch_tokens={tokens}, the effective batch "
            "unchanged"
        )
        self.module.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
