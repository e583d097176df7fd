"""Which samples are shown, and which part of them the calculator wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.records import Completion
from selftrain.report.files import RunFiles
from selftrain.report.samples import IN_ALL, MAX_CHARS, marked, samples_to_read

WARMUP, FINAL = "0-warmup/evaluate/first", "1-iteration/evaluate/first"


def written(text: str, forced: tuple[tuple[int, int], ...] = ((1, 2),)) -> Completion:
    return Completion("q", 0, (1, 2, 3), text, "eos", forced)


@pytest.mark.parametrize(
    ("text", "forced"),
    [
        ("6*7=<<6*7=42>>42 and <<42/2=21>>21", ["42>>", "21>>"]),
        ("so [ 6 * 7 = 42 ] 42", [" 42 ]"]),
        ("<<6*7=41>>41", []),  # not what the calculator writes
        ("<<apples=3>>3 <<1/3=0.33>>", ["0.33>>"]),
        ("<<6*7=", []),
        ("no call", []),
        ("", []),
    ],
)
def test_forced_spans_are_marked_and_nothing_is_lost(text: str, forced: list[str]) -> None:
    pieces = marked(written(text))
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, is_forced in pieces if is_forced] == forced


def test_nothing_is_marked_where_the_calculator_was_off() -> None:
    assert marked(written("<<6*7=42>>42", forced=())) == [("<<6*7=42>>42", False)]


def test_long_texts_are_cut() -> None:
    assert sum(len(piece) for piece, _ in marked(written("x" * (MAX_CHARS + 50)))) == MAX_CHARS


def test_changes_come_first_and_hashes_choose(finished: Path) -> None:
    rows = samples_to_read(RunFiles(finished), "first", WARMUP, FINAL)
    # 14 problems went from wrong to right, one (p4) from right to wrong: 6 and 1 are shown, which is enough to read
    assert [row["change"] for row in rows] == ["wrong to right"] * 6 + ["right to wrong"]
    assert rows[-1]["problem_id"] == "p4"
    assert len(rows) <= IN_ALL
    assert [row["problem_id"] for row in rows[:6]] != sorted(row["problem_id"] for row in rows[:6])
    assert rows[0]["before"]["right"] is False and rows[0]["after"]["right"] is True
    assert rows == samples_to_read(RunFiles(finished), "first", WARMUP, FINAL)


def test_where_nothing_changed_there_is_still_something_to_read(finished: Path) -> None:
    rows = samples_to_read(RunFiles(finished), "first", WARMUP, WARMUP)
    assert [row["change"] for row in rows] == ["wrong both times"] * 6


def test_before_the_last_evaluation_the_warm_up_stands_alone(make_until: Callable[[str], Path]) -> None:
    run = RunFiles(make_until("0-warmup/evaluate/first"))
    rows = samples_to_read(run, "first", WARMUP, None)
    assert rows and all(row["after"] is None for row in rows)
    assert samples_to_read(run, "first", None, None) == []
