"""`write_report`: make results.json and report.html from a run folder's files, each whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selftrain import durable
from selftrain.redaction import redacted
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.report.html import page, page_extras
from selftrain.stagefolder import write_json

RESULTS, PAGE = "results.json", "report.html"


def write_report(folder: Path) -> dict[str, Any]:
    """Write both files into the run folder, finished or not, and return what results.json holds.

    Raises:
        RunError: the folder holds no run.
        DataError: a damaged file of a finished stage.
    """
    run = RunFiles(folder)
    results: dict[str, Any] = redacted(collect(run))
    write_json(folder / RESULTS, results)
    durable.write(folder / PAGE, page(results, page_extras(run, results)).encode("utf-8", errors="replace"))
    return results
