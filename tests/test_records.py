"""Records survive their JSONL form, and a broken line is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.errors import DataError
from selftrain.records import Completion, Example, Pair, Problem, Verdict, read_jsonl, write_jsonl

COMPLETION = Completion(
    "q1", 2, (5, 6, 7), "6*7=<<6*7=42>>42", "eos", ((1, 3),), 1, 0, "abc", "1-iteration/sample-for-pairs",
    Verdict("right", "42"), Verdict("wrong", None, "no number"),
)  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        Problem("q1", "6 boxes of 7?", "42", "6*7=<<6*7=42>>42\n#### 42", group="g", neighbour=0.25),
        COMPLETION,
        Pair("q1", (1, 2), (3, 2), "gold", "a#1", 0.5),
        Example("q1", (1,), (2, 3), "gold"),
    ],
)
def test_round_trip(tmp_path: Path, record: Problem | Completion | Pair | Example) -> None:
    write_jsonl(tmp_path / "r.jsonl", [record, record])
    assert read_jsonl(tmp_path / "r.jsonl", type(record)) == [record, record]


def test_text_that_json_could_break_survives(tmp_path: Path) -> None:
    problem = Problem("q\u2028\x00", 'line\nbreak "quoted" \u202e', "1")
    write_jsonl(tmp_path / "r.jsonl", [problem])
    assert read_jsonl(tmp_path / "r.jsonl", Problem) == [problem]


@pytest.mark.parametrize("line", ['{"id": "q"', '{"id": "q", "question": "?", "nonsense": 1}', "[1]", '{"id": "q"}'])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    write_jsonl(tmp_path / "r.jsonl", [Problem("q1", "?")])
    with (tmp_path / "r.jsonl").open("a") as out:
        out.write(line + "\n")
    with pytest.raises(DataError, match="line 2"):
        read_jsonl(tmp_path / "r.jsonl", Problem)
