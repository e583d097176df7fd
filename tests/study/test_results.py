"""What a study's report says of folders made by hand: figures, what is not compared and why, what is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.metrics import wilson
from selftrain.recipe import short_name
from selftrain.report.csvfiles import csv_text
from selftrain.study.collect import study_results
from selftrain.study.spec import Study, StudyRun, runs_of
from selftrain.study.tables import study_table
from selftrain.study.text import head, study_markdown, study_text


def row(results: dict[str, Any], arm: str, test_set: str = "first") -> dict[str, Any]:
    rows = next(one["arms"] for one in results["sets"] if one["name"] == test_set)
    found: dict[str, Any] = next(one for one in rows if one["arm"] == arm)
    return found


def why(results: dict[str, Any], arm: str, test_set: str = "first") -> str:
    found = row(results, arm, test_set)
    assert found["comparison"] is None
    return str(found["not_compared"])


def other(runs: list[StudyRun], arm: str, position: int) -> StudyRun:
    return next(run for run in runs if run.arm == arm and run.position == position)


def test_means_and_differences_by_hand(tiny: Study, made: list[StudyRun]) -> None:
    results = study_results(tiny, made)
    assert results["finished"] and [one["name"] for one in results["sets"]] == ["first", "second"]
    assert {arm: row(results, arm)["mean"]["value"] for arm in tiny.arms} == {
        "sft": 0.2, "st-matched": 0.45, "main": 0.4, "k9": 0.7, "again": 0.4,
    }  # fmt: skip
    k9 = row(results, "k9")["comparison"]
    assert k9["by_seed"] == pytest.approx([0.3, 0.3]) and k9["value"] == pytest.approx(0.3)
    assert (k9["verdict"], row(results, "sft")["comparison"]["value"] < 0) == ("better", True)
    assert k9["sentence"].startswith("On first, k9 is better than main: +30.0 points (95 % interval +")
    assert row(results, "main")["comparison"] is None and why(results, "main") == ""
    assert row(results, "again")["comparison"]["verdict"] == "not shown"
    assert next(one for one in results["sets"] if one["name"] == "second")["groups"] == 4


def test_every_number_names_its_runs(tiny: Study, made: list[StudyRun]) -> None:
    results = study_results(tiny, made)
    assert row(results, "st-matched")["runs"] == [
        {
            "seed": seed, "run": f"main/seed-{seed}", "stage": "baseline-st-matched/1-iteration/evaluate/first",
            "right": 9, "rows": 20, "samples": 40, "steps": 6,
        }
        for seed in (1, 2)
    ]  # fmt: skip
    pairs = row(results, "again")["comparison"]["runs"]
    assert pairs == [["again/seed-3", "main/seed-1"], ["again/seed-4", "main/seed-2"]]
    for arm in tiny.arms:
        for run in row(results, arm)["runs"]:
            assert (made[0].folder.parents[1] / run["run"] / run["stage"] / "completions.jsonl").is_file()
    assert "first, sft: main/seed-1, main/seed-2 (0-warmup/evaluate/first)" in study_text(results)


def test_the_order_of_a_file_says_nothing(tiny: Study, made: list[StudyRun]) -> None:
    before = study_results(tiny, made)
    for path in made[0].folder.rglob("completions.jsonl"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    problems = made[0].folder / "data/test-first.jsonl"
    problems.write_text("".join(reversed(problems.read_text().splitlines(keepends=True))))
    assert study_results(tiny, made) == before


def test_an_unfinished_study_shows_what_is_there(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    for run in runs[:2]:
        make(run)
    make(other(runs, "main", 1), whole=False)
    results = study_results(tiny, runs)
    states = {run["run"]: run["state"] for run in results["runs"]}
    assert states["main/seed-1"] == "finished" and states["main/seed-2"] == "not finished"
    assert states["k9/seed-2"] == states["again/seed-3"] == "not begun" and not results["finished"]
    assert len(row(results, "sft")["runs"]) == 2, "the warm-up of the run under way is there"
    assert row(results, "main")["pending"] == ["main/seed-2"]
    assert row(results, "k9")["comparison"]["p_value"] is not None, "one seed: McNemar"
    assert why(results, "again") == "not there yet"
    text = study_text(results)
    assert "2 of 6 runs are finished" in text and "k9/seed-2: not begun" in text and "not there yet" in text
    assert "main/seed-2: not finished, next 0-base/evaluate/first" in text
    assert "not there yet" in study_markdown(results) and list(study_table(results).rows)


def test_nothing_begun_is_a_table_of_nothing(tiny: Study, runs: list[StudyRun]) -> None:
    results = study_results(tiny, runs)
    assert not any(row(results, arm)["runs"] for arm in tiny.arms)
    text = study_text(results, expect=True)
    assert "0 of 6 runs are finished" in text and text.startswith(f"{tiny.name} over {short_name(tiny.recipe)}: ")
    results["study"]["bases"] = {results["model"]: "of/its-own.yaml"}
    assert " over its-own: " in head(results), "a base model's own recipe stands for the study's"


@pytest.mark.parametrize(
    ("different", "reason"),
    [
        ({"rows": 18}, "other test rows (18 against 20)"),
        ({"question": "How few?"}, "other test rows (20 against 20)"),
        ({"trained_on": "u" * 64}, "other training data"),
    ],
)
def test_arms_on_other_data_are_not_compared(
    different: dict[str, Any], reason: str, tiny: Study, runs: list[StudyRun], make: Any
) -> None:
    for run in runs:
        make(run, **(different if run.arm == "k9" and run.position == 1 else {}))
    results = study_results(tiny, runs)
    assert why(results, "k9") == reason
    assert row(results, "k9")["mean"] is not None and row(results, "again")["comparison"] is not None
    assert f"not compared: {reason}" in study_text(results) and f"not compared: {reason}" in study_markdown(results)
    lines = list(csv.DictReader(csv_text(study_table(results)).splitlines()))
    told = next(line for line in lines if (line["arm"], line["test_set"]) == ("k9", "first"))
    assert (told["not_compared"], told["verdict"], told["difference"]) == (reason, "", "")


def test_another_base_model_is_not_compared(tmp_path: Path, tiny: Study, make: Any) -> None:
    arms = {**{name: arm.model_dump() for name, arm in tiny.arms.items()}}
    arms["k9"]["overrides"] = {"model": "random-t5"}
    study = Study.model_validate({**tiny.model_dump(), "arms": {name: as_written(arm) for name, arm in arms.items()}})
    runs = runs_of(study, tmp_path / "bases")
    for run in runs:
        make(run)
    assert why(study_results(study, runs), "k9") == "another base model (random-t5 against random-llama)"


def as_written(arm: dict[str, Any]) -> Any:
    """An arm as a YAML file has it."""
    own = {"seeds": arm["seeds"]} if arm["seeds"] else {}
    return f"{arm['of']}:{arm['model']}" if arm["of"] else {**arm["overrides"], **own}


def test_a_claim_of_equal_budget_is_looked_at(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    for run in runs:
        make(run, matched_samples=39)
    results = study_results(tiny, runs)
    assert why(results, "st-matched") == "other budget (39 samples against 40)"
    assert row(results, "sft")["comparison"] is not None, "plain arms claim nothing"


def test_a_missing_test_set_is_named_and_the_rest_goes_on(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    for run in runs:
        data = run.config.data.model_copy(update={"test": run.config.data.test[:1]})
        lacking = run.config.model_copy(update={"data": data})
        make(StudyRun(run.arm, run.position, run.folder, lacking if run.arm == "k9" else run.config))
    results = study_results(tiny, runs)
    assert results["sets"][1]["missing_in"] == ["k9/seed-1", "k9/seed-2"]
    assert row(results, "k9")["comparison"] and why(results, "k9", "second") == "test set is missing"
    assert row(results, "again", "second")["comparison"]
    assert "test set second is missing in k9/seed-1, k9/seed-2" in study_text(results)


def test_a_folder_of_other_settings_does_not_count(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    for run in runs:
        sampling = run.config.sampling.model_copy(update={"samples_for_labels": 5})
        other_run = StudyRun(run.arm, run.position, run.folder, run.config.model_copy(update={"sampling": sampling}))
        make(other_run if run.arm == "k9" else run)
    results = study_results(tiny, runs)
    assert "k9/seed-1: made with other settings (sampling.samples_for_labels)" in study_text(results)
    assert row(results, "k9")["runs"] == []


def test_the_papers_figure_stands_beside_with_its_band(tiny: Study, made: list[StudyRun]) -> None:
    results = study_results(tiny, made)
    band = [100 * bound for bound in wilson(10, 20)]
    assert (row(results, "k9")["paper"], row(results, "k9")["paper_band"]) == (50.0, band)
    text = study_text(results, expect=True)
    assert f"{band[0]:.1f} to {band[1]:.1f}" in text and text.count("ours is outside") == 1, "main: 40 and not 90"
    assert "band" not in study_text(results) and "paper %" in study_markdown(results, expect=True)
    elsewhere = study_results(tiny.model_copy(update={"paper": {"another": tiny.paper["random-llama"]}}), made)
    assert row(elsewhere, "k9")["paper"] is None, "the paper's figure is of its own base model"
    assert "no figure for this base model" in study_text(elsewhere, expect=True)


def test_tables_are_whole_and_escaped(tiny: Study, made: list[StudyRun]) -> None:
    results = study_results(tiny, made)
    page = study_markdown(results)
    assert "made by &lt;hand&gt;." in page and "<" not in page
    table = [line for line in page.splitlines() if line.startswith("|")][: 2 + len(tiny.arms)]
    assert table[-1].startswith(f"| {list(tiny.arms)[-1]} |") and len({line.count("|") for line in table}) == 1
    assert len(study_table(results).rows) == len(tiny.arms) * 2
    assert json.loads(json.dumps(results)) == results
