"""Samples made elsewhere and verdicts that came too late: in the page and the tables where there are any, else not."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from selftrain.report.csvfiles import write_csv
from selftrain.report.markdown import results_markdown
from selftrain.report.write import write_report


def page_of(folder: Path) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", (folder / "report.html").read_text(encoding="utf-8")))


def selection_of(results: dict[str, Any], folder: Path) -> list[dict[str, str]]:
    write_csv(results, folder)
    with (folder / "selection.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_figures(taught: Path, finished: Path) -> None:
    results = write_report(taught)
    fared = results["brought"]["health"]
    assert (fared["completions"], fared["right"], fared["mixed"], fared["all_wrong"], fared["timeouts"]) == (
        3,
        1,
        1,
        1,
        1,
    )
    row = results["selection"][0]
    assert (row["pairing"]["brought"], row["labelling"]["brought"]) == (1, 2)
    plain = write_report(finished)
    assert plain["brought"] is None and plain["selection"][0]["pairing"]["brought"] is None


def test_the_page(taught: Path, finished: Path) -> None:
    write_report(taught)
    page = page_of(taught)
    assert "brought in : 3 answers to 2 questions, 1 right (33.3 %)" in page
    assert "0 without an answer, 1 not judged in time (neither right nor wrong)." in page
    assert "1.50 a question, from 2 questions; 1 with samples made elsewhere" in page
    assert "beside 3 gold; 2 with samples made elsewhere" in page
    assert "&lt;teacher&gt;.jsonl: 3 of 5 rows answer 2 questions, 1 are right." in page
    write_report(finished)
    assert not re.search("made elsewhere|brought in|in time", page_of(finished))


def test_the_tables(taught: Path, finished: Path, tmp_path: Path) -> None:
    results = write_report(taught)
    rows = selection_of(results, tmp_path / "taught-tables")
    assert [(row["arm"], row["drawn_for"], row["completions"], row["timeouts"], row["brought"]) for row in rows] == [
        ("dpo-st", "pairs", "12", "0", "1"),
        ("dpo-st", "labels", "8", "0", "2"),
        ("samples made elsewhere", "pairs, labels", "3", "1", ""),
    ]
    page = results_markdown(results)
    assert "| unparsed | timeouts | cut at limit |" in page and "| over limit | brought |" in page
    assert "| samples made elsewhere |  | pairs, labels | 2 | 3 | 1 | 0 | 1 | 1 | 0 | 1 |" in page
    plain = write_report(finished)
    assert [row["brought"] for row in selection_of(plain, tmp_path / "tables")] == ["", ""]
    page = results_markdown(plain)
    assert "| unparsed | cut at limit |" in page and "brought" not in page and "made elsewhere" not in page
