"""Static key/value storage with one slot a row, and attention over it.

    cache = SlotCache(num_slots, length, num_layers, kv_heads, width, dtype, device)
    cache.put(layer, keys, values, owners, slots)     # prefill: whole prompts into their slots
    cache.begin(batch)                                # then, once a forward and layer by layer:
    cache.write(layer, key, value)
    out = cache.attend(layer, query, mask)

Rows start at position 0 and have lengths of their own, so a slot is refilled without moving its neighbours. A
forward brings R slots' newest tokens and E earlier tokens of forced runs (`Batch`): the first R read the
storage where it lies, the E gather their slot's part, which is a copy, but of few rows.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

KV_ROUND = 32  # attention reads storage up to the longest row, rounded up to this many tokens
KV_ROUND_GPU = 128  # there, few shapes matter more than few bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Tokens of one forward, N = R + E: slots 0 .. R - 1 in order, then E earlier tokens of some of these slots."""

    tokens: Tensor  # [N]
    positions: Tensor  # [N]
    slots: Tensor  # [N]
    num_rows: int  # R
    longest: int  # positions in use after this forward

    @property
    def extra_slots(self) -> Tensor:
        """[E]."""
        return self.slots[self.num_rows :]


class SlotCache:
    """Keys and values [slots, heads, length, width] a layer, allocated once."""

    def __init__(
        self,
        num_slots: int,
        length: int,
        num_layers: int,
        heads: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_slots, self.length = num_slots, length
        shape = (2, num_layers, num_slots, heads, length, width)
        self.storage = zeros(shape, dtype, device)
        self.keys, self.values = (list(part) for part in self.storage)

    def begin(self, batch: Batch) -> None:
        """Say which tokens the next writes and reads are of."""
        self.batch = batch
        self.visible = rounded(batch.longest, self.length, batch.positions.device)

    def causal_mask(self, span: int | None = None) -> Tensor:
        """[N, visible]: what each token may look at, with `span` no more than so many tokens, its own among them."""
        columns = torch.arange(self.visible, device=self.batch.positions.device)[None, :]
        positions = self.batch.positions[:, None]
        mask = columns <= positions
        return mask if span is None else mask & (columns > positions - span)

    def write(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Store key and value [N, H, D] of this forward's tokens."""
        self.keys[layer][self.batch.slots, :, self.batch.positions] = key
        self.values[layer][self.batch.slots, :, self.batch.positions] = value

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """What each of the N tokens may look at, [N, H, visible, D]; a copy where there are forced runs."""
        rows, extra = self.batch.num_rows, self.batch.extra_slots
        keys, values = self.keys[layer][:, :, : self.visible], self.values[layer][:, :, : self.visible]
        if not len(extra):
            return keys[:rows], values[:rows]
        return torch.cat([keys[:rows], keys[extra]]), torch.cat([values[:rows], values[extra]])

    def attend(
        self, layer: int, query: Tensor, mask: Tensor, *, scale: float | None = None, width: int | None = None
    ) -> Tensor:
        """Attention of query [N, H, G, D], G query heads sharing a key head, under mask [N, 1 or H, 1, width].

        `width` is how much of the storage is read; by default what `begin` found."""
        rows, extra = self.batch.num_rows, self.batch.extra_slots
        size = width or self.visible
        keys, values = self.keys[layer][:, :, :size], self.values[layer][:, :, :size]
        parts = []
        if rows:
            parts.append((query[:rows], keys[:rows], values[:rows], mask[:rows]))
        if len(extra):
            parts.append((query[rows:], keys[extra], values[extra], mask[rows:]))
        out = [functional.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=scale) for q, k, v, m in parts]
        return out[0] if len(out) == 1 else torch.cat(out)

    def put(self, layer: int, keys: Tensor, values: Tensor, owners: Tensor, slots: Tensor) -> None:
        """Store prompts' keys and values [P, H, T, D]: slot `slots[i]` gets those of prompt `owners[i]`."""
        size = keys.shape[2]
        self.keys[layer][slots, :, :size] = keys[owners]
        self.values[layer][slots, :, :size] = values[owners]

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy slots: their first `length` positions."""
        layers = self.storage[:, :, :, :, :length].flatten(0, 1)  # [2 L, slots, H, length, D]
        at_once = 1 if layers.device.type == "cpu" else len(layers)  # what is copied lies twice in memory meanwhile
        for part in layers.split(at_once):
            part[:, list(targets)] = part[:, list(sources)]


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Storage of zeros. In main memory the system gives a page when it is first written, so that what rows do not
    reach costs nothing (`torch.zeros` writes all, `numpy.zeros` asks for pages of 2 MB)."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(*shape)


def storage_bytes(num_slots: int, length: int, num_layers: int, heads: int, width: int, dtype: torch.dtype) -> int:
    """Bytes that a `SlotCache` of this shape takes."""
    return 2 * num_layers * num_slots * heads * length * width * dtype.itemsize


def rounded(length: int, limit: int, device: torch.device) -> int:
    """`length` rounded up, at most to `limit`, so that shapes come back."""
    step = KV_ROUND if device.type == "cpu" else KV_ROUND_GPU
    return min(-(-length // step) * step, limit)
