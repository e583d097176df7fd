"""The report's tables as CSV files, one a table, that a spreadsheet reads and does not run.

    write_csv(results, Path("tables"))     # tables/accuracy.csv, tables/comparisons.csv, ...

Text that a spreadsheet would take for a formula gets an apostrophe in front, which it shows as text (OWASP, CSV
injection). All text is quoted, so that no separator of another country opens a new cell in it; numbers are not, and
stay numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain import durable
from selftrain.errors import RunError
from selftrain.report.tables import Cell, Table, tables
from selftrain.report.wording import visible

RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every table into a folder, which is made where it is missing; returns the files.

    Raises:
        RunError: the folder cannot be made or written into.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table in tables(results):
            path = folder / f"{table.name}.csv"
            durable.write(path, csv_text(table).encode("utf-8"))
            written.append(path)
    except OSError as error:
        raise RunError(
            f"{folder}: the tables cannot be written ({error.strerror}).", "Choose another --csv."
        ) from error
    return written


def csv_text(table: Table) -> str:
    """A table as CSV with a header line (RFC 4180)."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(table.header)
    writer.writerows([neutral(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def neutral(cell: Cell) -> str | int | float:
    """A cell that no spreadsheet runs; numbers as they are, yes and no in words, nothing as nothing.

    >>> neutral("=1+1"), neutral(-0.5), neutral(None), neutral(True)
    ("'=1+1", -0.5, '', 'yes')
    """
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int | float):
        return cell
    unsafe = cell.lstrip(" ").startswith(RUN_BY_SPREADSHEETS)
    return visible(f"'{cell}" if unsafe else cell)
