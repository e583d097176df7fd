"""Problems to learn from and to be judged by: one source a file, `assemble` for a run's sets.

    from selftrain.data import load
    load(DataSpec(source="svamp", path="SVAMP.json")).problems

Importing this package registers every source, and imports neither torch nor any extra.
"""

from __future__ import annotations

from selftrain.config import DataSpec
from selftrain.data import arithmetic, asdiv, files, gsm8k, multiarith, reasoning_gym, svamp
from selftrain.data.base import SOURCES, LoadedSet, load, rows_digest, source, whole_number
from selftrain.data.gold import prove_gold

__all__ = ["SOURCES", "LoadedSet", "load", "prove_gold"]
__all__ += ["asdiv", "files", "gsm8k", "multiarith", "reasoning_gym", "svamp"]


@source("arithmetic", params=["seed", "size"], takes_path=False)
def _load_arithmetic(spec: DataSpec, offline: bool) -> LoadedSet:
    """The made-up problems of `smoke`."""
    seed = whole_number(spec, "seed", 0, least=0, most=2**31 - 1)
    problems = arithmetic.problems(seed, whole_number(spec, "size", 64, least=1, most=10**6))
    return LoadedSet(problems, {}, ["made up on the spot; they say nothing about reasoning"], rows_digest(problems))
