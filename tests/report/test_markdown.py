"""The Markdown page: figures, cost and digests, and no folder of the machine it was made on."""

from __future__ import annotations

from pathlib import Path

from selftrain.report.html import headline_figure
from selftrain.report.markdown import results_markdown
from selftrain.report.write import write_report


def test_the_page_tells_figures_cost_and_digests_but_no_path(finished: Path) -> None:
    results = write_report(finished)
    page = results_markdown(results)
    assert results["headline"]["sentence"] in page
    assert "| 1-iteration/sft | training and sampling |" in page
    assert results["run"]["delivered"]["digest"][:16] in page
    assert "pseudo-labels written by" in page
    assert "- `selftrain run config.yaml`, the run folder's." in page, "no recipe is called tiny"
    of_a_recipe = {**results, "run": {**results["run"], "recipe": "smoke"}}
    assert "- `selftrain run smoke`\n" in results_markdown(of_a_recipe)
    assert str(finished) not in page and str(finished.parent) not in page


def test_the_headline_figure_is_one_svg_of_the_first_set(finished: Path) -> None:
    figure = headline_figure(write_report(finished))
    assert figure.startswith("<svg") and figure.endswith("</svg>") and "first" in figure


def test_a_run_without_evaluations_has_no_headline_figure() -> None:
    assert headline_figure({"test_sets": []}) == ""
