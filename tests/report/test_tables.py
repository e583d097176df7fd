"""The tables as CSV and Markdown: the figures of results.json, and nothing that a spreadsheet or a page would run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import RunError
from selftrain.report.csvfiles import csv_text, neutral, write_csv
from selftrain.report.markdown import escaped, markdown_table, results_markdown
from selftrain.report.tables import Table, tables
from selftrain.report.write import write_report


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_file_a_table_with_the_figures_of_the_results(finished: Path, tmp_path: Path) -> None:
    results = write_report(finished)
    written = write_csv(results, tmp_path / "new" / "tables")
    assert [path.name for path in written] == [
        "accuracy.csv", "comparisons.csv", "stages.csv", "selection.csv", "dpo.csv", "data.csv",
    ]  # fmt: skip
    accuracy, comparisons, stages, selection, dpo, data = map(read, written)
    delivered = next(row for row in accuracy if row["delivered"] == "yes" and row["test_set"] == "first")
    assert (delivered["right"], delivered["rows"], float(delivered["accuracy"])) == ("18", "20", 0.9)
    assert float(delivered["strict_low"]) == results["test_sets"][0]["models"][-1]["strict"]["low"]
    assert [(row["test_set"], row["second"], row["verdict"]) for row in comparisons][1] == (
        "first",
        "warm-up",
        "better",
    )
    assert float(comparisons[1]["difference"]) == 0.65 and comparisons[1]["only_a"] == "14"
    assert len(stages) == len(results["cost"]["stages"]) and stages[0]["stage"] == "data"
    assert [(row["drawn_for"], row["right"], row["kept"]) for row in selection] == [
        ("pairs", "6", "3"),
        ("labels", "5", "3"),
    ]
    assert (dpo[0]["pairs"], dpo[0]["k"], float(dpo[0]["pass_at_k_after"])) == ("3", "2", 0.75)
    assert data[0]["path"] == "'=<a>.jsonl" and data[0]["over_limit"] == "2"


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", "=HYPERLINK(\"http://x\";1)"]
)  # fmt: skip
def test_text_that_a_spreadsheet_would_run_is_neutralised(text: str) -> None:
    found = str(neutral(text))
    assert found.startswith("'") and found[1:].strip() != ""
    line = csv_text(Table("t", ("a", "b"), [(text, 1)])).split("\r\n", 1)[1]
    assert line.startswith("\"'"), "quoted, so that a ; of another country's spreadsheet opens no cell"


def test_numbers_stay_numbers_and_text_stays_text() -> None:
    text = csv_text(Table("t", ("name", "x", "n", "yes", "none"), [('say "hi"; =1', -0.5, -3, True, None)]))
    assert text == '"name","x","n","yes","none"\r\n"say ""hi""; =1",-0.5,-3,"yes",""\r\n'
    assert neutral("p = 0.5") == "p = 0.5" and neutral("1-iteration/sft") == "1-iteration/sft"


def test_an_unfinished_run_has_its_tables_too(make_until: Any, tmp_path: Path) -> None:
    written = write_csv(write_report(make_until("data")), tmp_path)
    accuracy, comparisons = read(written[0]), read(written[1])
    assert [row["accuracy"] for row in accuracy if row["test_set"] == "first"] == [""] * 4 and comparisons == []


def test_a_folder_that_cannot_be_made_is_a_user_error(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="tables cannot be written"):
        write_csv(write_report(finished), tmp_path / "file" / "tables")


def test_every_row_is_as_long_as_its_header(finished: Path) -> None:
    for table in tables(write_report(finished)):
        assert table.rows and {len(row) for row in table.rows} == {len(table.header)}


def test_markdown_has_the_same_tables(finished: Path) -> None:
    page = results_markdown(write_report(finished))
    assert "## Comparisons\n\n| test set | first | second |" in page
    assert "| first | iteration-1 | warm-up | warm-up (SFT on labelled) | 0.65 |" in page
    assert "| dpo-st | 1 | labels | 4 | 8 | 5 |" in page


def test_markdown_escapes_and_leaves_out_empty_columns() -> None:
    table = Table("t", ("a", "b_c", "none"), [("<b>|`x`\n[y](z)", 1234, None), ("x", 0.123456, None)])
    assert list(markdown_table(table)) == [
        "| a | b c |", "|---|--:|", "| &lt;b&gt;&#124;&#96;x&#96; &#91;y](z) | 1,234 |", "| x | 0.1235 |",
    ]  # fmt: skip


def test_names_of_the_configuration_are_escaped_in_markdown(hostile_run: Path) -> None:
    page = results_markdown(write_report(hostile_run))
    assert "<script>" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert escaped("\x1b[1m") == "\N{REPLACEMENT CHARACTER}&#91;1m"
