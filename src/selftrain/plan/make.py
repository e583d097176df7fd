"""A run's plan: every stage three times (low, likely, high), its time, what the run needs, and what was assumed.

plan = make_plan(config)                          # a run that has not begun
plan = make_plan(config, RunFiles(folder))        # an unfinished one: done stages as they were
plan = make_plan(config, run, fresh=True)         # a finished one, as if nothing of it were known
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.hardware import default_device, default_precision, has_gpu
from selftrain.plan.counts import Counts, count
from selftrain.plan.estimate import Estimator
from selftrain.plan.guesses import HIGH, LIKELY, LOW
from selftrain.plan.known import completed
from selftrain.plan.needs import Needs, needs_of, parameters_of
from selftrain.plan.speed import Range, Speed, first_flops, probed, speed_of_run, total
from selftrain.plan.work import Work, kind_of
from selftrain.report.expected import expected_stages
from selftrain.report.files import RunFiles

NO_TIME = Speed({}, "no time: --no-measure")
Guessed = tuple[Work, Work, Work]


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """One stage: its work under the low, likely and high guess, and its seconds (None where no speed is known)."""

    low: Work
    likely: Work
    high: Work
    is_done: bool
    seconds: Range | None

    @property
    def name(self) -> str:
        """Its folder in the run."""
        return self.likely.stage


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that can be said of a run; `stages` have no figures where the sets are not here (`counted`)."""

    config: RunConfig
    device: str
    precision: str
    parameters: int | None
    counted: bool
    stages: tuple[StagePlan, ...]
    needs: Needs
    speed: Speed
    notes: tuple[str, ...]

    @property
    def seconds(self) -> Range | None:
        """Of all stages; None where one is not known."""
        return total([stage.seconds for stage in self.stages]) if self.stages else None

    def flops(self, stage: StagePlan | None = None) -> Range | None:
        """Of a stage, or of all."""
        if self.parameters is None or not self.counted:
            return None
        parameters, stages = self.parameters, self.stages if stage is None else (stage,)
        return Range(*(sum(w.flops(parameters) for w in works) for works in zip(*map(_guessed, stages), strict=True)))


def make_plan(
    config: RunConfig,
    run: RunFiles | None = None,
    *,
    folder: Path = Path("runs"),
    measure: bool = True,
    fresh: bool = False,
    num_processes: int = 1,
) -> Plan:
    """Plan a run.

    Args:
        run: the run's files where it has begun: its finished stages, data and weights count.
        folder: where it will be, for the free disk.
        measure: let matrix products run for half a second, without which there is no time.
        fresh: use no finished stage but the data's rows, and the speed that the run measured before its first stage.
        num_processes: that share the weights out (`training.sharded`).
    """
    counts = completed(count(config, run), config)
    device = default_device() if config.compute.device == "auto" else config.compute.device
    asked = config.compute.precision
    assumed = "bf16" if device == "cuda" and not has_gpu() else default_precision(device)
    precision = assumed if asked == "auto" else asked
    notes = list(counts.notes)
    parameters = parameters_of(counts.model) if counts.model is not None else None
    seen = None if fresh else run
    guessed = _works(config, counts, seen, device)
    flops = first_flops(run) if run is not None and fresh else None
    speed = probed(device, precision, parameters, flops) if measure or flops is not None else NO_TIME
    if seen is not None and parameters is not None:
        speed = speed_of_run(seen, parameters, speed)
    needs = needs_of(
        config, counts, device=device, precision=precision, num_processes=num_processes,
        folder=folder, file_bytes=sum(likely.file_bytes for _, likely, _ in guessed),
    )  # fmt: skip
    loading = None if counts.sets is None else 0.0 if fresh else counts.sets.seconds
    clock = _clock(speed, parameters, seen, loading)
    stages = tuple(StagePlan(*one, seen is not None and seen.is_done(one[1].stage), clock(one)) for one in guessed)
    if config.data.samples is not None:
        notes.append("samples made elsewhere (data.samples) are not counted")
    return Plan(config, device, precision, parameters, counts.sets is not None, stages, needs, speed, tuple(notes))


def _guessed(stage: StagePlan) -> Guessed:
    return stage.low, stage.likely, stage.high


def _works(config: RunConfig, counts: Counts, run: RunFiles | None, device: str) -> list[Guessed]:
    """Every stage under the three guesses; empty work where the sets are not here."""
    if counts.sets is None:
        return [(Work(stage), Work(stage), Work(stage)) for stage in expected_stages(config)]
    encoder_decoder = counts.model is not None and bool(counts.model.is_encoder_decoder)
    low, likely, high = (
        Estimator(config, counts.sets, guess, device, run, encoder_decoder).works() for guess in (LOW, LIKELY, HIGH)
    )
    return list(zip(low, likely, high, strict=True))


def _clock(
    speed: Speed, parameters: int | None, run: RunFiles | None, loading: float | None
) -> Callable[[Guessed], Range | None]:
    """From a stage's work to its seconds: a finished stage's own, else FLOPs over FLOP/s."""

    def seconds(works: Guessed) -> Range | None:
        stage = works[1].stage
        if run is not None and run.is_done(stage):
            was = float(run.manifests[stage]["seconds"])
            return Range(was, was, was)
        if loading is None:
            return None
        if kind_of(stage) == "other":
            taken = loading if stage == "data" else 0.0
            return Range(taken, taken, taken) if speed.rates else None
        rate = speed.rates.get(kind_of(stage))
        if rate is None or parameters is None:
            return None
        low, likely, high = (work.flops(parameters) for work in works)
        return Range(low / rate.high, likely / rate.likely, high / rate.low)

    return seconds
