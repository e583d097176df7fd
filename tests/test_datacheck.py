"""`selftrain data check`: what passes, what fails with its row, formats in counts, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain import cli
from selftrain.datacheck import FAILURES_SHOWN, check
from selftrain.errors import ConfigError, DataError

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_rows(*rows: dict[str, Any], name: str = "my") -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write_rows


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["selftrain", "data", "check", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_numbers_that_pass(write: Write) -> None:
    checked = check(write({"question": "q?", "answer": "2+3=5\n#### 5"}, {"question": "r?", "answer": "1/2"}))
    assert checked.ok
    assert (checked.num_rows, checked.num_rationales) == (2, 1)
    assert checked.formats == {"####": 1, "number": 1}
    assert "gold answers that pass: 2 of 2" in checked.text()


def test_two_formats_in_one_file_are_counted_and_shown(write: Write) -> None:
    rows = [{"question": f"{n} and 1?", "answer": n + 1} for n in range(3)]
    rows += [{"question": "which?", "answer": "B"}, {"question": "what?", "answer": "\\boxed{7}", "id": "boxed"}]
    path = write(*rows)
    checked = check(path)
    assert not checked.ok
    assert checked.formats == {"number": 3, "letter": 1, "\\boxed": 1}
    assert [(failure.problem_id, failure.expected) for failure in checked.answers] == [
        ("my/4", "B"),
        ("my/boxed", "\\boxed{7}"),
    ]
    text = checked.text()
    assert "answers of the whole set are written as: 3 number, 1 letter, 1 \\boxed" in text
    assert "gold answers that pass: 3 of 5" in text
    assert "my/4: answer: expected 'B', got None (the gold answer is not a number)" in text
    as_choice = check(path, verify="choice")
    assert [failure.problem_id for failure in as_choice.answers] == ["my/1", "my/2", "my/3", "my/boxed"]


def test_choices_and_their_rationales(write: Write) -> None:
    path = write(
        {"question": "q?", "answer": "(b)", "solution": "It is larger."},
        {"question": "r?", "answer": "C", "solution": "It is smaller.\n#### C) 7"},
        {"question": "s?", "answer": "C", "solution": "Hence\n#### D"},
    )
    checked = check(path, verify="choice")
    assert checked.ok and (checked.num_rows, checked.num_rationales) == (2, 2)
    assert checked.skipped == {"rationale ends in another answer": 1}
    assert "skipped: 1 rows, rationale ends in another answer" in checked.text()


def test_a_rationale_that_ends_in_another_expression_fails(write: Write) -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    path = write(
        {"problem": "q?", "answer": "\\frac{1}{2}", "solution": "It is \\boxed{0.5}."},
        {"problem": "r?", "solution": "It is \\boxed{x+1}."},
        {"problem": "s?", "answer": "7", "solution": "It is \\boxed{8}."},
        {"problem": "t?", "answer": "\\frac{"},
    )
    checked = check(path, verify="symbolic")
    assert [failure.problem_id for failure in checked.answers] == ["my/4"]
    assert [(f.problem_id, f.expected, f.found) for f in checked.rationales] == [("my/3", "7", "8")]


def test_a_rationale_that_never_comes_to_its_answer_is_shown(write: Write) -> None:
    path = write(
        {"question": "a?", "answer": 36, "rationale": "Together they have 18 + 17 = 35 apples."},
        {"question": "b?", "answer": "-1,200", "rationale": "He owes 600 + 600 = 1200, so he has -1200."},
        {"question": "c?", "answer": 5, "rationale": "2 + 3 = <<2+3=5>>5, of 9 in all."},
    )
    checked = check(path)
    assert checked.ok and [row.id for row in checked.unreached] == ["my/1"]
    text = checked.text()
    assert "gold rationales that pass: 3 of 3" in text
    assert "rationales that never come to their row's answer, worth a look: 1" in text
    assert "18+17=35>>35 apples.', answer '36'" in text


def test_rows_with_an_earlier_question_are_counted(write: Write) -> None:
    rows = [{"question": text, "answer": 5} for text in ("A b?", "c?", " a  B?", "a b?")]
    assert "rows with the question of an earlier row: 2" in check(write(*rows)).text()
    assert check(write(*rows), rows=2).num_repeated == 0
    assert "earlier row" not in check(write(*rows), rows=2).text()


def test_only_some_rows_and_named_columns(write: Write) -> None:
    path = write(*({"text": f"{n}?", "gold value": n, "kind": "x"} for n in range(5)))
    fields = ["question=text", "answer=gold value"]
    assert check(path, rows=2, fields=fields).num_rows == 2
    with pytest.raises(DataError, match="--field: expected OURS=THEIRS, got 'question'"):
        check(path, fields=["question"])
    with pytest.raises(DataError, match="--rows: expected at least 1, got 0"):
        check(path, rows=0)


def test_many_failures_are_not_all_shown(write: Write) -> None:
    path = write(*({"question": f"{n}?", "answer": "many"} for n in range(FAILURES_SHOWN + 5)))
    lines = check(path).text().splitlines()
    assert sum(line.startswith("  my/") for line in lines) == FAILURES_SHOWN
    assert "  and 5 more answers" in lines


def test_sources_too() -> None:
    checked = check("arithmetic", rows=4)
    assert checked.ok and (checked.num_rows, checked.formats) == (4, {"####": 64})


def test_a_verifier_that_cannot_be_had_is_refused_first() -> None:
    with pytest.raises(ConfigError, match="No verifier is called 'numerical'"):
        check("no/such/file.jsonl", verify="numerical")


def test_exit_codes(write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = write({"question": "q?", "answer": "5"}, {"question": "r?", "answer": "B"})
    assert run(monkeypatch, path, "--rows", "1") == 0
    assert run(monkeypatch, path) == 1
    told = capsys.readouterr()
    assert "gold answers that pass: 1 of 2" in told.out and told.err == ""
    assert run(monkeypatch, path, "--verify", "numerical") == 2
    assert run(monkeypatch, "no/such.jsonl") == 2
    told = capsys.readouterr()
    assert told.out == "" and "Did you mean 'numeric'?" in told.err and "no/such.jsonl" in told.err


def test_a_verifier_that_raises_is_told_with_its_row(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("checks_cli.py").write_text("def check(text, answer):\n    return {'5': True}[answer]\n", encoding="utf-8")
    path = write({"question": "q?", "answer": "5"}, {"question": "r?", "answer": "6"})
    assert run(monkeypatch, path, "--verify", "checks_cli:check") == 2
    told = capsys.readouterr().err
    for part in ("checks_cli:check raised KeyError for row my/2", "checks_cli.py", "line 2, in check", "KeyError: '6'"):
        assert part in told
    assert "Traceback" not in told
