"""A model in use: what `ask` shows of the calculator."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from selftrain import cli
from selftrain.errors import DataError
from selftrain.records import Completion
from selftrain.toy import make_toy
from selftrain.use import check_question, computed_calls, open_model


def written(text: str, calls: int) -> Completion:
    return Completion("q", 0, (1,), text, "eos", calls=calls)


def test_calls_are_shown_with_what_was_asked() -> None:
    text = "6*7=<<6*7=42>>42\nthen <<42/2=21>>21\n#### 21"
    assert computed_calls(written(text, 2), "angle") == ["6*7 = 42", "42/2 = 21"]
    assert computed_calls(written("[ 6 * 7 = 42 ] 42. #### 42.", 1), "bracket") == ["6 * 7 = 42"]


def test_what_could_not_be_computed_is_not_shown() -> None:
    assert computed_calls(written("<<two*3=6>>6 and <<2*3=6>>6", 1), "angle") == ["2*3 = 6"]
    assert computed_calls(written("<<2*3=6>>6", 0), "angle") == []


def test_a_question_that_leaves_no_room_is_refused_in_words_of_the_question(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path / "toy")
    (tmp_path / "toy/selftrain.json").write_text('{"max_new_tokens": 16}', encoding="utf-8")
    tutor = open_model(str(tmp_path / "toy"))
    length = len(tutor.codec.prompt("pens?" * 300))
    with pytest.raises(
        DataError, match=f"of at most 240 tokens with its template, got {length}: the model takes 256"
    ) as no:
        tutor.ask("pens?" * 300)
    assert no.value.hint == "Shorten the question."
    assert tutor.ask("6 boxes of 7 pens. How many pens?").token_ids


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(question: str) -> None:
    with pytest.raises(DataError, match="Expected a question, got an empty text"):
        check_question(question)


def test_an_answer_that_is_blank_or_was_cut_off_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blank = Completion("question", 0, (1, 1, 1), "   ", "length")
    tutor = SimpleNamespace(ask=lambda question, calculator: blank, codec=SimpleNamespace(style="angle"))
    monkeypatch.setattr("selftrain.use.open_model", lambda name, say: tutor)
    monkeypatch.setattr(sys, "argv", ["selftrain", "ask", "model", "How many pens?"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr()
    assert shown.out == "(only white space)\n"
    assert shown.err.splitlines() == ["cut off after 3 tokens, before the model came to an end", "calculator: no call"]
