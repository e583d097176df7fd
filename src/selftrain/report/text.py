"""The results as a compact table for the terminal: plain text, the headline first.

print(results_text(results))
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.redaction import without_secrets
from selftrain.report.wording import PENDING, interval, percent, pick, seconds_text, shown

Json = Mapping[str, Any]


def results_text(results: Json) -> str:
    """The headline sentence, a table per test set, DPO, warnings, time, and where model and report are."""
    return "\n".join([*body_lines(results), "", *(clean(line) for line in _ending(results))])


def body_lines(results: Json) -> list[str]:
    """`results_text` up to the warnings: what was found, with no word of this machine's folders."""
    lines = [results["headline"]["sentence"]]
    for test_set in results["test_sets"]:
        told = results["headline"]["against"] if test_set["name"] == results["headline"]["test_set"] else None
        lines += ["", *_test_set(test_set, told)]
    dpo = [line for row in results["dpo"] for line in _dpo(row)]
    lines += ["", *dpo] if dpo else []
    lines += [_brought(results["brought"])] if results.get("brought") else []
    lines += [f"warning: {row['message']} ({row['stage']})" for row in results["warnings"]]
    return [clean(line) for line in lines]


def clean(text: str) -> str:
    """A line without what would steer a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\N{REPLACEMENT CHARACTER}", text)


def clean_lines(text: str) -> str:
    """`clean`, line by line, and without secrets: for what may hold words of a model, a file, a tool or a user."""
    return "\n".join(map(clean, without_secrets(text).split("\n")))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of text, the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = []
    for line in (header, *rows):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _test_set(test_set: Json, told: str | None) -> Iterator[str]:
    """A set's table and sentences, without the comparison that the headline has told."""
    rows = f"{test_set['rows']} rows" + (f" in {test_set['groups']} groups" if test_set["groups"] > 1 else "")
    yield f"{test_set['name']} ({rows})"
    header = ["", "right %", f"{100 * test_set['confidence']:g} % interval", "strict", "flexible", "calls"]
    yield from table(header, [_model(row) for row in test_set["models"]])
    yield from (row["sentence"] for row in test_set["comparisons"] if row["second"] != told)
    for row in test_set["without_calculator"]:
        yield (
            f"{shown(row)}, the same {row['rows']} rows: {percent(row['with'])} with the calculator, "
            f"{percent(row['without'])} without."
        )
    if alone := _without_neighbour(test_set):
        yield alone


def _model(row: Json) -> list[str]:
    if row["accuracy"] is None:
        return [shown(row), PENDING, "", "", "", ""]
    return [
        shown(row), percent(row["accuracy"]), interval(row["accuracy"]), percent(row["strict"]),
        percent(row["flexible"]), f"{row['calls_per_completion']:.1f}",
    ]  # fmt: skip


def _without_neighbour(test_set: Json) -> str:
    """Accuracies on test rows that are like no training question, where there are other rows too."""
    found = [row for row in test_set["models"] if row.get("without_neighbour")]
    if not found or not 0 < test_set["with_neighbour"] < test_set["rows"]:
        return ""
    figures = ", ".join(f"{shown(row)} {percent(row['without_neighbour'])}" for row in found)
    return f"On the {found[-1]['without_neighbour']['rows']} rows without a near training question: {figures}."


def _dpo(row: Json) -> Iterator[str]:
    after = row["after_training"]
    if row["no_pairs"] or not after:
        return
    yield (
        f"DPO, iteration {row['iteration']}: {row['pairs']} pairs, {row['steps']} steps, reward accuracy "
        f"{after['reward_accuracy']:.0%}, right answers {after['chosen_change_per_token']:+.3f} and wrong ones "
        f"{after['rejected_change_per_token']:+.3f} nats a token"
    )
    if row["after"] and row["sampled_from_dpo"] is not False:
        k, before, now = row["common_k"], row["before"], row["after"]
        changed = row["changed_fraction"]
        differ = "" if changed is None else f"{changed:.0%} of the samples differ at equal seeds; "
        passes = f"pass@{k} {pick(before['pass_at'], k):.1%} -> {pick(now['pass_at'], k):.1%}"
        distinct = f"distinct right texts {before['distinct_right']} -> {now['distinct_right']}"
        yield f"  {differ}{passes}; {distinct}"


def _brought(found: Json) -> str:
    """What samples made elsewhere came to."""
    yields = "".join(
        f"; {row['stage']}: {row['of_them']} of {row['all']} {'pairs' if row['stage'].endswith('/pair') else 'labels'}"
        for row in found["yields"]
    )
    return (
        f"samples from {found['file']}: {found['matched']} of {found['rows']} rows answer {found['questions']} "
        f"questions, {found['right']} are right{yields}"
    )


def _ending(results: Json) -> Iterator[str]:
    run, total = results["run"], results["cost"]["total"]
    yield f"time: {seconds_text(total['seconds'])} in {total['stages']} stages"
    folder = Path(run["folder"])
    if run["delivered"]:
        yield f"model: {folder / 'model'}"
    if run["pending"]:
        yield f"not there yet: {len(run['pending'])} stages, next {run['pending'][0]}; run again to go on"
    yield f"report: {folder / 'report.html'}"
