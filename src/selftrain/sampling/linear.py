"""Products with weights that stay the same for a whole generation: several linear layers as one, packed once.

    qkv = Product(attention.q_proj, attention.k_proj, attention.v_proj)
    out = qkv(hidden)       # [N, sum of the layers' outputs]

On a CPU, oneDNN keeps the weights in the order in which its kernels read them: 1.2 to 1.4 times the speed of a plain
product at 64 to 192 rows (measured, docs/log.md), for a second copy of the weights in memory. Elsewhere the layers'
weights are put side by side and become views of the whole: no second copy, and the module still runs as before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.hardware import cpu_has_bf16


class Product:
    """Linear layers of one input, side by side."""

    def __init__(self, *layers: Any) -> None:
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = side_by_side(biases) if biases else None
        weights = [layer.weight for layer in layers]
        self.dtype = weights[0].dtype
        self.is_packed = can_pack(weights[0])
        self.weight = pack(weights) if self.is_packed else side_by_side(weights)

    def __call__(self, hidden: Tensor) -> Tensor:
        """[N, D] -> [N, sum of outputs]."""
        hidden = hidden.to(self.dtype)
        if self.is_packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "none", [], "")
            return out
        return functional.linear(hidden, self.weight, self.bias)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN's packed products are there for this weight, in hardware."""
    ops = torch.ops.mkldnn
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and cpu_has_bf16())


@torch.no_grad()
def pack(weights: Sequence[Tensor]) -> Tensor:
    """The weights' rows in order, in oneDNN's layout (opaque: good for `Product` only)."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(torch.cat([weight.detach() for weight in weights]))
    return packed


@torch.inference_mode(False)
@torch.no_grad()
def side_by_side(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One tensor that holds the parameters' rows in order; each parameter becomes a view of its own rows."""
    first = parameters[0].detach()
    ends = itertools.accumulate((parameter.nbytes for parameter in parameters), initial=first.data_ptr())
    shares = all(p.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for p in parameters)
    if shares and all(parameter.data_ptr() == end for parameter, end in zip(parameters, ends, strict=False)):
        rows = sum(len(parameter) for parameter in parameters)
        return first.as_strided((rows, *first.shape[1:]), first.stride())
    whole = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, part in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
        parameter.data = part
    return whole
