"""What a study shows beside its main table, as tables of text: for the terminal, for Markdown and for the page alike.

    for part in parts_of(results):
        part.title, part.note, part.header, part.rows, part.runs      # the runs that each row was counted from

Which parts there are is the study's `show`; a part of which nothing is there yet is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selftrain.report.wording import flops_text

Json = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a part, and the runs that it was counted from."""

    cells: Sequence[str]
    runs: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Part:
    """A table; the first column names the line."""

    kind: str
    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Row]
    test_set: str = ""

    @property
    def key(self) -> str:
        """What its figure goes by."""
        return f"{self.kind} {self.test_set}"


def parts_of(results: Json) -> list[Part]:
    """The parts that have a row."""
    makers = {
        "iterations": _iterations, "dpo-step": _dpo_steps, "compute": _compute, "calculator": _calculator,
        "speed": _speed,
    }  # fmt: skip
    parts = [part for kind in results["study"]["show"] if kind in makers for part in makers[kind](results)]
    return [part for part in parts if part.rows]


def span(figures: Json, sign: str = "") -> str:
    """An interval, in %."""
    return f"{100 * figures['low']:{sign}.1f} to {100 * figures['high']:{sign}.1f}"


def looped(lines: Sequence[Json]) -> list[Json]:
    """The lines that have an iteration after the warm-up."""
    return [line for line in lines if any(point["iteration"] for point in line["points"])]


def _iterations(results: Json) -> Iterator[Part]:
    for test_set in results["sets"]:
        lines = looped(test_set["lines"])
        last = max((point["iteration"] for line in lines for point in line["points"]), default=0)
        numbers = range(last + 1)
        rows = []
        for line in lines:
            points = {point["iteration"]: point for point in line["points"]}
            cells = [_accuracy(points[number]) if number in points else "" for number in numbers]
            rows.append(Row([line["arm"], *cells], _runs(line["points"])))
            paper = [points[number]["paper"] if number in points else None for number in numbers]
            if any(one is not None for one in paper):
                told = ["" if one is None else f"{one:.1f}" for one in paper]
                rows.append(Row([f"{line['arm']}, the paper", *told], []))
        header = ["iteration", *(str(number) for number in numbers)]
        note = "Right answers, %, with intervals; iteration 0 is the warm-up model."
        title = f"{test_set['name']}: accuracy by iteration"
        yield Part("iterations", title, note, header, rows, test_set["name"])


def _compute(results: Json) -> Iterator[Part]:
    for test_set in results["sets"]:
        rows = [
            Row(
                [_point_name(line, point), f"{100 * point['mean']['value']:.1f}", span(point["mean"]),
                 flops_text(point["flops"])],
                _runs([point]),
            )
            for line in test_set["lines"]
            for point in line["points"]
        ]  # fmt: skip
        note = (
            "FLOPs of all training and sampling that a model was made by, evaluations left out: 6 N a token trained "
            "on, 2 N a token sampled or read."
        )
        title = f"{test_set['name']}: accuracy against FLOPs"
        yield Part("compute", title, note, ["", "right %", "interval", "FLOPs"], rows, test_set["name"])


def _dpo_steps(results: Json) -> Iterator[Part]:
    rows = []
    for step in results["dpo_steps"]:
        name = f"{step['arm']}, iteration {step['iteration']}"
        for one in step["passes"]:
            sides = [f"{100 * one[side]:.1f}" for side in ("before", "after")]
            change = [f"{100 * one['change']['value']:+.1f}", span(one["change"], "+"), one["verdict"]]
            rows.append(Row([f"{name}: pass@{one['k']}, %", *sides, *change], step["runs"]))
        before, after = step["distinct"]
        counts = [f"{before:,.1f}", f"{after:,.1f}", f"{after - before:+,.1f}", "", ""]
        rows.append(Row([f"{name}: distinct right texts, first {step['k']} a question", *counts], step["runs"]))
    note = (
        "Answers that were sampled for the same questions of U, by the SFT model and then by the DPO "
        "model that was trained from it."
    )
    header = ["", "before", "after", "change", "interval", "verdict"]
    yield Part("dpo-step", "what the DPO step does", note, header, rows)


def _calculator(results: Json) -> Iterator[Part]:
    rows = [
        Row(
            [f"{test_set['name']}, {arm['arm']}, {one['run']}", f"{one['right']:,}", f"{one['wrong_step']:,}",
             *([f"{100 * one['wrong_step'] / one['right']:.1f}", span(one)] if one["right"] else ["", ""])],
            [one["run"]],
        )
        for test_set in results["sets"]
        for arm in test_set["arms"]
        for one in arm["steps"]
    ]  # fmt: skip
    note = "A step is wrong where its expression can be computed and the result beside it is another number."
    header = ["", "right answers", "with a wrong step", "%", "interval"]
    yield Part("calculator", "right answers with a wrong step", note, header, rows)


def _speed(results: Json) -> Iterator[Part]:
    reference = results["study"]["reference"]
    for test_set in results["sets"]:
        speeds = {arm["arm"]: arm["speed"] for arm in test_set["arms"] if arm["speed"]}
        rows = []
        for name, found in speeds.items():
            base = speeds.get(reference)
            times = [f"{found[unit] / base[unit]:.2f}" if base and base[unit] else "" for unit in ("tokens", "answers")]
            each = [f"{found[unit]:,.1f}" for unit in ("tokens", "answers")]
            rows.append(Row([name, *each, *times], _runs([found])))
        header = ["", "tokens/s", "answers/s", f"tokens over {reference}", f"answers over {reference}"]
        note = "Wall time of the whole evaluation, loading the model included."
        yield Part("speed", f"{test_set['name']}: speed", note, header, rows, test_set["name"])


def _accuracy(point: Json) -> str:
    return f"{100 * point['mean']['value']:.1f} ({span(point['mean'])})"


def _point_name(line: Json, point: Json) -> str:
    return line["arm"] if point["iteration"] is None else f"{line['arm']}, iteration {point['iteration']}"


def _runs(points: Sequence[Json]) -> list[str]:
    """The runs of some points, each once."""
    return list(dict.fromkeys(run["run"] for point in points for run in point["runs"]))
