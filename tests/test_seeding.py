"""Streams are named, distinct and uniform."""

from __future__ import annotations

import numpy as np

from selftrain.seeding import derive_seed, stream, uniforms


def test_streams_do_not_overlap() -> None:
    seeds = {derive_seed(0, "sample", i, f"q{j}", k) for i in range(3) for j in range(200) for k in range(8)}
    assert len(seeds) == 3 * 200 * 8
    assert derive_seed(1, "2") != derive_seed("1", 2)
    assert stream(1).random() == stream(1).random() != stream(2).random()


def test_known_value_is_kept() -> None:
    """A change of the derivation would silently change every run."""
    assert (
        derive_seed(0, "sample", 1, "q", 0)
        == int.from_bytes(
            __import__("hashlib").blake2b(b"int:0\x1fstr:sample\x1fint:1\x1fstr:q\x1fint:0", digest_size=8).digest(),
            "big",
        )
        >> 1
    )


def test_uniforms_are_uniform_and_independent_of_neighbours() -> None:
    """Means of 10^5 draws: a right generator leaves these bounds with probability below 1e-6."""
    seeds = np.array([derive_seed("s", i) for i in range(1000)], dtype=np.uint64)
    table = np.stack([uniforms(seeds, np.full(1000, position, np.int64)) for position in range(100)])
    assert table.min() >= 0 and table.max() < 1
    assert abs(table.mean() - 0.5) < 5 * (1 / 12) ** 0.5 / 10**2.5
    assert abs(np.corrcoef(table[0], table[1])[0, 1]) < 0.16
    assert np.array_equal(uniforms(seeds[5:6], np.array([7])), table[7, 5:6])
