"""Everything that a run's files say, as one JSON-ready dict: what results.json holds and the page shows.

    results = collect(RunFiles(Path("runs/quickstart")))
    results["headline"]["sentence"], results["test_sets"][0]["models"]

Shares are fractions in [0, 1], times are seconds, counts are integers; only sentences are formatted text.
"""

from __future__ import annotations

from typing import Any

from selftrain.report.account import brought_samples, cost_results, data_facts, environment, lineage, run_facts
from selftrain.report.accuracy import headline, test_set_results
from selftrain.report.files import RunFiles
from selftrain.report.learning import learning_results

FORMAT = 1  # raised when a key of results.json changes its meaning


def collect(run: RunFiles) -> dict[str, Any]:
    """The results of a run folder, finished or not."""
    sets = [test_set_results(run, name) for name in run.test_sets]
    return {
        "format": FORMAT,
        "run": run_facts(run),
        "headline": headline(run, sets[0] if sets else None),
        "test_sets": sets,
        **learning_results(run),
        "warnings": warnings_of(run),
        "cost": cost_results(run),
        "data": data_facts(run),
        "brought": brought_samples(run),
        "environment": environment(run),
        "lineage": lineage(run),
    }


def warnings_of(run: RunFiles) -> list[dict[str, str]]:
    """What the journal warns of, each thing once (a resumed run says it again), in order; then damaged files."""
    told = [(str(event.get("stage", "")), text) for event in run.journal if (text := _warning(event)) is not None]
    return [{"stage": stage, "message": message} for stage, message in dict.fromkeys([*told, *run.damaged])]


def _warning(event: dict[str, Any]) -> str | None:
    """What an event of the journal warns of."""
    if event.get("event") == "collapse":
        return f"DPO collapsed ({event.get('reason', '')}); the SFT model sampled instead."
    if event.get("event") == "no-pairs":
        return "No pair in the whole pool of samples: this iteration went on as plain ST."
    return str(event.get("message", "")) if event.get("event") == "warning" else None
