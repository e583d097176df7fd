"""A plan as text for the terminal: a table of stages, what it needs, how fast, and what was assumed.

print(plan_text(plan))
print(compared_text(plan, run))      # of a finished run: planned, was, and how far off
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selftrain.cost import stage_cost
from selftrain.plan.make import Plan, StagePlan
from selftrain.plan.peaks import peak_lines
from selftrain.plan.speed import Range
from selftrain.report.files import RunFiles
from selftrain.report.text import clean, table
from selftrain.report.wording import count, flops_text, gigabytes, seconds_text
from selftrain.training.schedule import peak_rate

HEADER = ("rows", "samples", "prompt", "sampled", "trained", "forwarded", "steps", "FLOPs", "time", "low to high")
FIELDS = ("rows", "samples", "prompt_tokens", "sampled_tokens", "trained_tokens", "forwarded_tokens", "steps")
ASSUMED = (
    "lengths: a trained model's answer has as many tokens as the mean gold rationale of its set (low half, high twice, "
    "at most max_new_tokens); the base model's as many as max_new_tokens (low half)",
    "right answers: half of all samples, most questions nearly always or nearly never (arcsine law)",
    "labels: one a question with a right sample, half as often where it has a gold rationale (low none, high all, up "
    "to the cap)",
    "pairs: one a question with right and wrong samples (low none, high pairs.per_question everywhere)",
    "time: FLOPs of the cost rule over what the machine does; choosing pairs and labels counts as nothing",
)
SEEN = "finished stages are as they were; lengths, labels, pairs and speed of the others follow them"


def plan_text(plan: Plan) -> str:
    """The table, then what it rests on."""
    size = f"{plan.parameters:,} parameters" if plan.parameters is not None else "size unknown"
    head = (
        f"{plan.config.name}: {plan.config.method} with {plan.config.model} ({size}), {plan.device}, {plan.precision}"
    )
    rows = [_row(plan, stage) for stage in plan.stages]
    lines = [
        head,
        "",
        *table(["stage", *HEADER], [*rows, _total(plan)]),
        "",
        *_needs(plan),
        *_rates(plan),
        f"speed: {plan.speed.source}",
    ]
    lines += [f"note: {note}" for note in plan.notes]
    lines += ["", "Assumed (prompt, sampled, trained, forwarded: tokens):", *(f"- {line}" for line in ASSUMED)]
    lines += [f"- {SEEN}"] if any(stage.is_done for stage in plan.stages) else []
    return "\n".join(clean(line) for line in lines)


def _row(plan: Plan, stage: StagePlan) -> list[str]:
    figures = [_number(getattr(stage.likely, field), plan.counted) for field in FIELDS]
    range_ = "done" if stage.is_done else time_span(stage.seconds)
    return [stage.name, *figures, *_flops_and_time(plan.flops(stage), stage.seconds), range_]


def _total(plan: Plan) -> list[str]:
    sums = [_number(sum(getattr(stage.likely, field) for stage in plan.stages), plan.counted) for field in FIELDS]
    return ["in all", "", *sums[1:], *_flops_and_time(plan.flops(), plan.seconds), time_span(plan.seconds)]


def _number(value: int, counted: bool) -> str:
    return "?" if not counted else count(value) if value else ""


def _flops_and_time(flops: Range | None, seconds: Range | None) -> list[str]:
    work = "?" if flops is None else flops_text(flops.likely) if flops.likely else ""
    return [work, "" if seconds is None else seconds_text(seconds.likely)]


def time_span(seconds: Range | None) -> str:
    """From low to high; empty where there is no span."""
    if seconds is None or seconds.low == seconds.high:
        return ""
    return f"{seconds_text(seconds.low)} to {seconds_text(seconds.high)}"


def _needs(plan: Plan) -> Iterator[str]:
    """Memory, disk, and FLOPs from low to high."""
    needs, work = plan.needs, plan.flops()
    if work is not None:
        yield f"FLOPs: {flops_text(work.likely)}, from {flops_text(work.low)} to {flops_text(work.high)}"
    if needs.sampling is None or needs.disk is None or needs.disk_after is None:
        yield f"memory, disk: unknown without the model; {gigabytes(needs.free_disk)} of disk are free"
        return
    free = "free memory unknown" if needs.free_memory is None else f"{gigabytes(needs.free_memory)} are free"
    training = "unknown (its forward cannot be traced)" if needs.training is None else gigabytes(needs.training)
    short = needs.free_memory is not None and max(needs.training or 0, needs.sampling) > needs.free_memory
    yield (
        f"memory at its peak ({plan.device}): training {training}, sampling {gigabytes(needs.sampling)}, without "
        f"Python and its libraries; {free}{': NOT ENOUGH' if short else ''}"
    )
    yield (
        f"disk: {gigabytes(needs.disk)} at its peak, {gigabytes(needs.disk_after)} when the run is done; "
        f"{gigabytes(needs.free_disk)} are free{': NOT ENOUGH' if needs.disk > needs.free_disk else ''}"
    )


def _rates(plan: Plan) -> Iterator[str]:
    """What DPO's rate comes to where it is "auto"."""
    wanted = plan.config.training.dpo.learning_rate
    found = [stage.likely for stage in plan.stages if stage.name.endswith("/dpo") and stage.likely.steps]
    if wanted != "auto" or not found:
        return
    if plan.parameters is None:
        yield "learning rate of DPO (auto): unknown without the model"
        return
    rates = [f"{peak_rate(wanted, one.steps, plan.parameters):.2g} in {one.stage}, {one.steps} steps" for one in found]
    yield f"learning rate of DPO (auto): {'; '.join(rates)}"


def compared_text(plan: Plan, run: RunFiles) -> str:
    """Planned as if nothing were known, beside what was; the ratio is was over planned."""
    header = ["stage", "tokens planned", "was", "ratio", "low to high", "time planned", "was", "ratio", "low to high"]
    pairs = [(stage, _was(run, stage.name)) for stage in plan.stages if run.is_done(stage.name)]
    rows = [_compared(stage.name, [(stage, was)]) for stage, was in pairs]
    kinds: dict[str, list[tuple[StagePlan, tuple[int, float]]]] = {}
    for stage, was in pairs:
        kinds.setdefault(_kind(stage.name), []).append((stage, was))
    sums = [_compared(kind, found) for kind, found in kinds.items()]
    missing = [stage.name for stage in plan.stages if not run.is_done(stage.name)]
    lines = [
        f"{plan.config.name}: planned as if nothing of the run were known, and what was (ratio: was over planned)", "",
        *table(header, [*rows, *sums, _compared("in all", pairs)]), "", *peak_lines(plan, run), "",
        f"speed: {plan.speed.source}",
    ]  # fmt: skip
    lines += [f"did not run: {', '.join(missing)}"] if missing else []
    return "\n".join(clean(line) for line in [*lines, *(f"note: {note}" for note in plan.notes)])


def _was(run: RunFiles, stage: str) -> tuple[int, float]:
    """Tokens and seconds of a finished stage."""
    seconds = float(run.manifests[stage]["seconds"])
    cost = stage_cost(stage, run.figures(stage), seconds=seconds, parameters=None, headline=None)
    return cost.trained_tokens + cost.sampled_tokens + cost.forwarded_tokens, seconds


def _kind(stage: str) -> str:
    last = stage.rpartition("/")[2]
    if last in ("sft", "dpo"):
        return f"all {last}"
    if last.startswith("sample-for-"):
        return "all samples of U"
    if stage.startswith("0-base/"):
        return "all of the base model"
    return "all evaluations" if "/evaluate" in stage or last == "validate" else "all else"


def _compared(name: str, found: Sequence[tuple[StagePlan, tuple[int, float]]]) -> list[str]:
    """A line: sums of what was planned and of what was."""
    low, likely, high = (sum(getattr(s, g).tokens for s, _ in found) for g in ("low", "likely", "high"))
    was_tokens, was_seconds = (sum(was[place] for _, was in found) for place in (0, 1))
    cells = [name, count(likely), count(was_tokens), _ratio(was_tokens, likely), _inside(was_tokens, low, high)]
    known = [stage.seconds for stage, _ in found if stage.seconds is not None]
    if len(known) < len(found) or not known:
        return [*cells, "", seconds_text(was_seconds), "", ""]
    planned, least, most = (sum(getattr(one, g) for one in known) for g in ("likely", "low", "high"))
    inside = _inside(was_seconds, least, most) if most > least else ""
    return [*cells, seconds_text(planned), seconds_text(was_seconds), _ratio(was_seconds, planned), inside]


def _ratio(was: float, planned: float) -> str:
    return f"{was / planned:.2f}" if planned else ""


def _inside(was: float, low: float, high: float) -> str:
    """Whether it lay between the bounds."""
    if low == high == was:
        return "exact"
    return "inside" if low <= was <= high else "outside"
