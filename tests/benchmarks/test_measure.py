"""Peak of the matrix product, peak of memory, messages without folders."""

from __future__ import annotations

import pytest

from benchmarks import measure
from selftrain.hardware import forget_peak_memory


def test_the_matrix_peak_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CPU_SIZES", (64, 128))
    assert 1e7 < measure.matrix_peak("cpu", "fp32", seconds=0.02) < 1e13


def test_peak_memory_sees_what_was_held() -> None:
    forget_peak_memory()
    before = measure.peak_memory_bytes("cpu")
    block = bytearray(b"x") * 200_000_000
    del block
    assert measure.peak_memory_bytes("cpu") >= before
    assert measure.peak_memory_bytes("cpu") > 200_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OSError: /home/me/.cache/x/model.json is missing", "OSError: model.json is missing"),
        ("4.2 completions/s, 100 tokens/s", "4.2 completions/s, 100 tokens/s"),
        ("File '/a/b c.py', line 3", "File 'b c.py', line 3"),
    ],
)
def test_messages_lose_their_folders(text: str, expected: str) -> None:
    assert measure.without_paths(text) == expected


def test_memory_now_is_not_the_peak() -> None:
    block = bytearray(b"x") * 200_000_000
    held = measure.memory_bytes("cpu")
    del block
    assert held > 200_000_000
    assert measure.memory_bytes("cpu") < held - 150_000_000


def test_a_watch_counts_from_where_the_warm_up_ended() -> None:
    watch = measure.Watch("cpu")
    watch.ends["step"] = [10.0, 12.5, 14.0]
    assert watch.since("step", 1) == 4.0
    assert watch.since("step", 2) == 1.5
    assert watch.since("step", 3) == watch.since("reference", 1) == 0.0
    watch.mark("step")
    assert len(watch.ends["step"]) == 4


def test_digests_are_of_the_parts_asked_for() -> None:
    assert measure.code_digest() == measure.code_digest(measure.CODE)
    assert measure.code_digest(("training",)) != measure.code_digest(("training", "models.py"))
