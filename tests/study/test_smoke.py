"""`selftrain study smoke`: whole, killed between runs and gone on with, reported when it is not finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain import api
from selftrain.errors import RunError
from selftrain.progress import Silent
from selftrain.report.files import RunFiles
from selftrain.report.learning import learning_results
from selftrain.study.collect import study_results
from selftrain.study.command import study_command
from selftrain.study.parts import parts_of
from selftrain.study.plan import plan_runs, study_plan
from selftrain.study.shared import shared_stages
from selftrain.study.spec import load_study, runs_of

ONE_THREAD = ["compute.threads=1"]  # bitwise the same in this process and in another


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """No measuring of the machine's speed, which would take most of the time; threads as they were afterwards."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selftrain.bench.matrix_flops", lambda *_: 1e11)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an unbroken study."""
    folder = tmp_path_factory.mktemp("study") / "whole"
    study_command("smoke", ONE_THREAD, out=folder, progress=Silent())
    return folder


def manifests(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.parent.relative_to(folder).as_posix(): json.loads(path.read_text())
        for path in sorted(folder.rglob("manifest.json"))
    }


def digests(folder: Path) -> dict[str, str]:
    """What every stage made: its weights, else all its files (a training's log has seconds in it)."""
    return {name: found["figures"].get("weights", found["digest"]) for name, found in manifests(folder).items()}


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_the_whole_study_is_there(whole: Path) -> None:
    results = json.loads((whole / "study.json").read_text())
    assert results["finished"] and len(results["runs"]) == 6
    arms = {row["arm"]: row for row in results["sets"][0]["arms"]}
    assert all(len(row["runs"]) == 2 and row["mean"] for row in arms.values())
    assert all(row["comparison"] for name, row in arms.items() if name != "dpo-st")
    assert (whole / "study.md").is_file() and (whole / "study.csv").is_file() and (whole / "report.html").is_file()
    assert arms["again"]["comparison"]["verdict"] == "not shown", "equal arms at other seeds"


def test_each_run_is_a_plain_run(whole: Path) -> None:
    for run in sorted(path.parent for path in whole.glob("*/*/run.json")):
        assert {"model", "results.json", "report.html", "config.yaml"} <= {entry.name for entry in run.iterdir()}
        kept = sorted(path.parent.name for path in run.rglob("model/model.safetensors"))
        assert len(kept) == 2, "the delivered weights alone, in their stage and in model/"


def test_equal_stages_were_computed_once(whole: Path) -> None:
    taken = {name: found["taken_from"] for name, found in manifests(whole).items() if "taken_from" in found}
    at = "k4/seed-1"
    shared = ("data", "0-warmup/sft", "1-iteration/sample-for-pairs", "1-iteration/pair", "1-iteration/dpo")
    assert {f"{at}/{stage}" for stage in shared} <= taken.keys()
    assert set(taken.values()) == {"../../dpo-st/seed-1", "../../dpo-st/seed-2"}
    assert not [name for name in taken if not name.startswith("k4/")], "other seeds share nothing"
    own = {event["stage"] for event in events(whole / at, "stage-start")}
    assert own == {f"1-iteration/{stage}" for stage in ("sample-for-labels", "select", "sft", "evaluate/made-up")}


def test_which_stages_will_be_shared_is_known_before(whole: Path) -> None:
    runs = {run.title: run for run in runs_of(load_study("smoke"), whole, overrides=ONE_THREAD)}
    taken = {name for name, found in manifests(whole).items() if "taken_from" in found}
    for seed in (1, 2):
        shared = shared_stages(runs[f"dpo-st/seed-{seed}"].config, runs[f"k4/seed-{seed}"].config)
        told = {f"k4/seed-{seed}/{stage}" for stage in shared}
        found = {name for name in taken if f"/seed-{seed}/" in name}
        assert told <= found, "more is shared where two settings happen to select the same rows"
        assert found - told <= {f"k4/seed-{seed}/1-iteration/{stage}" for stage in ("sft", "evaluate/made-up")}
    assert not shared_stages(runs["dpo-st/seed-1"].config, runs["again/seed-3"].config)
    assert not shared_stages(runs["dpo-st/seed-1"].config, runs["dpo-st/seed-2"].config)


def test_a_plan_counts_shared_stages_once(whole: Path, tmp_path: Path) -> None:
    study = load_study("smoke").first_seeds(1)
    runs = runs_of(study, tmp_path / "none", overrides=ONE_THREAD)
    plans = {one.run.title: one for one in plan_runs(runs, {}, measure=False)}
    own = {event["stage"] for event in events(whole / "k4/seed-1", "stage-start")}
    assert {stage.name for stage in plans["k4/seed-1"].left} == own
    assert not plans["dpo-st/seed-1"].shared and not plans["again/seed-3"].shared
    k4 = plans["k4/seed-1"]
    left, full = k4.flops, k4.plan.flops()
    assert left is not None and full is not None and 0 < left.likely < full.likely
    text = study_plan(runs, tmp_path / "none", measure=False)
    assert "3 runs; finished and shared stages are not in" in text and " at its peak, " in text
    assert not (tmp_path / "none").exists()


def test_a_plan_of_what_is_done_has_nothing_left(whole: Path) -> None:
    text = study_command("smoke", ONE_THREAD, out=whole, plan=True, progress=Silent())
    last = next(line for line in text.splitlines() if line.startswith("in all"))
    assert last.split() == ["in", "all", "0", "0.0", "s"]


def test_what_the_dpo_step_did_is_as_the_runs_say(whole: Path) -> None:
    study = load_study("smoke").model_copy(update={"show": ["dpo-step", "speed", "compute"]})
    results = study_results(study, runs_of(study, whole, overrides=ONE_THREAD))
    steps = {step["arm"]: step for step in results["dpo_steps"]}
    assert set(steps) <= {"dpo-st", "k4", "again"} and steps
    for arm, step in steps.items():
        told = [learning_results(RunFiles(whole / run))["dpo"][0] for run in step["runs"]]
        assert step["k"] == min(one["common_k"] for one in told) and step["passes"][0]["k"] == 1, arm
        before, after = (
            sum(one[side]["pass_at"][0]["value"] for one in told) / len(told) for side in ("before", "after")
        )
        first = step["passes"][0]
        assert (first["before"], first["after"]) == (pytest.approx(before), pytest.approx(after))
        assert first["change"]["value"] == pytest.approx(after - before)
        assert step["distinct"] == [
            pytest.approx(sum(one[side]["distinct_right"] for one in told) / len(told)) for side in ("before", "after")
        ]
    titles = [part.title for part in parts_of(results)]
    assert titles == ["what the DPO step does", "made-up: speed", "made-up: accuracy against FLOPs"]


def test_speed_is_tokens_over_seconds_of_the_stage(whole: Path) -> None:
    study = load_study("smoke").first_seeds(1).model_copy(update={"show": ["speed"]})
    results = study_results(study, runs_of(study, whole, overrides=ONE_THREAD))
    speeds = {row["arm"]: row["speed"] for row in results["sets"][0]["arms"]}
    manifest = manifests(whole)["dpo-st/seed-1/1-iteration/evaluate/made-up"]
    tokens = manifest["figures"]["generated_tokens"]
    assert speeds["dpo-st"]["tokens"] * manifest["seconds"] == pytest.approx(tokens)
    assert speeds["dpo-st"]["answers"] * manifest["seconds"] == pytest.approx(manifest["figures"]["completions"])


def test_a_run_that_took_stages_is_the_run_that_computed_them(whole: Path, tmp_path: Path) -> None:
    run = next(run for run in runs_of(load_study("smoke"), whole, overrides=ONE_THREAD) if run.title == "k4/seed-1")
    api.run(run.config, out=tmp_path / "alone")
    assert digests(tmp_path / "alone") == digests(run.folder)


def test_the_same_command_again_does_nothing(whole: Path) -> None:
    before = {path: path.read_text() for path in whole.rglob("journal.jsonl")}
    study_command("smoke", ONE_THREAD, out=whole, progress=Silent())
    assert {path: path.read_text() for path in whole.rglob("journal.jsonl")} == before


def test_killed_between_runs_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    source = Path(__file__).resolve().parents[2] / "src"
    command = [sys.executable, "-m", "selftrain", "study", "smoke", *ONE_THREAD, "--out", str(folder)]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(source)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (folder / "k4/seed-1/run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    text = study_command("smoke", ONE_THREAD, out=folder, progress=Silent(), report_only=True)
    assert "1 of 6 runs are finished" in text and "again/seed-4: not begun" in text
    study_command("smoke", ONE_THREAD, out=folder, progress=Silent())
    assert digests(folder) == digests(whole)
    assert len(events(folder / "dpo-st/seed-1", "stage-start")) == len(events(whole / "dpo-st/seed-1", "stage-start"))
    shutil.rmtree(folder)


def test_the_report_of_an_archive_is_the_study_s(whole: Path, tmp_path: Path) -> None:
    """All of it but the links to the pages of its runs, which an archive does not have."""
    archive, again = tmp_path / "kept.tar.gz", tmp_path / "whole"
    first = study_command("smoke", ONE_THREAD, out=whole, progress=Silent(), report_only=True, archive=archive)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    second = study_command("smoke", ONE_THREAD, out=again, progress=Silent(), report_only=True)
    assert second.replace(str(again), str(whole)) == first
    found = [json.loads((folder / "study.json").read_text()) for folder in (whole, again)]
    assert [{run.pop("page") for run in results["runs"]} for results in found] == [{True}, {False}]
    assert found[0] == found[1]
    assert not list(again.rglob("*.safetensors"))


def test_a_report_of_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no study"):
        study_command("smoke", out=tmp_path / "none", progress=Silent(), report_only=True)
    assert not (tmp_path / "none").exists()
