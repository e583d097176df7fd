"""Weights, gradients and AdamW's state shared out over a team's processes: FSDP2, torch's `fully_shard`.

    shard(root, module, team)          # before the optimiser is made; `root` wraps the module and is what is called
    whole(parameter)                   # an ordinary tensor again; every process must ask
    placed_like(parameter, tensor)     # this process's part of a whole tensor

Each block of the model (the classes that transformers says not to split), and the rest of it, gathers its weights
before it computes and drops them afterwards. Gradients are summed, not averaged: every micro-batch carries the whole
effective batch's denominator. What is measured, saved and delivered is the same as without. In bf16 the fp32 master
weights are gathered as bf16, norms included; gradients are summed in fp32. Left out: adapters (they fit one device),
and a first load that holds less than the whole model a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.config import TrainingConfig
from selftrain.errors import ConfigError
from selftrain.models import blocks_of
from selftrain.processes import Team


def check_sharding(config: TrainingConfig, num_processes: int) -> None:
    """Refuse sharding for a single process, and of adapters, before any work.

    Raises:
        ConfigError: with the way out.
    """
    if not config.sharded:
        return
    if num_processes == 1:
        raise ConfigError(
            "training.sharded=true shares the weights out over several processes, and this is one.",
            "Start it with torchrun --nproc-per-node N -m selftrain run ..., or leave sharded off.",
        )
    if config.lora.rank:
        raise ConfigError(
            f"training.sharded=true and training.lora.rank={config.lora.rank}: adapters cannot be sharded.",
            "Take one of the two.",
        )
    from torch.distributed.fsdp import FSDPModule

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError(f"training.sharded=true needs a newer torch than {torch.__version__}.", "Take 2.9 or newer.")


def shard(root: nn.Module, module: nn.Module, team: Team, precision: str) -> None:
    """Share out the module's weights, in place; `root` holds it and must be what is called from now on."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(team.device, (team.size,))
    # autocast's own copies of gathered weights would stay until the backward pass, as if nothing were shared out
    policy = MixedPrecisionPolicy(torch.bfloat16 if precision == "bf16" else None, reduce_dtype=torch.float32)
    for part in blocks_of(module):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    # without reshard_after_forward a forward alone would leave the rest gathered
    fully_shard(root, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for part in root.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or gathered from all processes where it is shared out."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def placed_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, shared out as the parameter is."""
    place: Any = parameter
    if not hasattr(place, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(place.device), place.device_mesh, place.placements)


def whole_weights(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The module's whole state on the CPU, tied weights once; every process must ask, those with `keep` get it."""
    found: dict[str, Tensor] = {}
    persistent = module.state_dict()
    named: Iterable[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in named:
        if name in persistent:
            gathered = whole(tensor.detach())
            if keep:
                found[name] = gathered.to("cpu", copy=True)
    return found


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` was called on it."""
    return hasattr(next(module.parameters()), "full_tensor")


def barred_from_memory_errors(error: Exception) -> ConfigError:
    """What to say where memory runs out: a process that tries again alone would leave the others waiting."""
    return ConfigError(
        f"out of memory with sharded weights ({(str(error) or type(error).__name__).splitlines()[0]}).",
        "Lower training.micro_batch_tokens, set training.gradient_checkpointing=true, or add processes.",
    )
