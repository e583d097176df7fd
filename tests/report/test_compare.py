"""Two runs against each other: joined by problem, refused where nothing joins, and every difference named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import RunError
from selftrain.metrics import mcnemar_exact
from selftrain.report.command import default_page, make_comparison
from selftrain.report.compare import compare_runs
from selftrain.report.comparepage import comparison_text, write_comparison
from selftrain.report.files import RunFiles


def compared(first: Path, second: Path) -> dict[str, Any]:
    return compare_runs(RunFiles(first), RunFiles(second))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_delivered_models_are_compared_problem_by_problem(finished: Path, rival: Path) -> None:
    found = compared(finished, rival)
    # A is right on p0..p3 and p5..p18, B on p0..p9: B alone on p4, A alone on p10..p18
    main, warm_up = found["sets"][0]["comparisons"]
    assert (main["role"], main["only_first"], main["only_second"], main["difference"]) == ("main", 9, 1, -0.4)
    assert main["low"] < main["high"] < 0 and main["verdict"] == "worse"
    assert main["p_value"] == main["mcnemar_p_value"] == mcnemar_exact(9, 1)
    assert (warm_up["role"], warm_up["difference"], warm_up["verdict"]) == ("warm-up", 0.0, "not shown")
    assert found["headline"]["sentence"].startswith(
        "On first, B's delivered model is worse than A's delivered model: -40.0"
    )
    assert [one["name"] for one in found["sets"]] == ["first", "second"]
    turned = compared(rival, finished)["sets"][0]["comparisons"][0]
    assert (turned["difference"], turned["verdict"]) == (0.4, "better")


def test_grouped_problems_keep_mcnemar_beside_the_test_by_group(finished: Path, rival: Path) -> None:
    second = compared(finished, rival)["sets"][1]
    assert second["groups"] == 4 and second["comparisons"][0]["num_groups"] == 4
    assert second["comparisons"][0]["mcnemar_p_value"] == 1.0


def test_what_differs_is_named_and_nothing_else(finished: Path, rival: Path) -> None:
    assert compared(finished, rival)["settings"] == [{"key": "seed", "A": "1", "B": "2"}]
    assert compared(finished, finished)["settings"] == []


def test_problems_are_joined_by_id_and_question(finished: Path, rival: Path) -> None:
    edit(rival / "data/test-first.jsonl", '"question":"1: ', '"question":"another: ')
    one = compared(finished, rival)["sets"][0]
    assert (one["rows"], one["other_question"], one["comparisons"][0]["num"]) == (19, 1, 19)
    assert {row["accuracy"]["rows"] for row in one["models"]} == {19}


def test_runs_without_a_common_problem_are_refused_with_why(finished: Path, rival: Path) -> None:
    for name, letter in (("first", "p"), ("second", "q")):
        edit(rival / f"data/test-{name}.jsonl", f'"id":"{letter}', '"id":"other-')
    with pytest.raises(
        RunError, match=r"no test problem in common: A has first \(20 problems\), second \(8 problems\)"
    ):
        compared(finished, rival)


def test_equal_ids_of_other_questions_are_refused_with_why(finished: Path, rival: Path) -> None:
    edit(rival / "data/test-first.jsonl", '"question":"', '"question":"other ')
    edit(rival / "data/test-second.jsonl", '"question":"', '"question":"other ')
    with pytest.raises(RunError, match="28 ids are the same, and their questions differ"):
        compared(finished, rival)


def test_a_run_that_is_under_way_is_compared_by_its_newest_model(
    rival: Path, make_until: Callable[[str], Path]
) -> None:
    found = compared(make_until("1-iteration/evaluate/first"), rival)
    main = found["sets"][0]["comparisons"][0]
    assert (main["first"], main["second"]) == ("A's newest model (iteration 1)", "B's delivered model")
    assert "not finished" in comparison_text(found)


def test_a_run_that_has_answered_nothing_is_refused(rival: Path, make_until: Callable[[str], Path]) -> None:
    with pytest.raises(RunError, match="no trained model of both has answered them"):
        compared(make_until("0-base/evaluate/first"), rival)
    with pytest.raises(RunError, match="no such|expected a run folder"):
        compared(rival / "nothing", rival)


def test_the_page_stands_alone_and_escapes(hostile_run: Path, rival: Path, tmp_path: Path) -> None:
    write_comparison(hostile_run, rival, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "B is worse." in page and "B: iteration 1" in page
    assert page.count("<script") == 2 and "<img" not in page and "&lt;img src=x" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_the_command_says_where_the_page_is(
    finished: Path, rival: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    make_comparison(finished, rival, None, say=told.append)
    assert told == ["compare-tiny-rival.html"] and (tmp_path / told[0]).is_file()
    out = capsys.readouterr().out
    assert out.startswith("On first, B's delivered model is worse") and "seed" in out
    assert default_page(Path("a b<c>"), Path("..x")).name == "compare-a-b-c-x.html"
    with pytest.raises(RunError, match="there is no folder"):
        make_comparison(finished, rival, tmp_path / "none" / "page.html", say=told.append)
