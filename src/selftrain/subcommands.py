"""The verbs of two words, `selftrain recipes show|cp NAME` and `selftrain data check SET`, and some of one word.

See cli.py.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from selftrain import durable
from selftrain.errors import ConfigError
from selftrain.terminal import say

VERIFY_HELP = "What judges answers: numeric, choice, symbolic (extra math), or your own MODULE:FUNCTION."

HOURS = """
Hours were measured where they are not said to be estimated. Estimated, likely and low to high: as `selftrain plan NAME
compute.device=cuda` has them on one H100, over the number of cards."""

FIELD_HELP = "A file's column: OURS=THEIRS, e.g. question=prompt."

recipes_app = typer.Typer(
    no_args_is_help=False, help="The recipes that come with selftrain.", invoke_without_command=True
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data before it is used.")


class Guided(TyperGroup):
    """Commands whose missing argument or option is told with the first example of their help."""

    def invoke(self, ctx: Any) -> Any:
        """As typer does, with the example in the error's message."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            help_text = getattr(getattr(error, "ctx", None), "command", self).help or ""
            example = re.search(r"^ *(selftrain .+)$", help_text, re.MULTILINE)
            if example and getattr(error, "message", None) == "":  # of an error for something missing
                error.message = f"Such as: {example[1]}"  # type: ignore[attr-defined]
            raise


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes."""
    if context.invoked_subcommand is not None:
        return
    from selftrain.recipe import listed_recipes

    rows = [("recipe", "size", "hours", "hardware", ""), *map(dataclasses.astuple, listed_recipes())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(HOURS)


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A recipe's name.")]) -> None:
    """Print a recipe's YAML, to copy and change."""
    from selftrain.recipe import recipe_text

    print(recipe_text(name), end="")


@recipes_app.command("cp")
def recipes_cp(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    file: Annotated[Path | None, typer.Argument(help="The file to make; default NAME.yaml here.")] = None,
) -> None:
    """Copy a recipe into a file of your own, to change and run. The run is named as the file."""
    from selftrain.recipe import YAML_SUFFIXES, recipe_text, renamed, short_name

    target = file or Path(f"{short_name(name)}.yaml")
    text = renamed(recipe_text(name), target.stem)
    if target.exists():
        raise ConfigError(f"{target} is there already.", "Name another file.")
    if target.suffix not in YAML_SUFFIXES:
        raise ConfigError(f"{target}: expected a file that ends in .yaml.", "selftrain run reads no other.")
    durable.write(target, text.encode("utf-8"))
    print(target)


@data_app.command("check")
def data_check(
    data: Annotated[str, typer.Argument(help="A source (asdiv, svamp, ...), SOURCE=PATH, or a file of rows.")],
    verify: Annotated[str, typer.Option(help=VERIFY_HELP)] = "numeric",
    rows: Annotated[int | None, typer.Option(help="Only the first so many rows.")] = None,
    field: Annotated[list[str] | None, typer.Option(help=FIELD_HELP)] = None,
) -> None:
    """Judge a set's own gold answers and rationales by its verifier. Exit code 1 where some fail."""
    from selftrain.datacheck import check

    checked = check(data, verify=verify, rows=rows, fields=field or ())
    print(checked.text())
    if not checked.ok:
        raise typer.Exit(1)


def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    markdown: Annotated[Path | None, typer.Option(help="Write the tables there too, as a Markdown page.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Write the first test set's accuracies there, as SVG.")] = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="Pack all that reports are made of there (tar.gz), without any data set's text."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the tables into that folder too, one CSV file each.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show the page at 127.0.0.1 while the run goes on.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of --serve; 0 takes any free one, default 8008.")] = None,
) -> None:
    """Make results.json and report.html again, from files alone."""
    from selftrain.report.command import make_report, serve_report

    if serve:
        serve_report(run_folder, port, any((markdown, figure, archive, csv)), say)
    else:
        make_report(run_folder, markdown=markdown, figure=figure, archive=archive, csv=csv, say=say)


def compare(
    run_a: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
    run_b: Annotated[Path, typer.Argument(help="Another one; differences are B minus A.")],
    out: Annotated[Path | None, typer.Option(help="The HTML page to write; default compare-A-B.html.")] = None,
) -> None:
    """Compare two runs' models on the test problems that both have."""
    from selftrain.report.command import make_comparison

    make_comparison(run_a, run_b, out, say=say)


def doctor(
    data: Annotated[Path | None, typer.Option(help="A folder of local data files to look for too.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the model hub too whether it answers.")] = False,
) -> None:
    """What is installed, what would be used, what can be reached."""
    from selftrain.doctor import collect

    for check in collect(data, online=online):
        mark = {True: "ok ", False: "NO ", None: "-  "}[check.ok]
        print(f"{mark} {check.name:<20} {check.detail}" + (f"\n     {check.hint}" if check.hint else ""))


def push(
    run_or_model: Annotated[Path, typer.Argument(help="A run folder (its delivered model), or a model folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name on the hub; made where it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload without asking.")] = False,
) -> None:
    """Upload a delivered model with its card to the Hugging Face hub.

    Examples:

      selftrain push runs/quickstart ann/my-model --private

    Shows every file with its size and asks first. Weights, configuration, tokenizer and card go, nothing else of the
    run. Needs a login (`hf auth login`). Tested against a stand-in for the hub, not against the hub itself.
    """
    from selftrain.push import carry_out, plan_upload

    upload = plan_upload(run_or_model, repo, private=private)
    say(upload.text())
    if not yes and not sys.stdin.isatty():
        raise ConfigError("Nothing was uploaded: nobody can be asked here.", "Look at the list, then add --yes.")
    if not yes:
        typer.confirm("Upload these?", abort=True, err=True)
    print(carry_out(upload))
