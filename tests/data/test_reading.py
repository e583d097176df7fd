"""Rows from files, and what is said of broken ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from selftrain.data import reading
from selftrain.data.reading import MAX_LINE_BYTES, open_path, read_rows
from selftrain.errors import DataError
from selftrain.weights import find_local


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"q": "één?", "a": 3}\n\n{"q": "two?", "a": "4"}'),
        ("a.jsonl", b'\xef\xbb\xbf{"q": "\xc3\xa9\xc3\xa9n?", "a": 3}\r\n\r\n{"q": "two?", "a": "4"}\r\n'),
        ("a.json", '[{"q": "één?", "a": 3},\n {"q": "two?", "a": "4"}]'),
        ("a.json", '{"q": "één?", "a": 3}\n{"q": "two?", "a": "4"}'),
    ],
)
def test_json_forms(tmp_path: Path, name: str, content: str | bytes) -> None:
    rows = read_rows(write(tmp_path, name, content))
    assert [dict(row.values) for row in rows] == [{"q": "één?", "a": 3}, {"q": "two?", "a": "4"}]


def test_rows_know_their_lines(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.jsonl", '{"q": 1}\n\n\n{"q": 2}\n'))
    assert [row.key for row in rows] == ["1", "4"]
    assert rows[1].where.endswith("a.jsonl, line 4")


def test_csv_with_a_line_break_inside_quotes(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.csv", 'q, a\n"one,\ntwo?",3\n\nthree?,4\n'))
    assert [dict(row.values) for row in rows] == [{"q": "one,\ntwo?", "a": "3"}, {"q": "three?", "a": "4"}]
    assert rows[1].where.endswith("line 5")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"q": 1}\n{"q": }\n', "line 2: not JSON"),
        ("a.jsonl", '{"q": 1}\n{"q": "one?", "a":\n{"q": 2}\n', "line 2: not JSON (Expecting value, character 19)"),
        ("a.json", '[{"q": 1},\n{"q":\n', "line 2: not JSON (Expecting value, character 6)"),
        ("a.jsonl", '{"q": 1}\n[1, 2]\n', "line 2: expected an object with named fields, got list"),
        ("a.jsonl", b'{"q": 1}\n{"q": "\xff"}\n', "line 2: expected UTF-8"),
        ("a.jsonl", '{"q": "' + "x" * MAX_LINE_BYTES + '"}', "line 1: longer than"),
        ("a.jsonl", '{"q": 1}\n' + "[" * 200_000, "line 2: not JSON"),
        ("a.jsonl", '{"q": ' + "9" * 5000 + "}", "line 1: not JSON"),
        ("a.jsonl", "\n\n", "expected rows, got none"),
        ("a.json", '[{"q": 1},\n{"q" 2}]', "line 2: not JSON"),
        ("a.json", '[{"q": 1}, 5]', "row 2: expected an object"),
        ("a.json", b'[{"q": 1},\n"\xff"]', "line 2: expected UTF-8"),
        ("a.json", "[]", "expected rows, got none"),
        ("a.csv", "q,a\n1,2\n1,2,3\n", "line 3: expected 2 columns as in the header, got 3"),
        ("a.csv", 'q,a\n"1,2\n', "not CSV"),
        ("a.csv", "\nq;a\n1, or 2;3\n", "line 2: expected columns separated by commas, got semicolons in the header"),
        ("a.csv", '"q";"a"\n1;2\n', "line 1: expected columns separated by commas, got semicolons in the header"),
        ("a.csv", "q\ta\n1\t2\n", "line 1: expected columns separated by commas, got tabs in the header"),
        ("a.csv", "q,a\n", "expected rows, got none"),
        ("a.csv", "q, a,q,,\n1,2,3,,\n", "line 1: the header names q twice"),
        ("a.jsonl", '{"q": "one?"}\n'.encode("utf-16"), "line 1: expected UTF-8"),
        ("a.json", '[{"q": "one?"}]'.encode("utf-16"), "line 1: expected UTF-8"),
        ("a.csv", "q,a\n\xe9t\xe9?,3\n".encode("latin-1"), "line 2: expected UTF-8"),
    ],
)
def test_broken_files_are_named_by_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(write(tmp_path, name, content))
    assert said in caught.value.message
    assert len(caught.value.message) < 400


def test_a_tilde_of_no_user_is_part_of_a_name() -> None:
    with pytest.raises(DataError, match="no such file"):
        open_path("~0/rows.jsonl", "problems")
    assert find_local("~0/model") is None


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    write(tmp_path, "empty.jsonl", "")
    for name, said in (("none.jsonl", "no such file"), ("empty.jsonl", "got an empty file"), (".", "got a folder")):
        with pytest.raises(DataError, match=said) as caught:
            open_path(str(tmp_path / name), "problems")
        assert "expected problems" in caught.value.message


def test_texts_are_checked(tmp_path: Path) -> None:
    lines = [{"q": None}, {}, {"q": "  "}, {"q": ["a"]}, {"q": "x" * 100_001}]
    content = "\n".join(json.dumps(line) for line in lines) + '\n{"q": "\\ud800"}\n{"q": " fine "}'
    rows = read_rows(write(tmp_path, "a.jsonl", content))
    for row, said in zip(
        rows, ["nothing", "nothing", "empty", "list", "100001 characters", "half a character"], strict=False
    ):
        with pytest.raises(DataError, match=said) as caught:
            row.text("q")
        assert f"line {row.key}:" in caught.value.message
    assert rows[-1].text("q") == "fine"


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="comes with the extra `hub`")
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist([{"q": f"é{number}?", "a": number, "n": None} for number in range(600)])
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert [dict(row.values) for row in rows] == [{"q": f"é{n}?", "a": n, "n": None} for n in range(600)]
    assert (rows[599].key, rows[599].where) == ("600", f"{tmp_path / 'a.parquet'}, row 600")
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 8000)
    with pytest.raises(DataError, match="unpacks to more than 8000 bytes"):
        read_rows(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not a Parquet file that can be read"):
        read_rows(write(tmp_path, "b.parquet", "PAR1 and no more"))


def test_parquet_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="needs the package `pyarrow`") as caught:
        read_rows(write(tmp_path, "a.parquet", "PAR1"))
    assert "selftrain[hub]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("a.jsonl", '{"q": "one?"}\n{"q": "', "line 2: longer than 1000000 bytes"),
        ("a.csv", "q,a\n", "line 2: longer than 1000000 bytes"),
        ("a.json", '[{"q": "', "a JSON list of 100000001 bytes; at most 100000000 are read"),
    ],
)
def test_a_hundred_megabytes_in_one_line_are_refused(tmp_path: Path, name: str, start: str, said: str) -> None:
    path = write(tmp_path, name, start)
    with path.open("ab") as stream:
        stream.truncate(100_000_001)  # takes no room on the disk
    with pytest.raises(DataError, match=said):
        read_rows(path)


def test_a_long_list_is_to_be_written_as_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LIST_BYTES", 30)
    content = '\ufeff \n[{"q": "one?"}, {"q": 2}]'
    path = write(tmp_path, "a.json", content)
    assert path.stat().st_size == 30
    assert [row.values["q"] for row in read_rows(path)] == ["one?", 2]
    with pytest.raises(DataError, match=r"a JSON list of 31 bytes; at most 30 are read\.") as caught:
        read_rows(write(tmp_path, "a.json", content + " "))
    assert "as JSON lines, one object a line" in str(caught.value.hint)
    lines = write(tmp_path, "b.json", '{"q": "one?"}\n{"q": 2}\n{"q": "three?"}\n')
    assert len(read_rows(lines)) == 3, "lines may be longer, whatever the file is called"
