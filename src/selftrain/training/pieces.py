"""Norms and gates of Llama-type models in training, on a CPU: one pass each in C, forwards and backwards.

    undo = fuse(module)          # does nothing where it does not apply
    ...                          # forwards and backwards as before, the same numbers to rounding
    undo()

torch's own norm is seven passes, keeps a normed fp32 copy, and under autocast each product after it casts that copy
anew and keeps it; here the norm is written once, in the type that the products take. The gate keeps no silu(gate).
Leaves out: T5, GPUs (`compiling.py`), weights that are not fp32 (frozen under adapters, gathered from other processes).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.models import has_compiled_blocks
from selftrain.native import library, pointers, sizes, threads
from selftrain.sampling.llama_body import MODEL_TYPES

SUFFIX = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def fuse(module: nn.Module) -> Callable[[], None]:
    """Have a model's norms and gates computed here; returns what takes that back."""
    config: Any = module.config
    found = None
    if config.model_type in MODEL_TYPES and config.hidden_act == "silu" and not has_compiled_blocks(module):
        on_cpu = next(module.parameters()).device.type == "cpu"
        found, _ = library("training", "kernels.c") if on_cpu else (None, "")
    if found is None:
        return lambda: None
    base: Any = module.base_model
    norms = [
        base.norm,
        *(norm for layer in base.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)),
    ]
    mlps = [layer.mlp for layer in base.layers]
    for norm in norms:
        norm.forward = _norm_forward(found, norm, norm.forward)
    for mlp in mlps:
        mlp.forward = _mlp_forward(found, mlp)

    def undo() -> None:
        for part in (*norms, *mlps):
            del part.forward  # the class's is there again

    return undo


def _norm_forward(found: ctypes.CDLL, norm: Any, plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(hidden: Tensor) -> Tensor:
        if hidden.dtype != torch.float32 or norm.weight.dtype != torch.float32:
            return plain(hidden)
        out: Tensor = _Norm.apply(hidden, norm.weight, norm.variance_epsilon, _wanted(), found)  # type: ignore[no-untyped-call]
        return out

    return forward


def _wanted() -> torch.dtype:
    """What products take: autocast's type within it, else fp32."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def _mlp_forward(found: ctypes.CDLL, mlp: Any) -> Callable[[Tensor], Tensor]:
    def forward(hidden: Tensor) -> Tensor:
        out: Tensor = mlp.down_proj(_SwiGLU.apply(mlp.gate_proj(hidden), mlp.up_proj(hidden), found))  # type: ignore[no-untyped-call]
        return out

    return forward


class _Norm(torch.autograd.Function):
    """y = w x r with r = 1 / sqrt(mean(x^2) + eps); back: dx = r w dy - x r^3 mean(w dy x), dw = sum of dy x r."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype, found: Any) -> Tensor:
        hidden = hidden.contiguous()
        size = hidden.shape[-1]
        rows = hidden.numel() // size
        out, inverse = torch.empty_like(hidden, dtype=dtype), hidden.new_empty(rows)
        getattr(found, f"norm_{SUFFIX[dtype]}")(
            *pointers(hidden.detach(), weight.detach(), out, inverse),
            *sizes(rows, size),
            ctypes.c_float(epsilon),
            threads(),
        )
        ctx.save_for_backward(hidden, weight, inverse)
        ctx.found = found
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden, weight, inverse = ctx.saved_tensors
        gradient = gradient.contiguous()
        size = hidden.shape[-1]
        to_hidden, to_weight = torch.empty_like(hidden), hidden.new_zeros(threads().value, size)
        getattr(ctx.found, f"norm_back_{SUFFIX[gradient.dtype]}")(
            *pointers(gradient, hidden, weight, inverse, to_hidden, to_weight),
            *sizes(hidden.numel() // size, size), threads(),
        )  # fmt: skip
        return to_hidden, to_weight.sum(0), None, None, None


class _SwiGLU(torch.autograd.Function):
    """silu(gate) * up; keeps both and nothing else."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, found: Any) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        out = torch.empty_like(gate)
        getattr(found, f"swiglu_{SUFFIX[gate.dtype]}")(*pointers(gate, up, out), *sizes(gate.numel()), threads())
        ctx.save_for_backward(gate, up)
        ctx.found = found
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        gradient = gradient.contiguous()
        to_gate, to_up = torch.empty_like(gate), torch.empty_like(up)
        getattr(ctx.found, f"swiglu_back_{SUFFIX[gate.dtype]}")(
            *pointers(gradient, gate, up, to_gate, to_up), *sizes(gate.numel()), threads()
        )
        return to_gate, to_up, None
