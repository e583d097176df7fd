"""`run`: from a configuration to a finished run folder. What the command line calls, and Python users too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selftrain.config import RunConfig
from selftrain.errors import ConfigError, RunError
from selftrain.hardware import free_disk_bytes
from selftrain.identity import flattened
from selftrain.processes import join
from selftrain.progress import Progress, Silent
from selftrain.recipe import load_config
from selftrain.redaction import without_secrets


def run(
    config: RunConfig | str | Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    until: str | None = None,
    progress: Progress | None = None,
    siblings: Sequence[Path] = (),
) -> dict[str, Any]:
    """Carry out a run, or go on with one that was cut off, and return its results (also in results.json).

    Args:
        config: a recipe's name, the path of a YAML file, or a `RunConfig`.
        overrides: `section.field=value`, on top of a recipe or file.
        out: the run folder; default `runs/NAME`.
        until: the last stage to do, or a folder of stages ("0-warmup", "1-iteration/pair"); what is finished stays, and
            a later call goes on.
        siblings: other run folders, there or not, whose finished stages are taken where they are the same (sharing.py).

    Under a launcher every process calls this; the main one alone gets results, the others an empty dict.

    Raises:
        UserError: whatever the user can put right; see `selftrain.errors`.
    """
    if not isinstance(config, RunConfig):
        config = load_config(str(config), overrides)
    from selftrain.report.expected import stages_beyond

    check_secrets(config)
    beyond = stages_beyond(config, until) if until is not None else frozenset[str]()
    folder = Path(out) if out is not None else Path("runs") / config.name
    team = join()
    progress = progress if progress is not None and team.is_main else Silent()
    check_disk(folder, config.compute.min_free_disk_gb)

    from selftrain.data.available import check_available

    if not (folder / "data" / "manifest.json").is_file():  # else its rows are in the run, wherever they came from
        check_available(config.data)

    from selftrain.sampling.vllm_support import check_backend

    check_backend(config.sampling, team.size)

    from selftrain.training.adapters import check_installed
    from selftrain.training.sharding import check_sharding
    from selftrain.training.trackers import check_trackers

    check_installed(config.training.lora)
    check_sharding(config.training, team.size)
    check_trackers(config.training.trackers)

    from selftrain.isolate import Apart, is_isolated
    from selftrain.report.card import write_card
    from selftrain.report.write import write_report
    from selftrain.runner import Runner
    from selftrain.sharing import open_beside

    isolated = is_isolated(config, team.size)
    with open_beside(siblings, folder, config, team) as rundir:
        runner = Runner(config, rundir, progress, beyond)
        if isolated:
            runner.bench.apart = Apart(rundir, progress)
        runner.run()
        results = write_report(folder) if team.is_main else {}
        if results:
            write_card(folder / "model", results)
        team.wait()
        return results


def check_secrets(config: RunConfig) -> None:
    """Refuse a configuration that holds a secret: it is written into the run folder, and that is made to be shown."""
    for name, value in flattened(config.model_dump(mode="json")):
        if without_secrets(str(value)) != str(value):
            raise ConfigError(
                f"{name} holds a password, a token, or the value of a variable that is called one.",
                "Take it out: everyone who sees the run folder or its report would see it.",
            )


def check_disk(folder: Path, needed_gb: float) -> None:
    """Refuse to start where too little disk is free."""
    free_gb = free_disk_bytes(folder) / 1e9
    if free_gb < needed_gb:
        raise RunError(
            f"{folder}: {free_gb:.1f} GB of disk are free, the run needs {needed_gb:.1f} GB.",
            "Free some space, choose another folder with --out, or lower compute.min_free_disk_gb.",
        )
