"""A comparison of two runs as a page, as text for the terminal, and as what the page's sample browser holds.

    results = write_comparison(Path("runs/plain"), Path("runs/beta"), Path("comparison.html"))
    print(comparison_text(results))

The page is made as a run's own is (`pages`), with the same figure, tables and browser. It stands alone, and the run
folders are only read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain import __version__, durable
from selftrain.errors import RunError
from selftrain.report.accuracy import models_of
from selftrain.report.browse import TESTS_BYTES, Source, answer_set
from selftrain.report.compare import LETTERS, CommonSet, common_sets, compare_runs
from selftrain.report.figures import accuracy_figure
from selftrain.report.files import RunFiles
from selftrain.report.pages import render
from selftrain.report.samples import choose
from selftrain.report.text import clean, table
from selftrain.report.wording import interval, percent, seconds_text

Json = Mapping[str, Any]
SHOWN_CHARS = 60  # of a setting, on a terminal


def write_comparison(first: Path, second: Path, target: Path) -> dict[str, Any]:
    """Write the page of B (`second`) against A (`first`), whole or not at all; the comparison as `compare_runs` has it.

    Raises:
        RunError: a folder holds no run, the two cannot be compared, or the page cannot be written.
    """
    if not target.parent.is_dir():
        raise RunError(f"{target}: there is no folder {target.parent}.", f"Make it first: mkdir -p {target.parent}")
    runs = RunFiles(first), RunFiles(second)
    results = compare_runs(*runs)
    durable.write(target, comparison_page(results, runs).encode("utf-8", errors="replace"))
    return results


def comparison_page(results: Json, runs: tuple[RunFiles, RunFiles]) -> str:
    """The whole page."""
    from markupsafe import Markup

    shared = {one.title: one for one in common_sets(*runs)}
    figures = {
        one["name"]: Markup(accuracy_figure(_dots(one), f"Accuracy of both runs' models on common set {number}"))
        for number, one in enumerate(results["sets"], start=1)
    }
    sets = [_browser_set(one, shared[one["name"]], runs, len(results["sets"])) for one in results["sets"]]
    main = results["sets"][0]
    return render(
        "compare.html.j2", made_by=__version__, browser={"sets": sets}, figures=figures,
        samples=_samples(main, shared[main["name"]], runs), **results,
    )  # fmt: skip


def _dots(one: Json) -> list[dict[str, Any]]:
    return [{**row["accuracy"], "kind": row["kind"], "label": row["label"]} for row in one["models"]]


def _browser_set(one: Json, common: CommonSet, runs: tuple[RunFiles, RunFiles], num_sets: int) -> dict[str, Any]:
    """Every evaluated model of both runs on the common problems; begins with the two that are compared."""
    sources: list[Source] = []
    place: dict[tuple[str, str], int] = {}
    for letter, run, name in zip(LETTERS, runs, common.names, strict=True):
        for model in models_of(run.config):
            found = run.evaluation(model.stage(name))
            if found:
                place[letter, model.stage(name)] = len(sources)
                sources.append(Source.of(f"{letter}: {model.label}", model.extraction, found))
    first, second = (place[letter, _main(one, letter)["stage"]] for letter in LETTERS)
    return answer_set(f"test set {one['name']}", common.problems, sources, first, second, TESTS_BYTES // num_sets)


def _main(one: Json, letter: str) -> Json:
    """The row of a run's delivered (else newest) model."""
    row: Json = next(row for row in one["models"] if row["run"] == letter and row["role"] == "main")
    return row


def _samples(one: Json, common: CommonSet, runs: tuple[RunFiles, RunFiles]) -> list[dict[str, Any]]:
    """Some problems to read where there is no script, and in print."""
    before, after = (
        run.evaluation(_main(one, letter)["stage"]) or [] for letter, run in zip(LETTERS, runs, strict=True)
    )
    return choose(common.problems, before, after)


def comparison_text(results: Json) -> str:
    """The comparison for the terminal: the headline, a table a set, and the settings that differ."""
    lines = [results["headline"]["sentence"], ""]
    for run in results["runs"]:
        state = "" if run["finished"] else ", not finished"
        lines.append(
            f"{run['letter']}: {run['folder']} ({run['method']}, {run['model']}, seed {run['seed']}, "
            f"{seconds_text(run['seconds'])}{state})"
        )
    for one in results["sets"]:
        lines += ["", *_set_lines(one)]
    lines += ["", *_setting_lines(results["settings"])]
    return "\n".join(clean(line) for line in lines)


def _set_lines(one: Json) -> list[str]:
    in_groups = f" in {one['groups']} groups" if one["groups"] > 1 else ""
    header = ["", "right %", f"{100 * one['confidence']:g} % interval"]
    rows = [[row["label"], percent(row["accuracy"]), interval(row["accuracy"])] for row in one["models"]]
    return [
        f"{one['name']} ({one['rows']} common problems{in_groups}; A has {one['in_all'][0]}, B {one['in_all'][1]})",
        *table(header, rows),
        *(
            f"{row['sentence']} B alone right on {row['only_second']}, A alone on {row['only_first']}; "
            f"McNemar p = {row['mcnemar_p_value']:.2g}."
            for row in one["comparisons"]
        ),
    ]


def _setting_lines(settings: list[Json]) -> list[str]:
    if not settings:
        return ["No setting differs."]
    rows = [[row["key"], *(_short(row[letter]) for letter in LETTERS)] for row in settings]
    return table(["settings that differ", *LETTERS], rows)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."
