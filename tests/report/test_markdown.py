"""The Markdown page: figures, cost and digests, and no folder of the machine it was made on."""

from __future__ import annotations

from pathlib import Path

from selftrain.report.markdown import results_markdown
from selftrain.report.write import write_report


def test_the_page_tells_figures_cost_and_digests_but_no_path(finished: Path) -> None:
    results = write_report(finished)
    page = results_markdown(results)
    assert results["headline"]["sentence"] in page
    assert "| 1-iteration/sft | training and sampling |" in page
    assert results["run"]["delivered"]["digest"][:16] in page
    assert "pseudo-labels written by" in page
    assert str(finished) not in page and str(finished.parent) not in page
