"""What every sampler takes and gives.

    outputs = sampler.generate(requests, params)

A `Request` names one draw: a problem, a sample index k, the prompt's ids and the seed of that draw. Its
result depends on nothing else: not on the other requests, nor on their order (docs/decisions/0002-draws.md: the
tolerance). A sampler returns one `Generated` a request, in the order of the requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

OnFinished = Callable[["Generated"], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One draw to make."""

    problem_id: str
    k: int
    prompt_ids: tuple[int, ...]
    seed: int


@dataclasses.dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw; `temperature == 0` means greedy. `top_k == 0` and `top_p == 1` mean off."""

    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int
    calculator: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Generated:
    """One finished completion; fields as in `records.Completion`."""

    token_ids: tuple[int, ...]
    stop: Literal["eos", "length"]
    forced: tuple[tuple[int, int], ...] = ()
    calls: int = 0
    uncalculated: int = 0


class Sampler(Protocol):
    """A thing that answers requests: the engine here, vLLM, or a stand-in in a test."""

    def generate(
        self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
    ) -> list[Generated]:
        """One result a request, in the order of the requests; `on_finished` hears of each as it ends."""
        ...
