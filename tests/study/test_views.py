"""What a study shows beside its table: iterations, compute, DPO steps, wrong steps, speed; and views of other runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.progress import Silent
from selftrain.records import Completion, Verdict
from selftrain.study.collect import study_results
from selftrain.study.command import study_command
from selftrain.study.lines import model_keys
from selftrain.study.parts import Part, parts_of
from selftrain.study.spec import Study, StudyArm, StudyRun, load_study, runs_of
from selftrain.study.steps import StepCount, wrong_steps
from selftrain.study.text import study_markdown, study_text


def showing(study: Study, *shown: str, **different: Any) -> Study:
    """The study with other tables, and whatever else is to differ."""
    return study.model_copy(update={"show": list(shown), **different})


def part(results: dict[str, Any], start: str) -> Part:
    return next(one for one in parts_of(results) if one.title.startswith(start))


def line(results: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    lines = {one["arm"]: one["points"] for one in results["sets"][0]["lines"]}
    found: list[dict[str, Any]] = lines[arm]
    return found


def test_lines_begin_with_the_warm_up_and_add_up_flops(tiny: Study, made: list[StudyRun]) -> None:
    results = study_results(showing(tiny, "iterations", "compute"), made)
    for arm, last in (("main", 0.4), ("st-matched", 0.45), ("k9", 0.7)):
        points = line(results, arm)
        assert [point["iteration"] for point in points] == [0, 1]
        assert points[1]["mean"]["value"] == pytest.approx(last)
        # 6 N a trained token, two trainings of 100; 2 N a sampled one, 40 in all
        assert [point["flops"] for point in points] == [6_000, 2 * 6_000 + 2 * 10 * 40]
    assert line(results, "main")[0]["mean"]["value"] == pytest.approx(0.2)
    assert [(point["iteration"], point["flops"]) for point in line(results, "sft")] == [(None, 6_000)]
    assert line(results, "main")[1]["runs"] == [
        {"run": f"main/seed-{seed}", "stage": "1-iteration/evaluate/first"} for seed in (1, 2)
    ]


def test_iterations_stand_beside_the_papers(tiny: Study, made: list[StudyRun]) -> None:
    paper = {"random-llama": {"main": {"first": [18.1, 27.2]}, "k9": {"first": 50.0}}}
    results = study_results(showing(tiny, "table", "iterations", paper=paper), made)
    rows = {row.cells[0]: row for row in part(results, "first: accuracy by iteration").rows}
    assert list(rows["main, the paper"].cells[1:]) == ["18.1", "27.2"] and "k9, the paper" not in rows
    assert rows["main"].cells[1].startswith("20.0 (") and "sft" not in rows
    assert rows["main"].runs == ["main/seed-1", "main/seed-2"]
    arms = {row["arm"]: row["paper"] for row in results["sets"][0]["arms"]}
    assert (arms["main"], arms["k9"]) == (27.2, 50.0), "the last iteration is the arm's own figure"
    assert "main, the paper" in study_text(results) and "main, the paper" in study_markdown(results)


def test_only_what_is_shown_is_counted_and_told(tiny: Study, made: list[StudyRun]) -> None:
    results = study_results(showing(tiny, "table"), made)
    assert parts_of(results) == [] and results["sets"][0]["lines"] == [] and results["dpo_steps"] == []
    compute = study_text(study_results(showing(tiny, "compute"), made))
    assert "accuracy against FLOPs" in compute and "verdict" not in compute


def test_models_of_an_arm_by_iteration() -> None:
    main = load_study("main")
    config = runs_of(main, Path("s"), overrides=["schedule.iterations=2"])[0].config
    keys = {name: model_keys(arm, config) for name, arm in main.arms.items()}
    assert keys["dpo-st"] == [(0, "warm-up"), (1, "iteration-1"), (2, "iteration-2")]
    assert keys["st"] == [(0, "warm-up"), (1, "st-1"), (2, "st")]
    assert keys["st-matched"] == [(0, "warm-up"), (1, "st-matched-1"), (2, "st-matched")]
    assert (keys["sft"], keys["sft-matched"]) == ([(None, "warm-up")], [(None, "sft-matched")])


def test_the_paper_in_words_is_of_its_own_base(tiny: Study, made: list[StudyRun]) -> None:
    said = {"random-llama": "The paper: 36.1 <-> 36.5 %."}
    results = study_results(showing(tiny, "table", paper={}, paper_says=said), made)
    assert "The paper: 36.1" in study_text(results, expect=True) and "The paper: 36.1" not in study_text(results)
    assert "36.1 &lt;-&gt; 36.5" in study_markdown(results, expect=True)
    elsewhere = study_results(showing(tiny, "table", paper={}, paper_says={"another": "no"}), made)
    assert "no figure for this base model" in study_text(elsewhere, expect=True)


def test_answers_without_the_calculator_are_an_arm(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    for run in runs:
        make(run, **({"without": 3} if run.arm == "main" else {}))
    others = {name: StudyArm(of="main", model=name) for name in ("without-calculator", "sampler-1")}
    results = study_results(showing(tiny, "table", arms={**tiny.arms, **others}), runs)
    first, second = ({row["arm"]: row for row in one["arms"]} for one in results["sets"])
    assert first["without-calculator"]["mean"]["value"] == pytest.approx(0.15)
    assert first["without-calculator"]["runs"][0]["stage"] == "final/evaluate-without-calculator/first"
    assert first["without-calculator"]["comparison"]["value"] == pytest.approx(-0.25)
    row = second["without-calculator"]
    assert (row["empty"], row["not_compared"]) == ("not evaluated", "not evaluated")


RIGHT, WRONG = Verdict("right", "42"), Verdict("wrong", "41")


def completion(text: str, verdict: Verdict) -> Completion:
    return Completion("p", 0, (1,), text, "eos", strict=verdict)


def test_right_answers_with_a_wrong_step_are_counted() -> None:
    texts = [
        ("6*7=<<6*7=42>>42", RIGHT), ("6*7=<<6*7=41>>41 or <<1+1=2>>2", RIGHT), ("<<6*7=40>>", WRONG),
        ("10/3=<<10/3=3.33>>3.33", RIGHT), ("<<10/3=3>>3", RIGHT), ("<<x=4>> <<2+=2>> no step", RIGHT),
    ]  # fmt: skip
    assert wrong_steps([completion(*one) for one in texts]) == StepCount(right=5, wrong_step=2)
    assert wrong_steps([]) == StepCount(0, 0)


def test_a_study_of_another_shows_the_same_runs(tmp_path: Path) -> None:
    for name in ("iterations", "dpo-step", "compute"):
        view, main = load_study(name), load_study("main")
        assert (view.name, view.home, view.of) == (name, "main", "main") and view.show == [name]
        assert runs_of(view, tmp_path) == runs_of(main, tmp_path)
    assert load_study("iterations").paper == load_study("main").paper


def test_a_view_writes_files_of_its_own_into_the_folder_of_the_runs(
    tiny: Study, tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = {
        "name": "tiny", "recipe": "smoke", "overrides": tiny.overrides, "seeds": [1], "reference": "main",
        "arms": {"main": {"baselines": ["st-matched"]}},
    }  # fmt: skip
    Path("tiny.yaml").write_text(yaml.safe_dump(whole))
    Path("view.yaml").write_text(yaml.safe_dump({"name": "view", "of": "tiny.yaml", "show": ["compute"]}))
    for run in runs_of(load_study("tiny.yaml"), Path("runs/study-tiny")):
        make(run)
    told = study_command("view.yaml", progress=Silent(), report_only=True)
    study_command("tiny.yaml", progress=Silent(), report_only=True)
    there = {path.name for path in Path("runs/study-tiny").iterdir() if path.is_file()}
    assert there == {
        "view.json", "view.md", "view.csv", "view.html", "study.json", "study.md", "study.csv", "report.html"
    }  # fmt: skip
    assert "report: runs/study-tiny/view.html" in told and "accuracy against FLOPs" in told
