"""A study's results as plain rows for CSV: a line for each arm and test set, with the runs that it was counted from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selftrain.report.tables import Cell, Table

Json = Mapping[str, Any]
HEADER = (
    "arm", "model", "test_set", "problems", "groups", "accuracy", "low", "high", "seeds", "seed_error", "against",
    "difference", "difference_low", "difference_high", "compared_seeds", "p_value", "verdict", "not_compared",
    "paper_percent", "paper_low", "paper_high", "samples", "steps", "runs",
)  # fmt: skip


def study_table(results: Json) -> Table:
    """The table; its header stands also where there is no row yet."""
    rows = [row for test_set in results["sets"] for row in _rows(test_set)]
    return Table("study", HEADER, rows)


def runs_text(row: Json) -> str:
    """The runs of an arm's figures with the stage that was counted, in words.

    >>> runs_text({"runs": [{"run": "k3/seed-0", "stage": "1-iteration/evaluate/svamp"}]})
    'k3/seed-0 (1-iteration/evaluate/svamp)'
    """
    stages = {run["stage"] for run in row["runs"]}
    if len(stages) == 1:
        return f"{', '.join(run['run'] for run in row['runs'])} ({stages.pop()})"
    return ", ".join(f"{run['run']} ({run['stage']})" for run in row["runs"])


def _rows(test_set: Json) -> Iterator[tuple[Cell, ...]]:
    for row in test_set["arms"]:
        mean, against = row["mean"] or {}, row["comparison"] or {}
        band = row["paper_band"] or [None, None]
        yield (
            row["arm"], row["model"], test_set["name"], test_set["rows"], test_set["groups"],
            *(mean.get(name) for name in ("value", "low", "high")), len(row["runs"]), mean.get("seed_error"),
            *(against.get(name) for name in ("against", "value", "low", "high")), len(against.get("by_seed", [])),
            *(against.get(name) for name in ("p_value", "verdict")), row["not_compared"] or None,
            row["paper"], *band, _budget(row, "samples"), _budget(row, "steps"), runs_text(row),
        )  # fmt: skip


def _budget(row: Json, name: str) -> float | None:
    """The mean over seeds of what an arm's model took."""
    found = [run[name] for run in row["runs"] if run[name] is not None]
    return sum(found) / len(found) if found else None
