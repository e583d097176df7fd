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
from selftrain.recipe import short_name
from selftrain.report.archive import write_archive
from selftrain.report.csvfiles import csv_text
from selftrain.report.write import PAGE
from selftrain.stagefolder import write_json
from selftrain.study.carry import carry_out
from selftrain.study.collect import study_results
from selftrain.study.page import study_page
from selftrain.study.plan import study_plan
from selftrain.study.spec import Study, StudyRun, load_study, runs_of
from selftrain.study.tables import study_table
from selftrain.study.text import study_markdown, study_text


def study_command(
    name_or_path: str,
    overrides: Sequence[str] = (),
    *,
    progress: Progress,
    out: Path | None = None,
    recipe: str | None = None,
    base: str | None = None,
    num_seeds: int | None = None,
    plan: bool = False,
    report_only: bool = False,
    expect: bool = False,
    archive: Path | None = None,
) -> str:
    """Carry out what is left of a study, write its report into its folder, and return the text.

    `recipe` is what every run is in place of the study's own, `archive` a file to pack it all into. The report is
    study.json, study.md, study.csv and report.html; that of another study's runs has its own name in place of these.
    `plan`: nothing is carried out or written, the text says what the runs will take. Under a launcher every process
    calls this; the main one alone writes and gets the text, the others an empty one.

    Raises:
        UserError: a study or a run that cannot be used; what is done stays, and the same command goes on.
    """
    study = load_study(name_or_path)
    folder = out if out is not None else default_folder(study, recipe)
    if recipe is not None:
        study = study.with_recipe(recipe)
    if num_seeds is not None:
        study = study.first_seeds(num_seeds)
    runs = runs_of(study, folder, base, overrides)
    if plan:
        return study_plan(runs, folder) if join().is_main else ""
    if report_only and not folder.is_dir():
        raise RunError(f"{folder}: there is no study.", "Leave --report-only out, or name its folder with --out.")
    if not report_only:
        carry_out(runs, progress if join().is_main else Silent())
    text = _report(study, runs, folder, expect) if join().is_main else ""
    if archive is not None and join().is_main:
        write_archive(folder, archive)
    join().wait()  # a process that ends before the others takes them with it
    return text


def default_folder(study: Study, recipe: str | None = None) -> Path:
    """Where the runs of a study lie when nobody says: over another recipe than its own, apart."""
    return Path("runs") / "-".join(["study", study.home, *([short_name(recipe)] if recipe else [])])


def _report(study: Study, runs: Sequence[StudyRun], folder: Path, expect: bool) -> str:
    """Write the four files, and return the text."""
    results = study_results(study, runs)
    name, page = ("study", PAGE) if study.of is None else (study.name, f"{study.name}.html")
    written = {
        page: study_page(results),
        f"{name}.md": study_markdown(results, expect=expect),
        f"{name}.csv": csv_text(study_table(results)),
    }
    write_json(folder / f"{name}.json", results)
    for file, text in written.items():
        durable.write(folder / file, text.encode(errors="replace"))
    told = ", ".join(str(folder / file) for file in written)
    return "\n".join([study_text(results, expect=expect), "", f"report: {told}"])
