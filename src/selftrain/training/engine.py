"""What `fit` trains with: accelerate's engine in a precision on a device, and AdamW over fp32 master weights."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import nn

from selftrain.config import OptimizerConfig
from selftrain.errors import ConfigError
from selftrain.hardware import available_memory_bytes
from selftrain.memory import WAY_OUT
from selftrain.training.checkpoint import trainable


def make_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (betas 0.9 and 0.999, eps 1e-8) over what takes gradients; matrices decay, vectors don't."""
    parameters = [parameter for _, parameter in trainable(module)]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = device_of(module).type in ("cpu", "cuda")
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=0.0,  # every step sets its own
        betas=(0.9, 0.999),
        eps=1e-8,
        fused=fused,
    )


def check_weights(module: nn.Module) -> None:
    """Updates below 1 in 256 vanish in bf16 weights, so only fp32 master weights are trained."""
    for name, parameter in trainable(module):
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name}: expected fp32 master weights, got {parameter.dtype}; load with precision='fp32'")


def check_memory(module: nn.Module, num_shares: int) -> None:
    """Refuse a training whose gradients and optimiser state (12 bytes a trained weight) the device cannot hold.

    Args:
        num_shares: processes that share them out.

    Raises:
        ConfigError: with both numbers and the way out.
    """
    needed = 12 * sum(parameter.numel() for _, parameter in trainable(module)) // num_shares
    device = device_of(module)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory_bytes()
    if device.type in ("cpu", "cuda") and free is not None and needed > free:
        raise ConfigError(
            f"Training {num_shares * needed / 12e6:,.1f} million weights needs {needed / 1e9:,.1f} GB more for "
            f"gradients and AdamW's state, {free / 1e9:,.1f} GB are free.",
            WAY_OUT,
        )


def device_of(module: nn.Module) -> torch.device:
    """Where the module's weights are."""
    return next(module.parameters()).device


def make_accelerator(precision: str, device: torch.device) -> Accelerator:
    """An accelerator in this precision on this device, whatever an earlier training in the process used.

    accelerate keeps one shared state a process and refuses to change it, so it is reset where it differs.
    """
    mixed_precision = "bf16" if precision == "bf16" else "no"
    if PartialState._shared_state and PartialState().device.type != device.type:
        AcceleratorState._reset_state(reset_partial_state=True)
    elif AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=mixed_precision, cpu=device.type == "cpu", device_placement=False)
