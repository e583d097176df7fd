"""Random streams derived by hash, so that no two streams of a run overlap.

`derive_seed(root, "sample", stage, problem_id, k)` names a stream by what it is for. Never
`seed + i`: neighbouring seeds of that kind give overlapping draws.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SeedPart = str | int


def derive_seed(*parts: SeedPart) -> int:
    """A 63-bit seed from the parts that name a stream.

    >>> derive_seed(0, "sample", "q1", 0) != derive_seed(0, "sample", "q1", 1)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(*parts: SeedPart) -> random.Random:
    """A `random.Random` of its own for the stream that the parts name."""
    return random.Random(derive_seed(*parts))


def uniforms(seeds: NDArray[np.uint64] | Sequence[int], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, position): counter-based, so rows are independent.

    Args:
        seeds: [B] one stream a row.
        positions: [B] how many draws the row has made before this one.

    The mixing is splitmix64's finaliser, applied to the seed and again after the position is added.
    """
    with np.errstate(over="ignore"):
        state = _mix64(np.asarray(seeds, dtype=np.uint64))
        state = _mix64(state + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix64(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
