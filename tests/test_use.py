"""A model in use: what `ask` shows of the calculator."""

from __future__ import annotations

from selftrain.records import Completion
from selftrain.use import computed_calls


def written(text: str, calls: int) -> Completion:
    return Completion("q", 0, (1,), text, "eos", calls=calls)


def test_calls_are_shown_with_what_was_asked() -> None:
    text = "6*7=<<6*7=42>>42\nthen <<42/2=21>>21\n#### 21"
    assert computed_calls(written(text, 2), "angle") == ["6*7 = 42", "42/2 = 21"]
    assert computed_calls(written("[ 6 * 7 = 42 ] 42. #### 42.", 1), "bracket") == ["6 * 7 = 42"]


def test_what_could_not_be_computed_is_not_shown() -> None:
    assert computed_calls(written("<<two*3=6>>6 and <<2*3=6>>6", 1), "angle") == ["2*3 = 6"]
    assert computed_calls(written("<<2*3=6>>6", 0), "angle") == []
