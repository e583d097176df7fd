"""The targets of `pipeline`, a repetition's record, and the results as text. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import targets
from benchmarks.pipeline_work import OURS, PHASES, RIVAL
from benchmarks.table import machine_lines, target_lines
from benchmarks.targets import Target, judge_all
from selftrain.report.text import clean, table

Json = Mapping[str, Any]
LABELS = {OURS: "selftrain", RIVAL: "TRL and generate"}
SPEED = "iterations_per_h"
HEADER = ("", "selftrain s", "rival s", "times", "selftrain", "rival")
TARGETS = tuple(
    Target("an iteration over TRL and generate", "speed", OURS, RIVAL, 2.5, device, repetitions=1, field=SPEED)
    for device in ("cpu", "cuda")
)


def summary(found: Json, rows: int | None) -> dict[str, Any]:
    """A repetition's record from what its process said; the time is that of all phases."""
    phases = {name: round(seconds, 3) for name, seconds in found["phases"].items()}
    seconds = sum(found["phases"].values())
    return {**found, "rows": rows, "phases": phases, "seconds": round(seconds, 3), SPEED: round(3600 / seconds, 4)}


def missed(content: Json, wanted: Sequence[str]) -> list[str]:
    """Each target missed, a line each."""
    lines = targets.missed(content, wanted, False, TARGETS)
    if not {OURS, RIVAL} <= set(wanted):
        return lines
    found = content.get("accuracy")
    if found is None:
        return [*lines, "equal accuracy: not measured"]
    return lines if is_equal(found) else [*lines, f"equal accuracy: {_difference(found)}"]


def is_equal(found: Json) -> bool:
    """Whether the interval of ours minus theirs holds 0 or lies above it."""
    return bool(found["high"] >= 0)


def _difference(found: Json) -> str:
    ours, theirs = found["accuracies"]
    rows = f"{found['num']} answers" + (f" in {found['num_groups']} groups" if found["clustered"] else "")
    return (
        f"{100 * ours:.1f} and {100 * theirs:.1f} % right, {100 * found['difference']:+.1f} points "
        f"({100 * found['confidence']:g} % interval {100 * found['low']:+.1f} to {100 * found['high']:+.1f}, "
        f"p = {found['p_value']:.2g}, {rows})"
    )


def text(content: Json, wanted: Sequence[str]) -> str:
    """All of it: a row a phase, the targets, settings, what failed, the machine."""
    lines = [_work(content["tasks"]["iteration"]), *_phases(content["records"]), ""]
    lines += target_lines(judge_all(content, wanted, False, TARGETS))
    if found := content.get("accuracy"):
        lines.append(f"accuracy, {'equal or better' if is_equal(found) else 'MISSED'}: {_difference(found)}")
    lines.append("")
    lines += [f"not measured: {LABELS[name]}: {reason}" for name, reason in content["failures"].items()]
    return "\n".join(clean(line) for line in [*lines, *_settings(content["records"]), *machine_lines(content)])


def _work(task: Json) -> str:
    tests = ", ".join(f"{test['rows']} of {test['name']}" for test in task["test"])
    samples = " and ".join(map(str, task["samples"]))
    return (
        f"{task['questions']} questions ({task['labelled']} labelled), {samples} samples each, "
        f"T {task['temperature']:g}, at most {task['max_new_tokens']} new tokens; judged by {tests}; "
        f"work {task['fingerprint']}, warm-up weights {task['weights'][:12]}"
    )


def _phases(records: Json) -> Sequence[str]:
    """The table; a system's repetitions by their median."""
    found = [list(records.get(name, {}).values()) for name in (OURS, RIVAL)]
    if not any(found):
        return []
    rows = [
        [
            phase,
            *_times(*(_median([record["phases"][phase] for record in side]) for side in found)),
            *(_done(side[0]["work"][phase]) if side else "" for side in found),
        ]
        for phase in PHASES
    ]
    peaks = ["" if not side else f"{max(row['peak_memory_bytes'] for row in side) / 1e9:.2f} GB peak" for side in found]
    rows.append(["all", *_times(*(_median([record["seconds"] for record in side]) for side in found)), *peaks])
    return table(HEADER, rows)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _times(ours: float | None, theirs: float | None) -> list[str]:
    """Both times, and how many times as fast ours is."""
    shown = ["" if seconds is None else f"{seconds:.1f}" for seconds in (ours, theirs)]
    return [*shown, f"{theirs / ours:.2f}" if ours and theirs else ""]


def _done(work: Json) -> str:
    """What a phase did, in words."""
    if "completions" not in work:
        return ", ".join(f"{count} {name}" for name, count in work.items())
    num = max(work["completions"], 1)
    return f"{num} of {work['tokens'] / num:.1f} tokens, {100 * work['right'] / num:.1f} % right"


def _settings(records: Json) -> Iterator[str]:
    """What each was told, and the rival's packages, from its first record."""
    for name, label in LABELS.items():
        for record in list(records.get(name, {}).values())[:1]:
            told = "; ".join(f"{key} {_plain(value)}" for key, value in record["settings"].items())
            yield f"{label}: {told}"
            if name == RIVAL:
                yield "rival's packages: " + ", ".join(f"{key} {value}" for key, value in record["versions"].items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) + ")"
    return str(value)
