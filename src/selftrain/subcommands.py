"""The verbs of two words: `selftrain recipes show|cp NAME` and `selftrain data check SET`. See cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selftrain.errors import ConfigError

VERIFY_HELP = "What judges answers: numeric, choice, symbolic (extra math), or your own MODULE:FUNCTION."

recipes_app = typer.Typer(
    no_args_is_help=False, help="The recipes that come with selftrain.", invoke_without_command=True
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data before it is used.")


@recipes_app.callback()
def recipes(context: typer.Context) -> None:
    """List the recipes."""
    if context.invoked_subcommand is not None:
        return
    import yaml

    from selftrain.recipe import recipe_names, recipe_text

    names = recipe_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {yaml.safe_load(recipe_text(name)).get('description', '')}")


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
    """Copy a recipe into a file of your own, to change and run."""
    from selftrain.recipe import recipe_text
    from selftrain.rundir import write_whole

    text, target = recipe_text(name), file or Path(f"{Path(name).stem}.yaml")
    if target.exists():
        raise ConfigError(f"{target} is there already.", "Name another file.")
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{target}: expected a file that ends in .yaml.", "selftrain run reads no other.")
    try:
        write_whole(target, text.encode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror}).") from error
    print(target)


@data_app.command("check")
def data_check(
    data: Annotated[str, typer.Argument(help="A source (asdiv, svamp, ...), SOURCE=PATH, or a file of rows.")],
    verify: Annotated[str, typer.Option(help=VERIFY_HELP)] = "numeric",
    rows: Annotated[int | None, typer.Option(help="Only the first so many rows.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="A file's column: OURS=THEIRS, e.g. question=prompt.")] = None,
) -> None:
    """Judge a set's own gold answers and rationales by its verifier; exit code 1 where some fail."""
    from selftrain.datacheck import check

    checked = check(data, verify=verify, rows=rows, fields=field or ())
    print(checked.text())
    if not checked.ok:
        raise typer.Exit(1)
