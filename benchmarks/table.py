"""A results file's content as text: systems, targets, machine."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.systems import SYSTEMS
from benchmarks.targets import Finding, best_peak, fairness, judge_all, roofline_share
from selftrain.report.text import clean, table

Json = Mapping[str, Any]
SYSTEM_HEADER = (
    "", "rows", "runs", "completions/s", "lowest to highest", "tokens/s", "times", "tokens each", "cut %", "right %",
    "calls each", "peak GB",
)  # fmt: skip
OWN = {"main": "ours", "smoke": "smoke", "t5": "t5"}  # what "times" is over, by task


def text(content: Json, wanted: Sequence[str], quick: bool) -> str:
    """All of it."""
    parts = [_systems(content, name) for name in OWN]
    blocks = [[*block, ""] for block in parts if block]
    lines = [line for block in blocks for line in block]
    lines += [*target_lines(judge_all(content, wanted, quick)), "", *_comparisons(content), *machine_lines(content)]
    return "\n".join(clean(line) for line in lines)


def _systems(content: Json, task: str) -> list[str]:
    """The systems of a task, its own first."""
    names = [name for name in SYSTEMS if SYSTEMS[name].task == task and content["records"].get(name)]
    if not names:
        return []
    own = content["records"].get(OWN[task])
    rows = [_system(name, content["records"][name], own, content.get("code")) for name in names]
    return [_task(content["tasks"][task]), *table(SYSTEM_HEADER, rows)]


def _task(task: Json) -> str:
    questions = " + ".join(f"{count} {source}" for source, count in task["questions"].items())
    notes = "".join(f"; {note}" for note in task["notes"])
    return (
        f"{questions}, {task['samples']} samples, T {task['temperature']:g}, at most {task['max_new_tokens']} new "
        f"tokens; weights {task['weights'][:12]}{notes}"
    )


def _system(name: str, records: Json, own: Json | None, code: str | None) -> list[str]:
    found = list(records.values())
    is_earlier = any(row.get("code", code) != code for row in found)
    rates = [row["completions_per_s"] for row in found]
    completions = sum(row["completions"] for row in found)
    judged = sum(row["judged"] for row in found)
    memory = [row["peak_memory_bytes"] for row in found if row.get("peak_memory_bytes")]
    rate = statistics.median(rates)
    return [
        SYSTEMS[name].label + (" (earlier code)" if is_earlier else ""),
        str(found[0]["rows"]),
        str(len(found)),
        f"{rate:.2f}",
        f"{min(rates):.2f} to {max(rates):.2f}",
        f"{statistics.median(row['tokens_per_s'] for row in found):.0f}",
        "" if own is None else f"{_times(own, records):.2f}",
        f"{sum(row['tokens'] for row in found) / completions:.1f}",
        f"{100 * sum(row['cut'] for row in found) / completions:.1f}",
        f"{100 * sum(row['right'] for row in found) / judged:.1f}" if judged else "",
        f"{sum(row['annotations'] for row in found) / judged:.2f}" if judged else "",
        f"{statistics.median(memory) / 1e9:.2f}" if memory else "",
    ]


def _times(own: Json, records: Json) -> float:
    """How many times as fast ours is: the median over repetitions that both have."""
    both = own.keys() & records.keys()
    ratios = [own[key]["completions_per_s"] / records[key]["completions_per_s"] for key in both]
    return statistics.median(ratios) if ratios else 0.0


def target_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Each target that was asked for, with its verdict."""
    rows = []
    for found in findings:
        if found.met is None:
            continue  # not asked for
        low, high = found.spread
        verdict = "met" if found.met else "MISSED"
        stretch = found.target.stretch
        if found.met and stretch is not None and found.median >= stretch:
            verdict = "met, stretch too"
        told = f"{found.median:.3f}" if found.values else found.why
        spread = f"{low:.3f} to {high:.3f}" if found.values else ""
        relation = "at most" if found.target.at_most else "at least"
        rows.append([found.target.text, f"{relation} {found.bound:.3g}", told, spread, verdict])
    if rows:
        yield from table(("target", "", "median", "spread", ""), rows)


def _comparisons(content: Json) -> Iterator[str]:
    found = fairness(content)
    for pair in found:
        yield (
            f"{pair.ours} beside {pair.theirs}: {pair.lengths[0]:.1f} and {pair.lengths[1]:.1f} tokens each "
            f"({pair.length_errors:+.1f} standard errors), {pair.shares[0]:.1%} and {pair.shares[1]:.1%} right "
            f"({pair.share_errors:+.1f})"
        )
    if found:
        yield ""
    for name, reason in content["failures"].items():
        yield f"not measured: {SYSTEMS[name].label}: {reason}"


def machine_lines(content: Json) -> Iterator[str]:
    """The machine, its matrix peak, and what that makes of the first run of `ours`."""
    setup, environment = content["setup"], content["setup"]["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    yield (
        f"{environment.get('gpu', environment['cpu'])}, {environment['cores']} cores, {setup['threads']} threads, "
        f"{setup['device']}, {setup['precision']}"
    )
    yield f"Python {environment['python']}, {packages}; {environment['system']}"
    peaks = ", ".join(f"{name} {flops / 1e9:.0f}" for name, flops in content["matrix_peak"].items())
    yield f"matrix peak, GFLOP/s: {peaks or 'not measured'}"
    ours = content["records"].get("ours", {})
    row = next((row for row in ours.values() if row.get("parameters")), None)
    peak = best_peak(content)
    if row is not None and peak:
        share = roofline_share(row, peak)
        yield f"roofline: 2 x {row['parameters'] / 1e6:.1f} M FLOPs a token, {share:.1%} of the peak in the first run"
    if row is not None and row.get("storage_bytes"):
        yield f"key/value storage, stated before the run: {row['storage_bytes'] / 1e9:.2f} GB"
