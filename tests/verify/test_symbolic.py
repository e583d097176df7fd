"""Where a mathematical answer is found, and what its comparison says; hostile text neither hangs nor crashes it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.errors import ConfigError
from selftrain.records import NO_GOLD, Completion, Problem, Verdict
from selftrain.verify import judge, symbolic
from selftrain.verify.extract import MAX_ANSWER_CHARS, last_boxed
from selftrain.verify.killable import BrokeOff, Killable
from selftrain.verify.symbolic import flexible_expression, strict_expression, verdicts

PIECES = st.sampled_from(
    ["####", " ", "\n", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\boxed{", "\\frac{1}{2}", "{", "}", "(", ")", "^", "9"]
    + ["x", "=", "answer is ", "answer:", "Question:", ".", ",", "\u0665", "\x00", "\ud800", "\\", "%", "pens"]
    + ["\u202e", "\u200f"]
)


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("#### \\frac{1}{2}", "\\frac{1}{2}", "\\frac{1}{2}"),
        ("#### $x^2+1$.", "x^2+1", "x^2+1"),
        ("#### $29.00", "29.00", "29.00"),
        ("#### \\boxed{7}", "7", "7"),
        ("\\boxed{1}\n#### 2", "2", "2"),
        ("so \\boxed{3} I hope", "3", "3"),
        ("\\boxed{1} then \\boxed{\\sqrt{2}}", "\\sqrt{2}", "\\sqrt{2}"),
        ("\\boxed{\\left\\{1, 2\\right\\}}", "\\left\\{1, 2\\right\\}", "\\left\\{1, 2\\right\\}"),
        ("\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}",) + ("\\begin{pmatrix}1\\\\2\\end{pmatrix}",) * 2,
        ("#### 7\nand so on", None, "7"),
        ("####", None, None),
        ("\\boxed{7", None, "7"),
        ("The answer is $y$, where $x=2$.", None, "y"),
        ("The answer is 5, since $x=2$.", None, "5"),
        ("The answer is \\(x\\).", None, "x"),
        ("So $x=2$ and \\[x+1\\]", None, "x+1"),
        ("It costs $5 or $6.", None, "6"),
        ("The answer is 7.\nQuestion: and $z$?", None, "7"),
        ("nothing", None, None),
        ("", None, None),
        ("#### " + "9" * (MAX_ANSWER_CHARS + 1), None, None),
        ("\\boxed{" + "9" * (MAX_ANSWER_CHARS + 1) + "}", None, None),
    ],
)
def test_where_the_answer_is_found(text: str, strict: str | None, flexible: str | None) -> None:
    assert (strict_expression(text), flexible_expression(text)) == (strict, flexible)


@settings(deadline=None, derandomize=True, max_examples=500)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_finding_is_total_and_flexible_agrees_with_strict(text: str) -> None:
    strict, flexible = strict_expression(text), flexible_expression(text)
    assert strict is None or strict == flexible
    for found in (strict, flexible, last_boxed(text)):
        assert found is None or len(found) <= MAX_ANSWER_CHARS


@pytest.mark.parametrize(
    "unit",
    ["9", "#### ", "$", "$x", "\\(", "\\[", "\\boxed{", "{", "answer is ", "answer: $", "\nq:", "\\frac{", "\x00"]
    + ["\u202e", "\u200fx"],
)
def test_finding_in_a_million_hostile_characters(unit: str) -> None:
    started = time.monotonic()
    text = unit * (1_000_000 // len(unit))
    flexible_expression(text)
    strict_expression(text)
    assert flexible_expression(text + "\n#### 42") == "42"
    assert time.monotonic() - started < 30  # it takes well below a second; bounds are on characters


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'selftrain\[math\]'"):
        symbolic.check_installed()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing for real, with room for a busy machine."""
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    worker = symbolic.worker()
    monkeypatch.setattr(worker, "_limit_s", 60.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Killable]:
    """A worker of its own that is killed soon."""
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    worker = Killable(COMMAND, 0.3)
    monkeypatch.setattr(symbolic, "worker", lambda: worker)
    yield worker
    worker.close()


COMMAND = [*symbolic.worker()._command]  # started with the limit that a run has


def problem(gold: str | None) -> Problem:
    return Problem("q", "?", gold, verify="symbolic")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("gold", "text", "outcome"),
    [
        ("\\frac{1}{2}", "#### 0.5", "right"),
        ("1/2", "\\boxed{\\frac{2}{4}}", "right"),
        ("x^2+2x+1", "#### $(x+1)^2$", "right"),
        ("\\sqrt{8}", "#### 2\\sqrt{2}", "right"),
        ("(1, 2)", "#### (1,2)", "right"),
        ("\\{1, 2\\}", "#### \\{2, 1\\}", "right"),
        ("$\\boxed{42}$", "#### 42", "right"),
        ("1,000", "#### 1000", "right"),
        ("50\\%", "#### 0.5", "right"),
        ("5", "#### $x=5$", "right"),
        ("\\sin^2 x + \\cos^2 x", "#### 1", "right"),
        ("[0,1)", "#### [0,1]", "wrong"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "#### \\begin{pmatrix}1\\\\3\\end{pmatrix}", "wrong"),
        ("\\frac{1}{2}", "#### 1/3", "wrong"),
        ("x+1", "#### x+2", "wrong"),
        ("(1, 2)", "#### (2, 1)", "wrong"),
        ("7", "it is 7", "unparsed"),
    ],
)
def test_comparing(gold: str, text: str, outcome: str) -> None:
    assert verdicts(problem(gold), text, Fraction(0))[0].outcome == outcome


@pytest.mark.usefixtures("patient")
def test_verdicts_say_what_was_found() -> None:
    assert verdicts(problem("7"), "#### 7.0", Fraction(0)) == (Verdict("right", "7.0"),) * 2
    strict, flexible = verdicts(problem("7"), "The answer is $8$.", Fraction(0))
    assert (strict, flexible) == (
        Verdict("unparsed", None, "no #### and no \\boxed{}"),
        Verdict("wrong", "8", "expected 7"),
    )


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("gold", [None, "", "\\frac{", "9" * (MAX_ANSWER_CHARS + 1)])
def test_without_a_readable_gold_answer_nothing_is_right_or_wrong(gold: str | None) -> None:
    for verdict in verdicts(problem(gold), "#### 7", Fraction(0)):
        assert (verdict.outcome, verdict.source) == ("unparsed", NO_GOLD)


@pytest.mark.usefixtures("patient")
def test_a_verdict_does_not_depend_on_what_was_judged_before() -> None:
    rows = [("x^2-1", "(x-1)(x+1)"), ("1/3", "0.3333333"), ("2", "\\sqrt{4}"), ("\\pi", "3.14159"), ("5", "x=5")]
    rows += [(gold, text) for gold, _ in rows for text in ("5", "x")]

    def outcomes(order: list[int]) -> dict[int, Verdict]:
        return {i: verdicts(problem(rows[i][0]), f"#### {rows[i][1]}", Fraction(0))[0] for i in order}

    numbers = list(range(len(rows)))
    first = outcomes(numbers)
    symbolic.worker().close()
    assert outcomes(numbers[::-1]) == first


HOSTILE = ["9**9**9", "9^{9^{9^{9}}}", "10^{10^{10}}!", "(" * 240 + "x" + ")" * 240, "{" * 200, "\\frac{" * 80]
HOSTILE += ["\x00", "\ud800", "\u0665\u0666", "x" * 500, "\\sqrt{" * 80 + "2" + "}" * 80, "1" * 500, "\\", "$", "%"]
HOSTILE += ["\u202e1/2\u202c", "\u200f7"]
HOSTILE += ["\\int_0^1 x^{x^x} dx", "\\sum_{n=1}^{10^{9}} n!", "1/0", "\\infty", "__import__('os').getcwd()"]


def test_hostile_answers_neither_hang_nor_crash(impatient: Killable) -> None:
    for text in HOSTILE:
        verdict = verdicts(problem("7"), f"#### {text}", Fraction(0))[0]
        assert verdict.outcome in ("wrong", "unparsed", "timeout"), text
    impatient._limit_s = 60.0
    assert verdicts(problem("7"), "#### 7", Fraction(0))[0].outcome == "right"


@pytest.mark.parametrize(
    ("end", "reason"),
    [(None, "not compared within 5 s"), (BrokeOff, "not compared: the process that compares ended")],
)
def test_what_takes_too_long_or_breaks_off_is_neither_right_nor_wrong(
    monkeypatch: pytest.MonkeyPatch, end: type[BrokeOff] | None, reason: str
) -> None:
    class Late:
        def ask(self, message: dict[str, str]) -> None:
            if end is not None:
                raise end

    monkeypatch.setattr(symbolic, "worker", Late)
    monkeypatch.setattr(symbolic, "check_installed", lambda: None)
    completion = Completion("q", 0, (5,), "#### 9^{9^9}", "eos")
    judged = judge(problem("7"), [completion])[0]
    assert judged.strict == judged.flexible == Verdict("timeout", None, reason)


@pytest.mark.usefixtures("patient")
@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.text(st.characters(exclude_categories=()), max_size=60))
def test_total_on_any_text(text: str) -> None:
    assert verdicts(problem("7"), f"#### {text}", Fraction(0))[0].outcome in ("right", "wrong", "unparsed", "timeout")


def test_no_text_is_evaluated_as_python() -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    code = (
        "import sympy\n"
        "from selftrain.verify import worker\n"
        "worker._limit_eval()\n"
        "assert sympy.Number('7') == 7\n"
        "try:\n    print(sympy.sympify('print(1)'))\n"
        "except (ValueError, sympy.SympifyError) as error:\n    print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "refused only numbers and names are read here\n", done.stderr
