"""How many FLOPs of training and of sampling (by the rule of cost.py) this machine does in a second.

    speed = probed("cpu", "bf16", parameters)                  # matrix products now, times a share that runs reached
    speed = speed_of_run(RunFiles(Path("runs/quickstart")))    # what an own run did

Shares are measured, never made up: `shares_of_run` divides a finished stage's FLOPs by its seconds and by the speed of
matrix products that the run wrote down before that stage (journal event "speed"). Lowest, median and highest of stages:

- bf16, training 0.41 / 0.42 / 0.47: the three training stages of the quickstart run in docs/results/quickstart.md (SFT
  0.412 and 0.439, DPO 0.424); two shorter runs gave 0.406 and 0.468.
- bf16, sampling 0.45 / 0.56 / 0.58: evaluations of 150, 100 and 64 rows with compiled kernels (0.556, 0.577, 0.453).
  Before the kernels the quickstart run reached 0.35 to 0.46 (once 0.59, at a slow moment's probe).
- fp32, training 0.63, sampling 0.62: one stage each, 2 steps of 8 rows, and 48 rows; no spread is known. The stages of
  asdiv-smollm2's run are of no use here: other processes ran beside it (docs/log.md).

These on two cores of an AMD EPYC with AVX-512. A probe of a tenth of a second on a shared machine is off by a fifth at
times, and by half once in a while.

On a GPU in bf16, from a quarter of an hour on one H100 (docs/log.md), over its 745 TFLOP/s of products:

- training 0.016 / 0.10 / 0.21: trees of four completions a prompt at 91,000 tokens a second, blocks not compiled;
  192,000 of one completion a prompt, compiled; low is a sixth of likely, as slow as the one iteration that ran there.
- sampling 0.042 / 0.042 / 0.053: 116,000 tokens a second with the calculator, 146,000 without.

Larger models reach more of a GPU than this one of 135 million parameters does, so their hours are rather too high.
Where no GPU is, `compute.device=cuda` gives the hours of one H100. On other devices nothing was measured: there an own
run alone gives hours. A model of less than 50 million parameters spends its time on other things than products, so it
gets none either.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence

from selftrain.hardware import has_gpu, matrix_flops
from selftrain.plan.work import done_work, kind_of
from selftrain.report.files import RunFiles

LEAST_PARAMETERS = 50_000_000
PROBE_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Range:
    """Lowest, likely and highest."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> Range:
        """Each of them."""
        return Range(self.low * factor, self.likely * factor, self.high * factor)


def total(ranges: Sequence[Range | None]) -> Range | None:
    """The sum of some; None where one is not known."""
    known = [one for one in ranges if one is not None]
    if len(known) < len(ranges):
        return None
    return Range(*(sum(getattr(one, name) for one in known) for name in ("low", "likely", "high")))


@dataclasses.dataclass(frozen=True)
class Speed:
    """FLOP/s by kind of stage (none where nothing is known), and where they come from or why there are none."""

    rates: Mapping[str, Range]
    source: str


SHARES: Mapping[tuple[str, str], Mapping[str, Range]] = {  # of matrix products: device, precision -> kind of stage
    ("cpu", "bf16"): {"training": Range(0.41, 0.42, 0.47), "sampling": Range(0.45, 0.56, 0.58)},
    ("cpu", "fp32"): {"training": Range(0.63, 0.63, 0.63), "sampling": Range(0.62, 0.62, 0.62)},
    ("cuda", "bf16"): {"training": Range(0.016, 0.10, 0.21), "sampling": Range(0.042, 0.042, 0.053)},
}
SEEN_ON = {"cpu": "two cores of an AMD EPYC", "cuda": "one H100, once"}
H100_FLOPS = 745e12  # of its matrix products in bf16


def probed(device: str, precision: str, parameters: int | None, flops: float | None = None) -> Speed:
    """From the shares; `flops` are matrix products a second that were measured before, else they are measured now."""
    if parameters is None:
        return Speed({}, "the model is not here, so neither FLOPs nor time are known")
    if parameters < LEAST_PARAMETERS:
        return Speed(
            {},
            f"no time: the shares were measured with 135 M parameters, and below {LEAST_PARAMETERS:,} they say nothing",
        )
    shares = SHARES.get((device, precision))
    if shares is None:
        return Speed({}, f"no time: not measured on {device} in {precision}; a run that was begun gives it")
    told = "ran at" if flops is None else "had run at"
    if flops is None and device == "cuda" and not has_gpu():
        told, flops = "are taken to run as on an H100, for no GPU is here, at", H100_FLOPS
    flops = matrix_flops(device, precision, PROBE_SECONDS) if flops is None else flops
    text = ", ".join(f"{kind} at {share.likely:.0%} of it" for kind, share in shares.items())
    return Speed(
        {kind: share.times(flops) for kind, share in shares.items()},
        f"matrix products {told} {flops / 1e9:,.0f} GFLOP/s ({device}, {precision}); {text}, "
        f"as runs of a 135 M model on {SEEN_ON[device]}",
    )


def speed_of_run(run: RunFiles, parameters: int, otherwise: Speed) -> Speed:
    """What the run's finished stages did a second; `otherwise` for a kind that has none."""
    rates = dict(otherwise.rates)
    told = []
    for kind in ("training", "sampling"):
        done = [row for row in _stages(run) if kind_of(row[0]) == kind]
        if done:
            flops = [done_work(run, stage).flops(parameters) for stage, _ in done]
            each = [work / seconds for work, (_, seconds) in zip(flops, done, strict=True)]
            rates[kind] = Range(min(each), sum(flops) / sum(seconds for _, seconds in done), max(each))
            told.append(f"{kind} at {rates[kind].likely / 1e9:,.1f} GFLOP/s")
    if not told:
        return otherwise
    rest = f"; else {otherwise.source}" if otherwise.rates and len(told) < len(rates) else ""
    return Speed(rates, f"this run's finished stages: {', '.join(told)}{rest}")


def shares_of_run(run: RunFiles, parameters: int) -> dict[str, Range]:
    """kind -> the share of matrix products that the run's finished stages reached; how `SHARES` was made."""
    peaks = {str(event["stage"]): float(event["flops"]) for event in run.events("speed")}
    found: dict[str, list[float]] = {}
    for stage, seconds in _stages(run):
        if stage in peaks:
            reached = done_work(run, stage).flops(parameters) / seconds
            found.setdefault(kind_of(stage), []).append(reached / peaks[stage])
    return {kind: Range(min(all_), statistics.median(all_), max(all_)) for kind, all_ in found.items()}


def first_flops(run: RunFiles) -> float | None:
    """Matrix products a second before the run's first stage that computed."""
    return next((float(event["flops"]) for event in run.events("speed")), None)


def _stages(run: RunFiles) -> Iterator[tuple[str, float]]:
    """Finished stages that compute, with their seconds."""
    for stage, manifest in run.manifests.items():
        if kind_of(stage) != "other" and manifest["seconds"] > 0:
            yield stage, float(manifest["seconds"])
