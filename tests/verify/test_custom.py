"""A user's own verifier: the contract, and what is said where it is broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from selftrain.errors import ConfigError, DataError
from selftrain.records import NO_GOLD, Completion, Problem, Verdict
from selftrain.verify import judge, open_verifier
from selftrain.verify.custom import LAST_LINES, load

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module into the folder that we are in; returns its name. Each test needs names of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_module(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        return name

    return write_module


def problem(verify: str, answer: str | None = "yes") -> Problem:
    return Problem("my/3", "?", answer, verify=verify)


def judged(name: str, text: str, answer: str | None = "yes") -> Verdict:
    strict, flexible = load(name)(problem(name, answer), text, Fraction(0))
    assert strict == flexible
    return strict


def test_true_false_and_verdicts(write: Write) -> None:
    name = write(
        "checks_plain",
        "from selftrain.records import Verdict\n"
        "def ends(text, answer):\n    return text.endswith(answer)\n"
        "def says(text, answer):\n    return Verdict('unparsed', text[:2], 'because')\n",
    )
    assert judged(f"{name}:ends", "so yes") == Verdict("right")
    assert judged(f"{name}:ends", "so no") == Verdict("wrong", None, "expected yes")
    assert judged(f"{name}:says", "so no") == Verdict("unparsed", "so", "because")
    assert judged(f"{name}:ends", "so yes", None).source == NO_GOLD


def test_completions_are_judged_by_it(write: Write) -> None:
    name = write("checks_judge", "def ends(text, answer):\n    return text.endswith(answer)\n")
    completions = [Completion("my/3", k, (5,), text, "eos") for k, text in enumerate(["yes", "no"])]
    outcomes = [c.strict.outcome for c in judge(problem(f"{name}:ends"), completions) if c.strict]
    assert outcomes == ["right", "wrong"]


def test_one_that_raises_names_row_and_traceback(write: Write) -> None:
    name = write(
        "checks_raising",
        "def deep(text):\n    return int(text)\n\ndef raising(text, answer):\n    return deep(text) == answer\n",
    )
    with pytest.raises(DataError) as caught:
        judged(f"{name}:raising", "seven" * 100)
    message = str(caught.value)
    assert f"{name}:raising raised ValueError for row my/3 (answer 'yes', text 'sevenseven" in message
    for part in (
        "checks_raising.py",
        "line 5, in raising",
        "line 2, in deep",
        "return int(text)",
        "ValueError: invalid",
    ):
        assert part in message
    assert "custom.py" not in message, "its own code, not ours"
    assert caught.value.hint is not None and len(caught.value.hint.splitlines()) <= LAST_LINES


@pytest.mark.parametrize(
    ("code", "got"),
    [("return 1", "got int"), ("return None", "got NoneType"), ("return V('correct')", "got outcome 'corr")],
)
def test_another_result_is_refused(write: Write, code: str, got: str) -> None:
    name = write(f"checks_{abs(hash(code))}", f"from selftrain.records import Verdict as V\ndef f(t, a):\n    {code}\n")
    with pytest.raises(DataError, match=rf"must return True, False or a Verdict, {got}.*for row my/3"):
        judged(f"{name}:f", "x")


@pytest.mark.parametrize("name", ["a.py:f", "a:", ":f", "a:f()", "a b:f", "a:b:c", "../a:f"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ConfigError, match="expected MODULE:FUNCTION"):
        open_verifier(name)


def test_modules_that_cannot_be_had(write: Write) -> None:
    with pytest.raises(ConfigError, match="there is no module 'checks_nowhere'"):
        open_verifier("checks_nowhere:f")
    broken = write("checks_broken", "def f(text, answer)\n    return True\n")
    with pytest.raises(ConfigError, match=r"(?s)could not be imported.*checks_broken.py.*SyntaxError"):
        open_verifier(f"{broken}:f")
    needy = write("checks_needy", "import checks_missing\n")
    with pytest.raises(ConfigError, match=r"(?s)could not be imported.*line 1.*No module named 'checks_missing'"):
        open_verifier(f"{needy}:f")
    empty = write("checks_empty", "f = 3\n")
    with pytest.raises(ConfigError, match="module checks_empty has no function 'f'"):
        open_verifier(f"{empty}:f")


def test_other_names_are_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="(?s)numeric, choice, symbolic, or MODULE:FUNCTION.*Did you mean 'numeric'"):
        open_verifier("numerical")
