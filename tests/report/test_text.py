"""The table for the terminal, and how numbers are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.report.text import clean, results_text, table
from selftrain.report.wording import count, flops_text, interval, percent, seconds_text, share


def test_the_headline_comes_first_and_the_places_last(finished: Path) -> None:
    lines = results_text(collect(RunFiles(finished))).split("\n")
    assert lines[0].startswith("On first, the delivered model is better than the warm-up model: +65.0 points")
    assert lines[-2:] == [f"model: {finished / 'model'}", f"report: {finished / 'report.html'}"]


def test_rows_dpo_and_warnings_are_told(finished: Path) -> None:
    text = results_text(collect(RunFiles(finished)))
    rows = [line.split() for line in text.split("\n")]
    assert ["iteration", "1,", "delivered", "90.0", "69.9", "to", "97.2", "90.0", "90.0", "1.0"] in rows
    assert "DPO, iteration 1: 3 pairs, 2 steps, reward accuracy 67%" in text
    assert "75% of the samples differ at equal seeds; pass@2 66.7% -> 75.0%; distinct right texts 3 -> 4" in text
    assert text.count("<i>did next to nothing</i>") == 1
    assert "the same 4 rows: 100.0 with the calculator, 50.0 without" in text
    assert "On the 15 rows without a near training question" in text


def test_passes_are_told_without_equal_seeds_but_not_of_a_model_that_did_not_sample(finished: Path) -> None:
    results = collect(RunFiles(finished))
    results["dpo"][0]["changed_fraction"] = None
    assert "\n  pass@2 66.7% -> 75.0%; distinct right texts 3 -> 4" in results_text(results)
    results["dpo"][0]["sampled_from_dpo"] = False
    assert "pass@2" not in results_text(results)


def test_a_cut_run_says_how_to_go_on(make_until: Callable[[str], Path]) -> None:
    text = results_text(collect(RunFiles(make_until("1-iteration/pair"))))
    assert text.startswith("The run is not finished")
    assert "next 1-iteration/dpo; run again to go on" in text
    assert "model:" not in text and "not there yet" in text


def test_nothing_steers_the_terminal() -> None:
    assert (
        clean("a\x1b[31mb\u202ec\nd")
        == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d"
    )


def test_columns_line_up() -> None:
    assert table(["", "n"], [["long name", "1"], ["x", "100"]]) == [
        "             n",
        "long name    1",
        "x          100",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (119.6, "2 min 0 s"),
        (3599.7, "1 h 0 min"),
        (7325, "2 h 2 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_numbers() -> None:
    accuracy = {"accuracy": 0.8444, "low": 0.787, "high": 0.8884}
    assert (percent(accuracy), interval(accuracy), percent(None), interval(None)) == ("84.4", "78.7 to 88.8", "-", "")
    assert (share(0.123), share(None), count(12345), count(None)) == ("12.3 %", "-", "12,345", "-")
    assert (flops_text(8.1e13), flops_text(0), flops_text(None)) == ("8.1e13", "0", "-")
