"""What `selftrain report` and `selftrain compare` do; the command line parses, calls and leaves the rest to this.

    make_report(Path("runs/quickstart"), csv=Path("tables"), say=print)
    make_comparison(Path("runs/plain"), Path("runs/beta"), None, say=print)

Tables go to stdout, names of files to `say`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from selftrain import durable
from selftrain.errors import RunError
from selftrain.report.text import results_text

Say = Callable[[str], None]


def make_report(
    folder: Path,
    *,
    say: Say,
    markdown: Path | None = None,
    figure: Path | None = None,
    archive: Path | None = None,
    csv: Path | None = None,
) -> None:
    """Make results.json and report.html of a run folder again, and what else is asked for beside them.

    Raises:
        RunError: the folder holds no run, or a file cannot be written.
        DataError: a damaged file of a finished stage.
    """
    from selftrain.report.archive import write_archive
    from selftrain.report.csvfiles import write_csv
    from selftrain.report.html import headline_figure
    from selftrain.report.markdown import results_markdown
    from selftrain.report.write import write_report

    results = write_report(folder)
    print(results_text(results))
    if figure is not None:
        durable.write(figure, headline_figure(results).encode())
    if archive is not None:
        write_archive(folder, archive)
        say(f"{archive}")
    if markdown is not None:
        durable.write(markdown, results_markdown(results).encode(errors="backslashreplace"))
    if csv is not None:
        say("tables: " + ", ".join(str(path) for path in write_csv(results, csv)))


def serve_report(folder: Path, port: int | None, others: bool, say: Say) -> None:
    """Serve the page of a run until Ctrl-C; `others`: files were asked for too, which serving does not write.

    Raises:
        RunError: as `serve.serve`, or files were asked for.
    """
    from selftrain.report.serve import DEFAULT_PORT, serve

    if others:
        raise RunError("--serve writes no files.", "Leave out the other options, or leave out --serve.")
    serve(folder, DEFAULT_PORT if port is None else port, say)


def make_comparison(first: Path, second: Path, out: Path | None, *, say: Say) -> None:
    """Compare run B (`second`) with run A (`first`): a table to stdout, a page into a file.

    Raises:
        RunError: a folder holds no run, or the two cannot be compared.
    """
    from selftrain.report.comparepage import comparison_text, write_comparison

    target = default_page(first, second) if out is None else out
    print(comparison_text(write_comparison(first, second, target)))
    say(f"{target}")


def default_page(first: Path, second: Path) -> Path:
    """Where a comparison goes when nobody says: into the folder at hand, named after both runs.

    >>> default_page(Path("runs/plain"), Path("runs/beta")).name
    'compare-plain-beta.html'
    """
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "run" for path in (first, second)]
    return Path(f"compare-{names[0]}-{names[1]}.html")
