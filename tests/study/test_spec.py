"""What a study's YAML may say, and the runs that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.recipe import load_config, recipe_text, renamed
from selftrain.report.expected import expected_stages
from selftrain.study.carry import finished_config, keeping_weights, with_sets_that_are_there
from selftrain.study.command import default_folder
from selftrain.study.shared import shared_stages
from selftrain.study.spec import Study, StudyRun, load_study, runs_of, study_names

PLAIN: dict[str, Any] = {"name": "mine", "recipe": "smoke", "arms": {"a": {}}, "reference": "a"}


def written(tmp_path: Path, **different: Any) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **different}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_comes_with_the_package_can_be_carried_out(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    assert study.name == name and study.description
    for base in (None, *study.bases):
        runs = runs_of(study, tmp_path, base)
        assert len({run.folder for run in runs}) == len(runs) >= len(study.seeds)
        assert base is None or {run.config.model for run in runs} == {base}
        known = {spec.label for run in runs for spec in run.config.data.test}
        told = [figures.keys() for figures in study.paper.get(base or "", {}).values()]
        assert all(figures <= known for figures in told), "the paper's test sets are the recipe's"


def test_a_study_over_another_recipe_keeps_its_arms_and_has_a_folder_of_its_own(tmp_path: Path) -> None:
    main = load_study("main")
    mine = tmp_path / "mine.yaml"
    mine.write_text(renamed(recipe_text("smoke"), "mine"), encoding="utf-8")
    for recipe in ("smoke-t5", str(mine)):
        runs = runs_of(main.with_recipe(recipe), tmp_path)
        assert [run.title for run in runs] == [run.title for run in runs_of(main, tmp_path)]
        assert {run.config.model for run in runs} == {load_config(recipe).model}
    assert default_folder(main) == Path("runs/study-main")
    assert default_folder(main, str(mine)) == Path("runs/study-main-mine")
    assert default_folder(main, "gsm8k-qwen3-0.6b") == Path("runs/study-main-gsm8k-qwen3-0.6b")
    assert default_folder(load_study("iterations"), str(mine)) == Path("runs/study-main-mine")


def test_every_study_of_the_paper_is_shipped() -> None:
    paper = ["calculator", "compute", "dpo-step", "iterations", "llama", "main", "samples", "speed"]
    assert [name for name in study_names() if name not in ("smoke", "rules")] == paper
    main = load_study("main")
    assert main.paper["google/flan-t5-large"]["dpo-st"]["multiarith"] == 89.0
    assert set(main.paper) == set(main.bases)


def test_arms_of_rules_share_what_they_do_not_differ_in(tmp_path: Path) -> None:
    runs = {run.arm: run.config for run in runs_of(load_study("rules").first_seeds(1), tmp_path)}
    reuse, own, both = (shared_stages(runs["paper-rules"], runs[arm]) for arm in ("reuse", "no-gold-winners", "both"))
    assert "1-iteration/dpo" in reuse and "1-iteration/sample-for-labels" not in reuse
    for shared in (own, both):
        assert "1-iteration/sample-for-pairs" in shared and "1-iteration/pair" not in shared
    assert "1-iteration/dpo" in shared_stages(runs["no-gold-winners"], runs["both"])


def test_runs_are_arms_times_seeds_seed_by_seed(tiny: Study, tmp_path: Path) -> None:
    runs = runs_of(tiny, tmp_path / "s")
    assert [run.title for run in runs] == [
        "main/seed-1", "k9/seed-1", "again/seed-3", "main/seed-2", "k9/seed-2", "again/seed-4",
    ]  # fmt: skip
    assert [run.position for run in runs] == [0, 0, 0, 1, 1, 1]
    assert runs[1].folder == tmp_path / "s/k9/seed-1" and runs[1].config.name == "tiny-k9"
    assert (runs[1].config.sampling.samples_for_labels, runs[0].config.sampling.samples_for_labels) == (9, 4)
    assert runs[0].config.baselines == ["st-matched"] and runs[2].seed == 3
    assert [run.title for run in runs_of(tiny.first_seeds(1), tmp_path)] == ["main/seed-1", "k9/seed-1", "again/seed-3"]


def test_an_arms_own_settings_go_before_those_of_the_command_line(tiny: Study, tmp_path: Path) -> None:
    runs = runs_of(tiny, tmp_path, "random-t5", ["sampling.samples_for_labels=2", "training.dpo.beta=0.7"])
    by_arm = {run.arm: run.config for run in runs}
    assert by_arm["main"].sampling.samples_for_labels == 2 and by_arm["k9"].sampling.samples_for_labels == 9
    assert {config.training.dpo.beta for config in by_arm.values()} == {0.7}
    assert {config.model for config in by_arm.values()} == {"random-t5"}


@pytest.mark.parametrize(
    ("different", "message"),
    [
        ({"reference": "c"}, "reference: expected one of a, got 'c'"),
        ({"refrence": "a"}, "Unknown field 'refrence'"),
        ({"seeds": [1, 1]}, "expected different ones"),
        ({"seeds": []}, "seeds: .* at least 1 item"),
        ({"arms": {"a": {}, "b": "c:st"}}, "arm b: expected ARM:MODEL"),
        ({"arms": {"a": {}, "b": "a:st", "c": "b:st"}}, "arm c: expected ARM:MODEL"),
        ({"arms": {"a": {}, "b": {"seeds": [7]}}}, "arm b: expected 3 different seeds"),
        ({"arms": {"a": {"seed": 4}}}, "arm a: expected `seeds`"),
        ({"arms": {"a": {}, "../b": {}}}, "arm '../b': expected letters"),
        ({"paper": {"m": {"z": {"svamp": 1.0}}}}, "no arm is called 'z'"),
        ({"name": "a/b"}, "name: String should match"),
    ],
)
def test_arms_that_do_not_go_together_are_refused(different: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(written(tmp_path, **different))


@pytest.mark.parametrize(
    ("different", "message"),
    [
        ({"arms": {"a": {}, "b": "a:st"}}, "the runs of a have no model 'st'; they have: base, warm-up, sampler-1"),
        ({"arms": {"a": {"training.dpo.betta": 1}}}, "Unknown field 'training.dpo.betta'"),
        ({"recipe": "smok"}, "No recipe or YAML file is called 'smok'"),
    ],
)
def test_runs_that_cannot_be_made_are_refused(different: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        runs_of(load_study(written(tmp_path, **different)), tmp_path)


def test_an_unknown_study_names_the_nearest() -> None:
    message = "No study or YAML file is called 'mian'; studies: .*, main, rules, samples, smoke, speed"
    with pytest.raises(ConfigError, match=message) as told:
        load_study("mian")
    assert told.value.hint == "Did you mean 'main'?"


def smoke_with(*tests: str) -> RunConfig:
    return load_config("smoke", [f"data.test=[{', '.join(tests)}]"])


HERE, GONE = "{source: arithmetic, name: here}", "{source: file, name: gone, path: gone.jsonl}"


def test_a_test_set_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    missing: dict[str, str] = {}
    run = with_sets_that_are_there(StudyRun("a", 0, tmp_path / "r", smoke_with(HERE, GONE)), missing)
    assert [spec.label for spec in run.config.data.test] == ["here"]
    assert list(missing) == ["gone"] and "gone.jsonl" in missing["gone"]


def test_where_nothing_can_be_read_the_run_says_so_itself(tmp_path: Path) -> None:
    missing: dict[str, str] = {}
    run = StudyRun("a", 0, tmp_path / "r", smoke_with(GONE))
    assert with_sets_that_are_there(run, missing) == run and not missing


def test_a_run_that_was_begun_keeps_its_sets(tiny: Study, runs: list[StudyRun], make: Any) -> None:
    data = runs[1].config.data
    begun = runs[1].config.model_copy(update={"data": data.model_copy(update={"test": data.test[:1]})})
    make(StudyRun("k9", 0, runs[1].folder, begun))
    missing: dict[str, str] = {}
    found = with_sets_that_are_there(runs[1], missing)
    assert found.config.data.test == data.test[:1] and missing == {"second": "k9/seed-1 was begun without it"}
    assert finished_config(found) is not None and finished_config(runs[1]) is None


def test_weights_are_run_control(runs: list[StudyRun], make: Any) -> None:
    kept = StudyRun(runs[0].arm, 0, runs[0].folder, keeping_weights(runs[0].config))
    make(kept)
    done = finished_config(runs[0])
    assert done is not None and (done.checkpoints.keep, runs[0].config.checkpoints.keep) == ("all", "final")


def test_what_will_be_shared_follows_from_what_differs(tmp_path: Path) -> None:
    base = load_config("smoke", ["baselines=[st-matched]", "schedule.iterations=2"])
    stages = set(expected_stages(base))

    def not_shared(*overrides: str) -> set[str]:
        other = load_config("smoke", ["baselines=[st-matched]", "schedule.iterations=2", *overrides])
        return stages - shared_stages(base, other)

    assert not_shared() == not_shared("name=other", "compute.threads=1") == set()
    assert not_shared("seed=5") == not_shared("model=random-t5") == stages
    warm_up = {stage for stage in stages if stage.startswith(("data", "0-"))}
    assert stages - not_shared("training.sft.epochs=3") == {
        stage for stage in warm_up if stage.startswith(("data", "0-base")) or stage == "0-warmup/select"
    }
    dpo = not_shared("training.dpo.beta=0.9")
    assert {"1-iteration/dpo", "1-iteration/sampler/validate", "1-iteration/sft", "2-iteration/pair"} <= dpo
    assert not dpo & {"1-iteration/pair", "1-iteration/sample-for-pairs"} | dpo & warm_up
    assert not any(stage.startswith("baseline-") for stage in dpo)
    labels = not_shared("sampling.samples_for_labels=9")
    assert "1-iteration/sampler/evaluate/made-up" not in labels and "baseline-st-matched/1-iteration/select" in labels
    pairs = not_shared("sampling.samples_for_pairs=9")
    assert "baseline-st-matched/1-iteration/sample-for-labels" in pairs and "0-warmup/sft" not in pairs
    answers = not_shared("evaluation.max_new_tokens=9")
    assert answers and all("evaluate" in stage or stage.endswith("validate") for stage in answers)
    longer = not_shared("schedule.iterations=3")
    assert longer == {stage for stage in stages if stage.startswith("final/")}
