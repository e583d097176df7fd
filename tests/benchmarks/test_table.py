"""The table shows each system, its ratio to ours, and each target's verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.table import text

Make = Callable[..., dict[str, Any]]


def test_systems_targets_and_machine(make_content: Make) -> None:
    content = make_content(ours=[4.0, 5.0, 6.0], hf=[2.0, 2.0, 2.0])
    content["failures"]["hf-continuous"] = "too slow"
    shown = text(content, ("ours", "hf", "hf-continuous"), quick=False)
    lines = shown.splitlines()
    hf = next(line.split() for line in lines if line.startswith("b. generate  "))
    # rows, runs, completions/s, lowest to highest, tokens/s, times, tokens each, cut, right, calls, peak GB
    assert hf[2:] == ["64", "3", "2.00", "2.00", "to", "2.00", "200", "2.50", "100.0", "1.0", "15.0", "2.00", "2.00"]
    assert any(line.startswith("b. generate ") and line.endswith("met") for line in lines)
    assert any(line.startswith("share of the roofline") and "met, stretch too" in line for line in lines)
    assert "not measured: c. generate_batch: too slow" in shown
    assert "A processor, 2 cores, 2 threads, cpu, fp32" in shown
    assert "matrix peak, GFLOP/s: fp32 200, bf16 1" in shown


def test_a_missed_target_and_fairness_are_shown(make_content: Make) -> None:
    content = make_content(ours=[4.0] * 3, ours_plain=[4.0] * 3, hf=[2.0] * 3)
    shown = text(content, ("ours", "ours-plain", "hf"), quick=False)
    assert any(line.startswith("b. generate ") and line.endswith("MISSED") for line in shown.splitlines())
    assert "ours-plain beside hf: 100.0 and 100.0 tokens each (+0.0 standard errors), 15.0% and 15.0% right" in shown


def test_records_of_earlier_code_are_marked(make_content: Make) -> None:
    content = make_content(ours=[4.0])
    content["code"] = "new"
    content["records"]["ours"]["0"]["code"] = "old"
    assert "selftrain (earlier code)" in text(content, ("ours",), quick=False)
