"""Several processes that carry out one run together, as a launcher starts them.

    accelerate launch --multi_gpu --num_processes 4 -m selftrain run quickstart
    torchrun --nproc-per-node 4 -m selftrain run quickstart     # the same; on CPUs take this one

    team = join()               # without a launcher a team of one, for which nothing here does anything
    if team.is_main: ...        # one process writes
    team.wait()                 # until every process is here
    team.any(flag)              # whether it holds in any of them
    team.add(tensors)           # summed over all, in place

Every process runs the same loop over the same files. Sampling shares out shards, training the micro-batches of
each effective batch; everything else is the main process's, and the others wait for its files. A process that
fails ends, and the launcher ends the rest. Left out: several machines without a common disk.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Team:
    """The processes of a run, seen from one of them. `device` is where its messages must lie."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        self.any(False)

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in any process. All must ask."""
        if self.size == 1:
            return flag
        import torch

        told = torch.tensor([float(flag)], device=self.device)
        self.add([told])
        return bool(told.item() > 0)

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Sum each tensor over the processes, in place; all hold the same number afterwards."""
        if self.size == 1:
            return
        import torch.distributed as distributed

        for tensor in tensors:
            distributed.all_reduce(tensor)


ALONE = Team()


@functools.cache
def join() -> Team:
    """This process's team, from the launcher's environment."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    import torch

    # A group that lives until the interpreter ends takes the process with it now and then (SIGABRT in gloo's thread,
    # whose last tensor wants the interpreter's lock). So it is destroyed before, which works only while nobody else
    # holds it: this module, imported later, would keep it in default arguments.
    import torch.distributed.nn

    device = "cpu"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        device = "cuda"
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
        atexit.register(torch.distributed.destroy_process_group)
    return Team(torch.distributed.get_rank(), size, device)
