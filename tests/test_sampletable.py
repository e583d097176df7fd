"""The table of `selftrain sample`, against counts made by hand."""

from __future__ import annotations

from selftrain.records import Completion, Verdict
from selftrain.sampletable import Drawn, SetFigures, figures_of, table_text

RIGHT, WRONG = Verdict("right", "1"), Verdict("wrong", "2")


def written(problem: str, k: int, strict: Verdict | None, flexible: Verdict | None, tokens: int = 4) -> Completion:
    stop = "length" if tokens > 4 else "eos"
    return Completion(problem, k, tuple(range(tokens)), "t", stop, (), 2, k, "m", "sample", strict, flexible)


COMPLETIONS = [
    written("a", 0, RIGHT, RIGHT), written("a", 1, WRONG, RIGHT),
    written("b", 0, WRONG, WRONG), written("b", 1, WRONG, RIGHT),
    written("c", 0, None, None), written("c", 1, None, None, tokens=10),
]  # fmt: skip


def test_counts() -> None:
    assert figures_of("set", COMPLETIONS, too_long=7) == SetFigures(
        name="set", problems=3, too_long=7, unjudged=1, completions=6,
        strict=1 / 4,  # of 4 judged completions
        flexible=3 / 4,
        pass_at_k=1 / 2,  # a, but not b
        tokens=5.0,  # (5 x 4 + 10) / 6
        calls=2.0, uncalculated=3, cut_at_limit=1,
    )  # fmt: skip


def test_the_table() -> None:
    row = figures_of("set", COMPLETIONS, too_long=7)
    lines = table_text([row], 2, {"set": Drawn(completions=6, tokens=30, seconds=4.0)}).split("\n")
    assert lines[0].split() == [
        "problems", "completions", "strict", "%", "flexible", "%", "pass@2", "%", "tokens", "calls",
        "uncalculated", "cut", "too", "long", "completions/s", "tokens/s",
    ]  # fmt: skip
    assert lines[1].split() == ["set", "3", "6", "25.0", "75.0", "50.0", "5.0", "2.00", "3", "1", "7", "1.5", "7.5"]
    assert lines[2:] == ["set: 1 of 3 problems have no gold answer; shares are of the others."]


def test_what_was_not_judged_in_time_is_counted() -> None:
    late = Verdict("timeout")
    row = figures_of("set", [*COMPLETIONS[:4], written("d", 0, late, late)], too_long=0)
    assert (row.timeouts, row.strict) == (1, 1 / 5)
    assert "set: 1 completions were not judged in time." in table_text([row], 2, {})


def test_nothing_judged_and_nothing_drawn() -> None:
    row = figures_of("set", COMPLETIONS[4:], too_long=0)
    cells = table_text([row], 2, {}).split("\n")[1].split()
    assert cells == ["set", "1", "2", "-", "-", "-", "7.0", "2.00", "1", "1", "0", "-", "-"]
    empty = table_text([figures_of("none", [], too_long=3)], 2, {}).split("\n")
    assert empty[1].split() == ["none", "0", "0", "-", "-", "-", "0.0", "0.00", "0", "0", "3", "-", "-"]
