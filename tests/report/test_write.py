"""results.json and report.html are made from files alone, whole, and the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selftrain.report.write import write_report


def test_results_json_is_what_is_returned(finished: Path) -> None:
    results = write_report(finished)
    assert json.loads((finished / "results.json").read_text(encoding="utf-8")) == results
    json.dumps(results, allow_nan=False)


def test_both_files_are_made_again_to_the_byte(finished: Path) -> None:
    write_report(finished)
    first = [(finished / name).read_bytes() for name in ("results.json", "report.html")]
    for name in ("results.json", "report.html"):
        (finished / name).unlink()
    write_report(finished)
    assert [(finished / name).read_bytes() for name in ("results.json", "report.html")] == first


def test_a_failure_leaves_the_old_page(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(finished)
    before = (finished / "report.html").read_bytes()

    def fails(*_: object) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr("selftrain.report.write.page", fails)
    with pytest.raises(RuntimeError, match="no page"):
        write_report(finished)
    assert (finished / "report.html").read_bytes() == before
    assert not list(finished.glob(".*.tmp"))
