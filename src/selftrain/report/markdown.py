"""The results as a Markdown page to keep beside code: tables, seconds a stage, versions, seeds, digests; no paths.

Path("docs/results/quickstart.md").write_text(results_markdown(results))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from selftrain.report.text import body_lines
from selftrain.report.wording import seconds_text

Json = Mapping[str, Any]


def results_markdown(results: Json) -> str:
    """The page."""
    run, environment = results["run"], results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    lines = [
        f"# {run['name']}",
        "",
        run["config"]["description"] + ".",
        "",
        "```",
        *body_lines(results),
        "```",
        "",
        "## Seconds, tokens, FLOPs",
        "",
        *_cost(results["cost"]),
        "",
        "## How it was made",
        "",
        f"- `selftrain run {run['name']}`",
        f"- Seed {run['seed']}; method `{run['method']}`; model `{run['model']}` "
        f"({run['weights_source'] or 'built in'}).",
        f"- {environment['cpu']}, {environment['cores']} cores, {environment['system']}; "
        f"precision {', '.join(run['precision'])}.",
        *_speed(environment["matrix_gflops"]),
        f"- selftrain {', '.join(environment['selftrain'])}, Python {environment['python']}, {packages}.",
        "",
        *_lineage(results["lineage"]),
    ]
    return "\n".join(lines) + "\n"


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


def _lineage(lineage: Json) -> Iterator[str]:
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
