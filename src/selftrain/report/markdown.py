"""The results as a Markdown page to keep beside code: tables, seconds a stage, versions, seeds, digests; no paths.

Names from the configuration are escaped: no page that shows this turns them into markup.

Path("docs/results/quickstart.md").write_text(results_markdown(results))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selftrain.report.tables import Cell, Table, tables
from selftrain.report.text import body_lines
from selftrain.report.wording import seconds_text, visible

Json = Mapping[str, Any]

RARE = ("timeouts",)  # columns of counts that are 0 but for few runs


def results_markdown(results: Json) -> str:
    """The page."""
    run, environment = results["run"], results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    lines = [
        f"# {escaped(run['name'])}",
        "",
        escaped(run["config"]["description"]) + ".",
        "",
        "```",
        *body_lines(results),
        "```",
        "",
        *_plain_tables(results),
        "## Seconds, tokens, FLOPs",
        "",
        *_cost(results["cost"]),
        "",
        "## How it was made",
        "",
        f"- `selftrain run {run['recipe']}`" if run["recipe"] else "- `selftrain run config.yaml`, the run folder's.",
        f"- Seed {run['seed']}; method `{run['method']}`; model `{escaped(run['model'])}` "
        f"({escaped(run['weights_source'] or 'built in')}).",
        f"- {environment['cpu']}, {environment['cores']} cores, {environment['system']}; "
        f"precision {', '.join(run['precision'])}.",
        *_speed(environment["matrix_gflops"]),
        f"- selftrain {', '.join(environment['selftrain'])}, Python {environment['python']}, {packages}.",
        "",
        *lineage_lines(results["lineage"]),
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands: no element, no table cell, no code span or link begins or ends in it.

    >>> escaped("<b>|`x`")
    '&lt;b&gt;&#124;&#96;x&#96;'
    """
    signs = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;", "[": "&#91;", "\n": " "}
    return "".join(signs.get(character, character) for character in visible(text))


def _plain_tables(results: Json) -> Iterator[str]:
    """The comparisons and what selection kept; accuracies stand in the block above, stages below."""
    for table in tables(results):
        if table.name in ("comparisons", "selection") and table.rows:
            yield from (f"## {table.name.capitalize()}", "", *markdown_table(table), "")


def markdown_table(table: Table) -> Iterator[str]:
    """A table in Markdown, numbers to the right; without columns that are empty throughout, or rare and 0."""
    columns = [place for place, name in enumerate(table.header) if _says_something(name, table, place)]
    numbers = [all(isinstance(row[place], int | float | None) for row in table.rows) for place in columns]
    yield "| " + " | ".join(table.header[place].replace("_", " ") for place in columns) + " |"
    yield "|" + "|".join("--:" if number else "---" for number in numbers) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_cell(row[place]) for place in columns) + " |"


def _says_something(name: str, table: Table, place: int) -> bool:
    nothing = (None, "", 0) if name in RARE else (None, "")
    return any(row[place] not in nothing for row in table.rows)


def _cell(cell: Cell) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else escaped(cell)


def _cost(cost: Json) -> Iterator[str]:
    yield "| stage | part | seconds | trained tokens | sampled tokens | forwarded tokens |"
    yield "|---|---|--:|--:|--:|--:|"
    for row in cost["stages"]:
        yield (
            f"| {row['stage']} | {row['part']} | {row['seconds']:.0f} | {row['trained_tokens']:,} "
            f"| {row['sampled_tokens']:,} | {row['forwarded_tokens']:,} |"
        )
    parts: dict[str, float] = {}
    for row in cost["stages"]:
        parts[row["part"]] = parts.get(row["part"], 0.0) + row["seconds"]
    yield ""
    yield "; ".join(f"{part} {seconds_text(seconds)}" for part, seconds in parts.items()) + "."
    yield ""
    yield f"In all {seconds_text(cost['total']['seconds'])} and {cost['total']['flops']:.2e} FLOPs."


def lineage_lines(lineage: Json) -> Iterator[str]:
    """Which weights were trained from which, and who wrote the pseudo-labels."""
    yield "| weights of | SHA-256 | trained from |"
    yield "|---|---|---|"
    for row in lineage["models"]:
        yield f"| {row['stage']} | `{row['weights'][:16]}` | `{(row['from_weights'] or '-')[:16]}` |"
    yield ""
    for row in lineage["pseudo_labels"]:
        writer = f"`{row['weights'][:16]}` ({row['written_by']})"
        yield f"- {row['stage']}: {row['labels']} pseudo-labels written by {writer}."


def _speed(gflops: list[float]) -> list[str]:
    """What the machine gave while the run was on: the seconds above are to be read beside it."""
    if not gflops:
        return []
    return [f"- Before each stage plain matrix products ran at {gflops[0]:.0f} to {gflops[1]:.0f} GFLOP/s."]
