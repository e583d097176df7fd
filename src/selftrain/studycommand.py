"""The verb `selftrain study`. See cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def study(
    study: Annotated[str, typer.Argument(help="A study's name (main, samples, ...) or a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of every run to change: section.field=value.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The study's folder; default runs/study-NAME.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Another recipe for every run, or a YAML file; runs/study-NAME-RECIPE then.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Another base model; the paper's come with the recipe that has their values.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Only so many seeds of each arm: the first ones.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Run nothing; say what is left: hours, FLOPs, disk.")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Run nothing; count what is there.")] = False,
    archive: Annotated[
        Path | None,
        typer.Option(help="Pack all that reports are made of there (tar.gz), without any data set's text."),
    ] = None,
    expect: Annotated[bool, typer.Option("--expect", help="The paper's figures too, where it has this base.")] = False,
) -> None:
    """Carry out runs that differ in one thing, and compare them.

    Examples:

      selftrain study samples --base google/flan-t5-large --expect

      selftrain study main --recipe mine.yaml --seeds 1

      selftrain study main schedule.iterations=2 --seeds 2 --report-only

      selftrain study main --plan

    Each arm and seed is a run of its own, STUDY/ARM/seed-N. Stages that are the same are computed once. Stop it
    whenever you like: the same command goes on.
    """
    from selftrain.study.command import study_command
    from selftrain.terminal import make_progress

    text = study_command(
        study, overrides or (), out=out, recipe=recipe, base=base, num_seeds=seeds, plan=plan, report_only=report_only,
        expect=expect, archive=archive, progress=make_progress(),
    )  # fmt: skip
    if text:
        print(text)
