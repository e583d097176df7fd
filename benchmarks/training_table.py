"""The targets of `training`, a repetition's record, and the results as text. Pure functions.

Targets are judged by `targets.py`. Memory is what a process holds at its peak above weights, gradients and optimiser
state, a token of its largest micro-batch: micro-batches are of about equal tokens, not of exactly equal ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.table import machine_lines, target_lines
from benchmarks.targets import Target, best_peak, judge_all, roofline_share
from benchmarks.training_rivals import TRAINERS
from selftrain.report.text import clean, table

Json = Mapping[str, Any]
PAIRS, TOKENS, MEMORY = "pairs_per_s", "tokens_per_s", "memory_per_token"
SPEED = {"dpo": PAIRS, "single": PAIRS, "sft": TOKENS}  # by task, whose name is also that of our own system
HEADER = (
    "", "steps", "runs", "pairs/s", "tokens/s", "lowest to highest", "times", "reference s", "after s",
    "computed/useful", "micro-batch", "MB above", "kB a token", "roofline %",
)  # fmt: skip

TARGETS = (
    Target("DPO, the run's pairs, over TRL", "speed", "dpo", "dpo-trl", 2.0, field=PAIRS),
    Target("DPO, one pair a question, over TRL", "speed", "single", "single-trl", 1.3, field=PAIRS),
    Target("SFT over TRL without packing", "speed", "sft", "sft-trl", 1.5, field=TOKENS),
    Target(
        "SFT over TRL with packing", "speed", "sft", "sft-trl-packed", 1.15, field=TOKENS, where_it_runs=True
    ),
    Target("DPO, memory a token over TRL's", "memory", "dpo", "dpo-trl", 0.6, at_most=True, field=MEMORY),
    Target("SFT, memory a token over TRL's", "memory", "sft", "sft-trl", 0.6, at_most=True, field=MEMORY),
    Target("DPO, share of the roofline", "roofline", "dpo", "", 0.55, stretch=0.65),
    Target("SFT, share of the roofline", "roofline", "sft", "", 0.55, stretch=0.65),
)  # fmt: skip


def summary(found: Json) -> dict[str, Any]:
    """A repetition's record from what its process said: rates, and memory above the steady part."""
    above = max(found["peak_memory_bytes"] - found["steady_memory_bytes"], 0)
    times = {name: round(value, 3) for name, value in found.items() if name.endswith("seconds")}
    return {
        **found,
        **times,
        PAIRS: round(found["pairs"] / found["seconds"], 4),
        TOKENS: round(found["tokens"] / found["seconds"], 2),
        "memory_above_bytes": above,
        MEMORY: round(above / found["micro_batch_tokens"]),
    }


def text(content: Json, wanted: Sequence[str], quick: bool) -> str:
    """All of it: a table a task, settings, targets, what failed, the machine."""
    blocks = [[*block, ""] for task in SPEED if (block := _task(content, task))]
    lines = [line for block in blocks for line in block]
    lines += [*_settings(content), "", *target_lines(judge_all(content, wanted, quick, TARGETS)), ""]
    lines += [f"not measured: {_title(name)}: {reason}" for name, reason in content["failures"].items()]
    return "\n".join(clean(line) for line in [*lines, *machine_lines(content), *_versions(content)])


def _title(name: str) -> str:
    return f"{TRAINERS[name].task}, {TRAINERS[name].label}"


def _task(content: Json, task: str) -> list[str]:
    names = [name for name in TRAINERS if TRAINERS[name].task == task and content["records"].get(name)]
    if not names:
        return []
    return [_work(task, content["tasks"][task]), *table(HEADER, [_row(content, name) for name in names])]


def _work(name: str, task: Json) -> str:
    items = f"{task['pairs']} pairs of {task['questions']} questions" if task["pairs"] else f"{task['questions']} rows"
    notes = "".join(f"; {note}" for note in task["notes"])
    return (
        f"{name}: {items} in {task['steps']} steps of about {task['batch_size']}, {task['tokens']} distinct tokens; "
        f"work {task['fingerprint']}, weights {task['weights'][:12]}{notes}"
    )


def _row(content: Json, name: str) -> list[str]:
    field = SPEED[TRAINERS[name].task]
    records, own = content["records"][name], content["records"].get(TRAINERS[name].task, {})
    found = list(records.values())
    rates = [row[field] for row in found]
    both = [own[key][field] / records[key][field] for key in own.keys() & records.keys()]
    peak = best_peak(content)
    is_earlier = any(row.get("code", content.get("code")) != content.get("code") for row in found)

    def middle(key: str) -> float:
        return float(statistics.median(row.get(key, 0) for row in found))

    return [
        TRAINERS[name].label + (" (earlier code)" if is_earlier else ""),
        str(found[0]["steps"]),
        str(len(found)),
        f"{middle(PAIRS):.3f}" if field == PAIRS else "",
        f"{middle(TOKENS):.1f}",
        f"{min(rates):.4g} to {max(rates):.4g}",
        f"{statistics.median(both):.2f}" if both else "",
        f"{middle('reference_seconds'):.1f}" if field == PAIRS else "",
        f"{middle('after_seconds'):.1f}" if field == PAIRS else "",
        f"{found[0]['computed_tokens'] / found[0]['tokens']:.2f}",
        str(found[0]["micro_batch_tokens"]),
        f"{middle('memory_above_bytes') / 1e6:.0f}",
        f"{middle(MEMORY) / 1e3:.0f}",
        f"{100 * statistics.median(roofline_share(row, peak) for row in found):.1f}" if peak else "",
    ]


def _settings(content: Json) -> Iterator[str]:
    """What each trained with, from its first record."""
    for name in TRAINERS:
        for record in list(content["records"].get(name, {}).values())[:1]:
            told = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
            yield f"{_title(name)}: {told}"


def _versions(content: Json) -> Iterator[str]:
    for name in TRAINERS:
        for record in list(content["records"].get(name, {}).values())[:1]:
            if TRAINERS[name].layout is None:
                yield "rivals' packages: " + ", ".join(f"{key} {value}" for key, value in record["versions"].items())
                return
