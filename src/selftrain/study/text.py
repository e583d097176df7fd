"""A study's results as text for the terminal, and as a Markdown page: one row an arm, columns for each test set.

    print(study_text(results, expect=True))
    Path("study.md").write_text(study_markdown(results, expect=True))

`expect` puts the paper's figure beside ours, with the band in which a model of that accuracy would lie on as many
problems. What a study shows beside that table (parts.py) follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selftrain.recipe import short_name
from selftrain.report.markdown import escaped
from selftrain.report.text import clean, table
from selftrain.study.collect import MISSING, NOT_ASKED, PENDING
from selftrain.study.parts import parts_of, span
from selftrain.study.tables import runs_text

Json = Mapping[str, Any]


def study_text(results: Json, *, expect: bool = False) -> str:
    """What is there, a table and the sentences for each test set, and the runs that they come from."""
    rows = [row for test_set in results["sets"] for row in test_set["arms"]]
    known = results["paper_says"] or any(row["paper"] is not None for row in rows)
    lines = [head(results), *states(results)]
    lines += ["The paper has no figure for this base model."] if expect and not known else []
    for test_set in results["sets"] if "table" in results["study"]["show"] else ():
        lines += ["", title(test_set)]
        header = ["", "right %", "interval", "seeds", "difference", "interval", "verdict"]
        header += ["paper %", "band"] if expect and known else []
        cells = [[*_cells(row, results), *_paper(row, bool(expect and known))] for row in test_set["arms"]]
        lines += table(header, cells)
        lines += [row["comparison"]["sentence"] for row in test_set["arms"] if row["comparison"]]
        lines += by_seed(test_set)
    for part in parts_of(results):
        lines += ["", part.title, *table(part.header, [row.cells for row in part.rows]), part.note]
    lines += ["", results["paper_says"]] if expect and results["paper_says"] else []
    lines += ["", *_sources(results)]
    return "\n".join(clean(line) for line in lines)


def study_markdown(results: Json, *, expect: bool = False) -> str:
    """The same as a page: one table, rows are arms, each test set has its columns."""
    lines = [
        f"# {escaped(results['study']['name'])}", "", *_described(results),
        *(f"{escaped(line)}\n" for line in (head(results), *states(results))),
    ]  # fmt: skip
    if "table" in results["study"]["show"]:
        lines += [*_markdown_arms(results, expect), "", *(f"- {escaped(line)}" for line in sentences(results)), ""]
    for part in parts_of(results):
        lines += [f"## {escaped(part.title)}", "", f"{escaped(part.note)}", ""]
        lines += [*_markdown_table(part.header, [row.cells for row in part.rows]), ""]
    lines += [f"{escaped(results['paper_says'])}\n"] if expect and results["paper_says"] else []
    lines += ["Runs that the figures come from:", "", *(f"- {escaped(line)}" for line in _sources(results))]
    return "\n".join(lines) + "\n"


def sentences(results: Json) -> list[str]:
    """What the intervals say, in words, and each seed's own difference."""
    sets = results["sets"]
    told = [row["comparison"]["sentence"] for test_set in sets for row in test_set["arms"] if row["comparison"]]
    return [*told, *(line for test_set in sets for line in by_seed(test_set))]


def _markdown_arms(results: Json, expect: bool) -> list[str]:
    """The main table: rows are arms, each test set has its columns."""
    reference, sets = results["study"]["reference"], results["sets"]
    header = ["arm", *(column for test_set in sets for column in _columns(test_set, reference, expect))]
    rows = [
        [arm, *(cell for test_set in sets for cell in _markdown_cells(test_set["arms"][number], expect))]
        for number, arm in enumerate(results["study"]["arms"])
    ]
    return _markdown_table(header, rows)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(escaped(cell) for cell in cells) + " |" for cells in (header, *rows)]
    return [lines[0], "|---|" + "--:|" * (len(header) - 1), *lines[1:]]


def head(results: Json) -> str:
    """The study in a line; its recipe is that of the base model where the study names one for it."""
    study = results["study"]
    recipe = short_name(study["bases"].get(results["model"], study["recipe"]))
    done = sum(run["state"] == "finished" for run in results["runs"])
    return (
        f"{study['name']} over {recipe}: {results['model']}, seeds {', '.join(map(str, study['seeds']))}; differences "
        f"are to {study['reference']}, intervals {100 * results['confidence']:g} %; {done} of {len(results['runs'])} "
        "runs are finished"
    )


def states(results: Json) -> Iterator[str]:
    """Runs that are not finished, and test sets that some do not have."""
    for run in results["runs"]:
        if run["state"] != "finished":
            following = f", next {run['next']}" if run["next"] else ""
            yield f"{run['run']}: {run['state']}{following}"
    for test_set in results["sets"]:
        if test_set["missing_in"]:
            yield f"test set {test_set['name']} is missing in {', '.join(test_set['missing_in'])}"


def title(test_set: Json) -> str:
    """A test set with its size."""
    groups = f" in {test_set['groups']} groups" if test_set["groups"] else ""
    return f"{test_set['name']} ({test_set['rows']:,} problems{groups})"


def _cells(row: Json, results: Json) -> list[str]:
    """An arm's line in the terminal's table."""
    name = row["arm"] if row["arm"] != results["study"]["reference"] else f"{row['arm']} (reference)"
    mean, against = row["mean"], row["comparison"]
    ours = [f"{100 * mean['value']:.1f}", span(mean), str(len(row["runs"]))] if mean else [row["empty"], "", ""]
    if against is None:
        return [name, *ours, "", "", why_not(row)]
    return [name, *ours, f"{100 * against['value']:+.1f}", span(against, "+"), against["verdict"]]


def _columns(test_set: Json, reference: str, expect: bool) -> list[str]:
    name = title(test_set)
    return [f"{name}, right %", f"against {reference}, points", *(["paper %"] if expect else [])]


def _markdown_cells(row: Json, expect: bool) -> list[str]:
    mean, against = row["mean"], row["comparison"]
    seeds = f"{len(row['runs'])} seed{'s' * (len(row['runs']) != 1)}"
    ours = f"{100 * mean['value']:.1f} ({span(mean)}), {seeds}" if mean else row["empty"]
    theirs = why_not(row)
    if against is not None:
        theirs = f"{100 * against['value']:+.1f} ({span(against, '+')}): {against['verdict']}"
    paper = " ".join(_paper(row, expect))
    return [ours, theirs, *([paper] if expect else [])]


def _paper(row: Json, expect: bool) -> list[str]:
    """The paper's figure, its band, and a sign where ours lies outside."""
    if not expect:
        return []
    if row["paper"] is None:
        return ["", ""]
    if row["paper_band"] is None:
        return [f"{row['paper']:.1f}", ""]
    low, high = row["paper_band"]
    outside = row["mean"] is not None and not low <= 100 * row["mean"]["value"] <= high
    return [f"{row['paper']:.1f}", f"{low:.1f} to {high:.1f}" + (", ours is outside" if outside else "")]


def by_seed(test_set: Json) -> Iterator[str]:
    """Each seed's difference, where there are several."""
    for row in test_set["arms"]:
        if row["comparison"] and len(row["comparison"]["by_seed"]) > 1:
            points = ", ".join(f"{100 * one:+.1f}" for one in row["comparison"]["by_seed"])
            yield f"{test_set['name']}, {row['arm']} minus {row['comparison']['against']}, seed by seed: {points}"


def _sources(results: Json) -> Iterator[str]:
    """For each arm and test set, the runs and the stage; then what the runs warn of."""
    for test_set in results["sets"]:
        for row in test_set["arms"]:
            if row["runs"]:
                yield f"{test_set['name']}, {row['arm']}: {runs_text(row)}"
    for run in results["runs"]:
        yield from (f"warning: {run['run']}: {warning}" for warning in run["warnings"])


def _described(results: Json) -> list[str]:
    said = results["study"]["description"]
    return [f"{escaped(said)}.", ""] if said else []


def why_not(row: Json) -> str:
    """Why there is no comparison; empty for the reference."""
    why = row["not_compared"]
    return f"not compared: {why}" if why not in ("", PENDING, MISSING, NOT_ASKED) else str(why)
