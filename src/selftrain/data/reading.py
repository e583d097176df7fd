"""Rows from files: JSONL, a JSON list, CSV, Parquet. Every complaint names the file and the line.

    for row in read_rows(path): row.where, row.values        # "my.jsonl, line 3", {"question": ...}

A file is data, never trusted: lines, files and texts are bounded by counts, and only UTF-8 is read.
Parquet needs pyarrow, which the extra `hub` brings. Leaves out: compressed files.
"""

from __future__ import annotations

import codecs
import collections
import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain.errors import DataError, listed
from selftrain.userpath import user_path

MAX_LINE_BYTES = 1_000_000
MAX_FILE_BYTES = 1_000_000_000
MAX_LIST_BYTES = 100_000_000  # of a JSON list, which is read in one piece and takes several times that in memory
MAX_TEXT_CHARS = 100_000
PARQUET_BATCH_ROWS = 256
OTHER_SEPARATORS = {"semicolons": ";", "tabs": "\t"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: where it stands (for messages), a key that names it in its file (for ids), its values."""

    where: str
    key: str
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """A value that must be a text that is not blank, stripped.

        Raises:
            DataError: missing, of another type, blank, too long, or not writable as UTF-8.
        """
        value = self.values.get(column)
        if not isinstance(value, str) or not value.strip():
            got = "nothing" if value is None else "an empty text" if isinstance(value, str) else type(value).__name__
            raise DataError(f"{self.where}: expected a text in {column!r}, got {got}.")
        return self.checked(value.strip(), column)

    def checked(self, text: str, column: str) -> str:
        """The text itself, if it is of bearable length and can be written as UTF-8."""
        if len(text) > MAX_TEXT_CHARS:
            raise DataError(f"{self.where}: {column!r} has {len(text)} characters, at most {MAX_TEXT_CHARS} are read.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"{self.where}: {column!r} holds half a character pair ({error.reason}).") from error
        return text


def open_path(path: str, expected: str) -> Path:
    """The path of a file that is there and not empty.

    Raises:
        DataError: it is not, or is no file; `expected` says what should stand there.
    """
    found = user_path(path)
    if not found.exists():
        raise DataError(
            f"{path}: expected {expected}, but there is no such file.",
            f"Give the file's path (relative ones start at {Path.cwd()}).",
        )
    if not found.is_file():
        raise DataError(f"{path}: expected {expected}, got a folder or device.")
    size = found.stat().st_size
    if size == 0:
        raise DataError(f"{path}: expected {expected}, got an empty file.")
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path}: {size} bytes; at most {MAX_FILE_BYTES} are read.", "Split it or take a part of it.")
    return found


def read_text(path: Path) -> str:
    """A whole file as text; wrong encoding is named by its line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content.count(b"\n", 0, error.start) + 1) from error


def read_rows(path: Path) -> list[Row]:
    """The rows of a .csv, .parquet, .json (a list) or JSON-lines file, in order.

    Raises:
        DataError: unreadable, wrong encoding, not JSON, CSV or Parquet, a row that is no object; with its line.
    """
    if path.suffix.lower() == ".csv":
        rows = list(_csv_rows(path))
    elif path.suffix.lower() == ".parquet":
        rows = list(_parquet_rows(path))
    elif path.suffix.lower() == ".json" and _starts_list(path):
        rows = _list_rows(path)
    else:
        rows = list(_json_line_rows(path))
    if not rows:
        raise DataError(f"{path}: expected rows, got none.")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, each of bounded length and valid UTF-8; a byte-order mark is dropped."""
    try:
        with path.open("rb") as stream:
            number = 0
            while content := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(content) > MAX_LINE_BYTES:
                    raise DataError(f"{path}, line {number}: longer than {MAX_LINE_BYTES} bytes.", "One row a line?")
                try:
                    yield number, content.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, number) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error.strerror}).")


def _not_utf8(path: Path, number: int) -> DataError:
    return DataError(f"{path}, line {number}: expected UTF-8 text, got other bytes.", "Save the file as UTF-8.")


def _json_line_rows(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            yield Row(where, str(number), _object(_parsed(line, where, is_line=True), where))


def _starts_list(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(1000).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    except OSError as error:
        raise _unreadable(path, error) from error


def _list_rows(path: Path) -> list[Row]:
    size = path.stat().st_size
    if size > MAX_LIST_BYTES:
        raise DataError(
            f"{path}: a JSON list of {size} bytes; at most {MAX_LIST_BYTES} are read.",
            f"Write it as JSON lines, one object a line, of which {MAX_FILE_BYTES} bytes are read.",
        )
    items = _parsed(read_text(path), str(path), is_line=False)
    places = [f"{path}, row {number}" for number in range(1, len(items) + 1)]
    return [
        Row(where, str(number), _object(item, where))
        for number, (item, where) in enumerate(zip(items, places, strict=True), start=1)
    ]


def _csv_lines(path: Path) -> Iterator[str]:
    """The lines, the first of which, the header, must not be separated by anything but commas."""
    header = None
    for number, line in _lines(path):
        if header is None and line.strip():
            header = line
            sign = next((name for name, sign in OTHER_SEPARATORS.items() if sign in line), None)
            if sign is not None and "," not in line:
                raise DataError(
                    f"{path}, line {number}: expected columns separated by commas, got {sign} in the header.",
                    "Save it with commas as the separator, or as JSON lines.",
                )
        yield line


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(_csv_lines(path), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not cells:
                continue
            if header is None:
                header = [name.strip() for name in cells]
                twice = [name[:80] for name, count in collections.Counter(header).items() if name and count > 1]
                if twice:
                    raise DataError(f"{where}: the header names {listed(twice, 5)} twice.", "Rename one of them.")
                continue
            if len(cells) != len(header):
                raise DataError(f"{where}: expected {len(header)} columns as in the header, got {len(cells)}.")
            yield Row(where, str(reader.line_num), dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    """Rows numbered from 1; what a batch takes in memory counts, since a small file can unpack to a huge table."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs the package `pyarrow`, which is not installed.",
            "pip install 'selftrain[hub]', or save the table as JSONL or CSV.",
        ) from error
    number = num_bytes = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                num_bytes += batch.nbytes
                if num_bytes > MAX_FILE_BYTES:
                    raise DataError(f"{path}: unpacks to more than {MAX_FILE_BYTES} bytes.", "Take a part of it.")
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", str(number), values)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a Parquet file that can be read ({why}).") from error


def _parsed(text: str, where: str, *, is_line: bool) -> Any:
    try:
        return json.loads(text.rstrip(" \t\r\n"))  # so that a cut-off line is said to end where it ends
    except json.JSONDecodeError as error:
        at = where if is_line else f"{where}, line {error.lineno}"
        raise DataError(f"{at}: not JSON ({error.msg}, character {error.colno}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON that can be read ({type(error).__name__}).") from error


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with named fields, got {type(value).__name__}.")
    return value
