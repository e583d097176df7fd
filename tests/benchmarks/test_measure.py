"""Peak of the matrix product, peak of memory, messages without folders."""

from __future__ import annotations

import pytest

from benchmarks import measure


def test_the_matrix_peak_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CPU_SIZES", (64, 128))
    assert 1e7 < measure.matrix_peak("cpu", "fp32", seconds=0.02) < 1e13


def test_peak_memory_sees_what_was_held() -> None:
    measure.reset_peak_memory("cpu")
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
