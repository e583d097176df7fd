"""What `selftrain plan` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selftrain.claim import holds_work
from selftrain.errors import ConfigError, RunError
from selftrain.identity import identity
from selftrain.plan.make import make_plan
from selftrain.plan.text import compared_text, plan_text
from selftrain.recipe import load_config
from selftrain.report.files import RunFiles


def plan_command(
    recipe: str | None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    measure: bool = True,
    num_processes: int = 1,
) -> str:
    """The plan of a recipe; of an unfinished run's folder, of what is left; of a finished one's, how far off it was.

    Raises:
        ConfigError: neither a recipe nor a run folder, or an unknown one.
        RunError: the folder holds a run of another configuration, or something else.
    """
    if recipe is None and out is None:
        raise ConfigError("Expected a recipe, or --out with the folder of a run.", "selftrain plan quickstart")
    there = RunFiles(out) if out is not None and (recipe is None or _holds_run(out)) else None
    config = there.config if recipe is None and there is not None else load_config(str(recipe), overrides)
    folder = out if out is not None else Path("runs") / config.name
    if out is None and _holds_run(folder):
        there = RunFiles(folder)
    run = there if there is not None and identity(there.config) == identity(config) else None
    if out is not None and there is not None and run is None and holds_work(folder):
        raise RunError(f"{folder} holds a different run.", "Choose another folder with --out, or leave the recipe out.")
    if run is not None and run.is_finished:
        plan = make_plan(config, run, folder=folder, measure=False, fresh=True, num_processes=num_processes)
        return compared_text(plan, run)
    return plan_text(make_plan(config, run, folder=folder, measure=measure, num_processes=num_processes))


def _holds_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()
