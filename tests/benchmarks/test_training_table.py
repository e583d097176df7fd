"""Targets are the issue's, a record's rates and memory by hand, and the table shows each system and verdict."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.targets import judge_all, missed
from benchmarks.training_table import TARGETS, summary, text

ALL = ("dpo", "dpo-trl", "single", "single-trl", "sft", "sft-trl", "sft-trl-packed")


def found(seconds: float = 50.0, **changes: Any) -> dict[str, Any]:
    """What a process says of 100 pairs of 5,000 tokens; 8e11 FLOPs."""
    return {
        "seconds": seconds, "training_seconds": 0.8 * seconds, "reference_seconds": 0.2 * seconds,
        "peak_memory_bytes": 3_000_000_000, "steady_memory_bytes": 2_400_000_000, "pairs": 100, "tokens": 5000,
        "flops": 800 * 10**9, "parameters": 10**8, "steps": 6, "computed_tokens": 6000, "micro_batch_tokens": 1000,
        "settings": {"layout": "trees"}, "versions": {"trl": "1.16.0"}, **changes,
    }  # fmt: skip


def content(**systems: list[dict[str, Any]]) -> dict[str, Any]:
    task = {
        "pairs": 100, "questions": 40, "steps": 6, "batch_size": 16, "tokens": 5000, "fingerprint": "f00",
        "weights": "abc", "notes": ["a note"],
    }  # fmt: skip
    environment = {"cpu": "A processor", "cores": 2, "python": "3.11", "packages": {"torch": "2"}, "system": "Linux"}
    return {
        "setup": {"device": "cpu", "precision": "fp32", "threads": 2, "environment": environment},
        "tasks": dict.fromkeys(("dpo", "single"), task) | {"sft": {**task, "pairs": 0}},
        "matrix_peak": {"fp32": 2e10},
        "records": {
            name.replace("_", "-"): {str(number): summary(row) for number, row in enumerate(rows)}
            for name, rows in systems.items()
        },
        "failures": {},
    }


def good() -> dict[str, Any]:
    fast, slow = [found(50.0, micro_batch_tokens=1000)] * 3, [found(200.0, micro_batch_tokens=500)] * 3
    return content(dpo=fast, dpo_trl=slow, single=fast, single_trl=slow, sft=fast, sft_trl=slow, sft_trl_packed=slow)


def test_the_table_is_the_issues() -> None:
    assert {(t.first, t.second, t.kind): t.bound for t in TARGETS} == {
        ("dpo", "dpo-trl", "speed"): 2.0,
        ("single", "single-trl", "speed"): 1.3,
        ("sft", "sft-trl", "speed"): 1.5,
        ("sft", "sft-trl-packed", "speed"): 1.15,
        ("dpo", "dpo-trl", "memory"): 0.6,
        ("sft", "sft-trl", "memory"): 0.6,
        ("dpo", "", "roofline"): 0.55,
        ("sft", "", "roofline"): 0.55,
    }
    assert {t.stretch for t in TARGETS if t.kind == "roofline"} == {0.65}


def test_a_record_by_hand() -> None:
    record = summary(found(50.0))
    assert record["pairs_per_s"] == 2.0
    assert record["tokens_per_s"] == 100.0
    assert record["memory_above_bytes"] == 600_000_000
    assert record["memory_per_token"] == 600_000
    assert summary(found(peak_memory_bytes=1))["memory_above_bytes"] == 0


def test_targets_are_judged_by_pairs_tokens_memory_and_flops() -> None:
    # Four times as fast; half the memory a token; 8e11 FLOPs in 50 s are 1.6e10 of 2e10: 80 %.
    values = {(f.target.first, f.target.kind): f for f in judge_all(good(), ALL, False, TARGETS)}
    assert values["dpo", "speed"].median == pytest.approx(4.0)
    assert values["dpo", "memory"].median == pytest.approx(0.5)
    assert values["sft", "roofline"].median == pytest.approx(0.8)
    assert all(finding.met for finding in values.values())
    assert missed(good(), ALL, False, TARGETS) == []


def test_each_missed_target_is_named_and_quick_asks_for_less() -> None:
    fast, slow = found(50.0, micro_batch_tokens=700), found(90.0, micro_batch_tokens=500)  # 1.8 times; 0.71 a token
    near = content(dpo=[fast] * 3, dpo_trl=[slow] * 3)
    lines = missed(near, ("dpo", "dpo-trl"), False, TARGETS)
    assert [line.partition(":")[0] for line in lines] == [
        "DPO, the run's pairs, over TRL",
        "DPO, memory a token over TRL's",
    ]
    assert "1.8 (1.8 to 1.8 in 3), target at least 2" in lines[0]
    assert missed(near, ("dpo", "dpo-trl"), True, TARGETS) == []
    one = content(dpo=[fast], dpo_trl=[slow])
    assert "1 of 3 repetitions measured" in missed(one, ("dpo", "dpo-trl"), False, TARGETS)[0]


def test_packing_that_does_not_run_is_no_miss_but_another_rival_is() -> None:
    lost = good()
    for name in ("sft-trl-packed", "dpo-trl"):
        del lost["records"][name]
        lost["failures"][name] = "ended with code 1: no kernel"
    lines = missed(lost, ALL, False, TARGETS)
    assert len(lines) == 2  # DPO's speed and memory
    assert all("no kernel" in line and line.startswith("DPO") for line in lines)
    assert "not measured: sft, TRL SFTTrainer, packing: ended with code 1: no kernel" in text(lost, ALL, False)


def test_each_system_has_its_row() -> None:
    lines = text(good(), ALL, False).splitlines()
    assert (
        "dpo: 100 pairs of 40 questions in 6 steps of about 16, 5000 distinct tokens; work f00, weights abc; a note"
        in lines
    )
    trl = next(line.split() for line in lines if line.startswith("TRL DPOTrainer "))
    # steps, runs, pairs/s, tokens/s, lowest to highest, times, reference, after, computed, micro-batch, memory, %
    assert trl[2:] == [
        "6", "3", "0.500", "25.0", "0.5", "to", "0.5", "4.00", "40.0", "0.0", "1.20", "500", "600", "1200", "20.0"
    ]  # fmt: skip
    packed = next(line.split() for line in lines if line.startswith("TRL SFTTrainer, packing"))
    assert packed[3:] == ["6", "3", "25.0", "25", "to", "25", "4.00", "1.20", "500", "600", "1200", "20.0"]
    assert "dpo, selftrain, trees: layout trees" in lines
    assert any(line.startswith("SFT, share of the roofline") and line.endswith("met, stretch too") for line in lines)
    assert "rivals' packages: trl 1.16.0" in lines
