"""What `selftrain study` does; the command line parses, calls and leaves the rest to this.

print(study_command("main", ["schedule.iterations=2"], progress=make_progress()))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selftrain import durable
from selftrain.errors import RunError
from selftrain.processes import join
from selftrain.progress import Progress, Silent
from selftrain.report.csvfiles import csv_text
from selftrain.stagefolder import write_json
from selftrain.study.carry import carry_out
from selftrain.study.collect import study_results
from selftrain.study.spec import Study, StudyRun, load_study, runs_of
from selftrain.study.tables import study_table
from selftrain.study.text import study_markdown, study_text


def study_command(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    progress: Progress,
    out: Path | None = None,
    base: str | None = None,
    num_seeds: int | None = None,
    report_only: bool = False,
    expect: bool = False,
) -> str:
    """Carry out what is left of a study, write study.json, study.md and study.csv into its folder, and return the text.

    Under a launcher every process calls this; the main one alone writes and gets the text, the others an empty one.

    Raises:
        UserError: a study or a run that cannot be used; what is done stays, and the same command goes on.
    """
    study = load_study(name_or_path)
    if num_seeds is not None:
        study = study.first_seeds(num_seeds)
    folder = out if out is not None else Path("runs") / f"study-{study.name}"
    runs = runs_of(study, folder, base, overrides)
    if report_only and not folder.is_dir():
        raise RunError(f"{folder}: there is no study.", "Leave --report-only out, or name its folder with --out.")
    if not report_only:
        carry_out(runs, progress if join().is_main else Silent())
    text = _report(study, runs, folder, expect) if join().is_main else ""
    join().wait()  # a process that ends before the others takes them with it
    return text


def _report(study: Study, runs: Sequence[StudyRun], folder: Path, expect: bool) -> str:
    """Write the three files, and return the text."""
    results = study_results(study, runs)
    write_json(folder / "study.json", results)
    durable.write(folder / "study.md", study_markdown(results, expect=expect).encode(errors="replace"))
    durable.write(folder / "study.csv", csv_text(study_table(results)).encode(errors="replace"))
    return "\n".join([study_text(results, expect=expect), "", f"tables: {folder / 'study.csv'}, {folder / 'study.md'}"])
