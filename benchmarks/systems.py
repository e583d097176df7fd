"""What is measured, and in which order.

    plan(["ours", "hf"], repetitions=3, pairs=5)     # [("ours", 0), ("hf", 0), ("hf", 1), ("ours", 1), ...]

A system is a way to sample one task (`work.py` makes the tasks): ours or a rival, with the batch sizes that its
search may try. Batch sizes are rows decoded at once, whatever the system's own knob is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from selftrain.errors import ConfigError, nearest

Ids = tuple[int, ...]
GPU_FACTOR = 4  # a GPU is tried with so many times the rows


@dataclasses.dataclass(frozen=True)
class System:
    """One way to sample.

    `batches` are the rows to try on a CPU; a single one is not searched. `batch_of` takes the batch that another
    system found. `search_samples` are the samples a question in the search; None means as many as the task has.
    `paired` systems are repeated as often as there are on/off pairs.
    """

    label: str
    task: str
    calculator: bool
    batches: tuple[int, ...]
    batch_of: str | None = None
    search_samples: int | None = None
    paired: bool = False

    def ladder(self, device: str) -> tuple[int, ...]:
        """The rows to try on a device."""
        return tuple(rows * GPU_FACTOR for rows in self.batches) if device == "cuda" else self.batches


@dataclasses.dataclass(frozen=True)
class Setup:
    """How a process is to sample: which system, rows at once, samples a question, where and in what precision."""

    system: str
    rows: int
    samples: int
    device: str
    precision: str
    threads: int

    @property
    def calculator(self) -> bool:
        """Whether annotations are computed."""
        return SYSTEMS[self.system].calculator


@dataclasses.dataclass(frozen=True)
class Answers:
    """Completions by question and sample, end tokens included, and what the system says of itself."""

    token_ids: list[Ids]
    said: dict[str, Any] = dataclasses.field(default_factory=dict)


Generate = Callable[[int], Answers]  # the seed of a repetition -> its completions


SYSTEMS: dict[str, System] = {
    "ours": System("selftrain", "main", True, (64, 128, 192, 256), paired=True),
    "ours-plain": System("selftrain, calculator off", "main", False, (), batch_of="ours", paired=True),
    "hf-calculator": System("a. generate, decoding calculator", "main", True, (16, 32, 64, 96), search_samples=1),
    "hf": System("b. generate", "main", False, (32, 64, 128, 192), search_samples=2),
    "hf-continuous": System("c. generate_batch", "main", False, (16, 32, 64), search_samples=2),
    "vllm": System("d. vLLM", "main", False, (64, 128, 256)),
    "vllm-calculator": System("d. vLLM, our calculator", "main", True, (64, 128, 256)),
    "smoke": System("two-layer model", "smoke", True, (128,), paired=True),
    "smoke-plain": System("two-layer model, calculator off", "smoke", False, (128,), paired=True),
    "t5": System("encoder-decoder, selftrain", "t5", True, (64, 128, 256)),
    "t5-hf": System("encoder-decoder, b. generate", "t5", False, (64, 128, 256)),
}
VLLM = ("vllm", "vllm-calculator")
QUICK = ("ours", "hf-calculator")
QUICK_BATCHES = {"ours": 96, "hf-calculator": 24}  # no search: all of the 24 x 4 completions, all of a pass's 24 rows


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """See to it that all names are known.

    Raises:
        ConfigError: one is not; names the nearest.
    """
    for name in names:
        if name not in known:
            close = nearest(name, known)
            hint = f"Did you mean {close!r}?" if close else None
            raise ConfigError(f"No system is called {name!r}; systems: {', '.join(known)}.", hint)


def plan(
    names: Sequence[str], repetitions: int, pairs: int = 0, paired: Collection[str] | None = None
) -> list[tuple[str, int]]:
    """(system, repetition) in the order to run them: interleaved, every other round backwards, so that a machine
    that drifts favours nobody. `paired` systems run `pairs` times (None: those that `SYSTEMS` calls so)."""
    often = [name for name in names if SYSTEMS[name].paired] if paired is None else paired
    order: list[tuple[str, int]] = []
    for number in range(max(repetitions, pairs)):
        row = [(name, number) for name in names if number < (pairs if name in often else repetitions)]
        order += row if number % 2 == 0 else row[::-1]
    return order


def climb(candidates: Sequence[int], rate: Callable[[int], float]) -> dict[int, float]:
    """Rates of the candidates tried on the way to the best: from the second up while it pays, else down.

    Right where the rate has one peak; every candidate is tried at most once.
    """
    tried: dict[int, float] = {}

    def at(index: int) -> float:
        if candidates[index] not in tried:
            tried[candidates[index]] = rate(candidates[index])
        return tried[candidates[index]]

    here = min(1, len(candidates) - 1)
    at(here)
    for step in (1, -1):
        start = here
        while 0 <= here + step < len(candidates) and at(here + step) > at(here):
            here += step
        if here != start:
            break
    return tried


def best_of(tried: dict[int, float]) -> int:
    """The rows with the highest rate."""
    return max(tried, key=lambda rows: tried[rows])
