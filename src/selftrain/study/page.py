"""The page of a study: one self-contained HTML file beside its run folders, with links into their reports.

    study_page(results)

Made as a run's page is (report/pages.py), with the same style, figures and policy. It works for a study that is not
finished: what is not there says so, and a run without a report of its own is named and not linked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain import __version__
from selftrain.report.figures import compute_figure, iteration_figure
from selftrain.report.pages import render
from selftrain.report.progression import Line
from selftrain.report.write import PAGE
from selftrain.study.parts import looped, parts_of
from selftrain.study.text import head, states, title, why_not

Json = Mapping[str, Any]


def study_page(results: Json) -> str:
    """The whole page; its links are relative to the study's folder."""
    sets, study = results["sets"], results["study"]
    return render(
        "study.html.j2", browser=None, made_by=__version__, **results,
        head=head(results), states=list(states(results)), parts=parts_of(results), figures=_figures(results),
        shows_table="table" in study["show"],
        titles={one["name"]: title(one) for one in sets},
        by_arm={one["name"]: {row["arm"]: row for row in one["arms"]} for one in sets},
        reasons={one["name"]: {row["arm"]: why_not(row) for row in one["arms"]} for one in sets},
        has_paper=any(row["paper"] is not None for one in sets for row in one["arms"]),
        pages={run["run"]: f"{run['run']}/{PAGE}" for run in results["runs"] if run["page"]},
        warnings=[(run["run"], message) for run in results["runs"] for message in run["warnings"]],
        study_text=_yaml(study),
    )  # fmt: skip


def _figures(results: Json) -> dict[str, Any]:
    """SVG by the key of the part that it belongs to."""
    from markupsafe import Markup

    figures = {}
    for number, test_set in enumerate(results["sets"], start=1):
        name, shown = test_set["name"], results["study"]["show"]
        loops = [_line(line, "iteration") for line in looped(test_set["lines"])]
        costs = [line for line in (_line(one, "flops") for one in test_set["lines"]) if line.points]
        if loops and "iterations" in shown:
            svg = iteration_figure(loops, f"Accuracy by iteration on test set {number}")
            figures[f"iterations {name}"] = Markup(svg)
        if costs and "compute" in shown:
            svg = compute_figure(costs, f"Accuracy against FLOPs on test set {number}")
            figures[f"compute {name}"] = Markup(svg)
    return figures


def _line(line: Json, across: str) -> Line:
    """A line of a figure; a model that took no FLOPs, or of which they are not known, has no place on their axis."""
    points: list[tuple[float, Json]] = [
        (point[across], {"accuracy": point["mean"]["value"], **point["mean"]})
        for point in line["points"]
        if across == "iteration" or point[across]
    ]
    return Line(line["arm"], "arm", points)


def _yaml(study: Json) -> str:
    import yaml

    return yaml.safe_dump(dict(study), sort_keys=False, allow_unicode=True)
