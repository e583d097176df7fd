"""Accuracy by iteration: which line of the figure a model of the table lies on, and where.

    by_iteration(test_set["models"])   # [Line("trained model", "iteration", [(0, {...}), (1, {...}), (2, {...})]), ...]

The warm-up model is iteration 0 of the run's own line and of each baseline arm, which all begin with it. A run whose
lines have one iteration only needs no such figure: the table's says it all.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
_ITERATION = re.compile(r"(?:^|/)(\d+)-iteration/")
OWN, SAMPLER = "trained model", "DPO sampler"


@dataclasses.dataclass(slots=True)
class Line:
    """One line: its name, the kind of model that it shows (`figures.MODEL_MARKS`, or `arm` of a study), its accuracies.

    `points`: (iteration, accuracy), or (FLOPs, accuracy).
    """

    label: str
    kind: str
    points: list[tuple[float, Json]]


def by_iteration(models: Sequence[Json]) -> list[Line]:
    """The lines through a test set's evaluated models; none where no line has two iterations."""
    lines: dict[str, Line] = {}
    for row in models:
        number = _ITERATION.search(row["stage"])
        if number is None or not row["accuracy"]:
            continue
        name = {"iteration": OWN, "sampler": SAMPLER}.get(row["kind"], row["label"].partition(", iteration")[0])
        line = lines.setdefault(name, Line(name, row["kind"], []))
        line.points.append((int(number[1]), row["accuracy"]))
    if all(len(line.points) < 2 for line in lines.values()):
        return []
    start = next((row["accuracy"] for row in models if row["kind"] == "warm-up" and row["accuracy"]), None)
    for line in lines.values():
        if start is not None and line.kind != "sampler":
            line.points.insert(0, (0, start))
    return list(lines.values())
