"""Cost, lineage, data and what is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.errors import ConfigError, DataError, RunError
from selftrain.recipe import load_config
from selftrain.report.account import cpu_name, environment, has_chat_template, lineage, recipe_of
from selftrain.report.collect import collect
from selftrain.report.expected import expected_stages, stages_beyond
from selftrain.report.files import RunFiles


def test_flops_and_tokens_of_the_run(finished: Path) -> None:
    cost = collect(RunFiles(finished))["cost"]
    rows = {row["stage"]: row for row in cost["stages"]}
    assert rows["1-iteration/dpo"]["flops"] == 10 * (6 * 1000 + 2 * 60)
    assert rows["1-iteration/sample-for-labels"]["flops"] == 10 * 2 * (40 + 32)
    assert rows["0-warmup/evaluate/first"]["flops"] == 10 * 2 * (100 + 80)
    assert cost["parameters"] == 10
    assert cost["total"]["flops"] == sum(row["flops"] for row in cost["stages"])
    assert cost["total"]["trained_tokens"] == 3000
    assert sum(part["stages"] for part in cost["parts"].values()) == len(rows) == 17


def test_base_row_and_further_sets_are_timed_apart(finished: Path) -> None:
    parts = collect(RunFiles(finished))["cost"]["parts"]
    assert {name: part["stages"] for name, part in parts.items()} == {
        "training and sampling": 9,
        "headline evaluation": 3,
        "base model's row": 2,
        "further evaluations": 3,
    }


def test_stages_stand_in_the_order_of_their_ends(finished: Path) -> None:
    stages = [row["stage"] for row in collect(RunFiles(finished))["cost"]["stages"]]
    assert stages[0] == "data" and stages.index("1-iteration/dpo") < stages.index("1-iteration/sampler/evaluate/first")


def test_lineage_names_who_wrote_the_labels_and_where_training_started(finished: Path) -> None:
    found = lineage(RunFiles(finished))
    assert [(row["stage"], row["from"]) for row in found["models"]] == [
        ("base", None),
        ("0-warmup/sft", "base"),
        ("1-iteration/dpo", "0-warmup/sft"),
        ("1-iteration/sft", "base"),
    ]
    assert found["pseudo_labels"] == [
        {"stage": "1-iteration/select", "weights": "d" * 64, "written_by": "1-iteration/dpo", "labels": 3}
    ]


def test_run_facts(finished: Path) -> None:
    run = collect(RunFiles(finished))["run"]
    assert (run["name"], run["method"], run["seed"], run["finished"]) == ("tiny", "dpo-st", 1, True)
    assert run["weights"] == "b" * 64 and run["weights_source"] == "made up"
    assert run["delivered"] == {"stage": "1-iteration/sft", "digest": "f" * 64}
    assert run["pending"] == [] and run["precision"] == ["fp32"]
    assert run["config"]["training"]["dpo"]["beta"] == 0.3


def test_a_recipe_is_named_where_the_run_is_that_recipe_and_nothing_else() -> None:
    assert recipe_of(load_config("smoke")) == "smoke"
    assert recipe_of(load_config("smoke", ["compute.threads=1", "description=as it was"])) == "smoke"
    assert recipe_of(load_config("smoke", ["seed=5"])) is None
    assert recipe_of(load_config("smoke", ["baselines=[st]"])) is None, "its page has other rows"
    assert recipe_of(load_config("smoke", ["name=mine"])) is None


def test_a_cut_run_says_what_is_missing_next(make_until: Callable[[str], Path]) -> None:
    run = collect(RunFiles(make_until("1-iteration/pair")))["run"]
    assert not run["finished"] and run["delivered"] is None
    assert run["pending"][:3] == [
        "1-iteration/dpo",
        "1-iteration/sampler/evaluate/first",
        "1-iteration/start/validate",
    ]
    assert run["pending"][-1] == "final/evaluate-without-calculator/first"
    assert "data" not in run["pending"] and "0-warmup/evaluate/first" not in run["pending"]


def test_a_resumed_run_is_unfinished_until_its_end(finished: Path) -> None:
    with (finished / "journal.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"event": "start"}\n')
    assert not RunFiles(finished).is_finished


def test_expected_stages_of_baselines() -> None:
    stages = list(expected_stages(load_config("smoke", ["baselines=[st, sft-matched]"])))
    assert stages[:3] == ["data", "0-base/evaluate/made-up", "0-warmup/select"]
    assert "baseline-st/1-iteration/sft" in stages and "baseline-st/1-iteration/dpo" not in stages
    assert stages[-2:] == ["baseline-sft-matched/sft-matched/sft", "baseline-sft-matched/sft-matched/evaluate/made-up"]
    assert len(stages) == len(set(stages))


def test_the_stages_beyond_a_stage_or_a_folder_of_stages() -> None:
    config = load_config("smoke", ["baselines=[st]"])
    stages = list(expected_stages(config))
    after_pair = stages.index("1-iteration/pair") + 1
    assert stages_beyond(config, "1-iteration/pair") == set(stages[after_pair:])
    assert stages_beyond(config, "0-base") == set(stages[stages.index("0-warmup/select") :]), "not all of 0-base"
    after_iteration = stages.index("1-iteration/validate") + 1
    assert stages_beyond(config, "1-iteration/") == set(stages[after_iteration:])
    assert stages_beyond(config, stages[-1]) == set()
    with pytest.raises(
        ConfigError, match="no stage '1-iteration/par'; stages: data, 0-base/evaluate/made-up"
    ) as refused:
        stages_beyond(config, "1-iteration/par")
    assert refused.value.hint == "Did you mean '1-iteration/pair'?"


def test_samples_and_an_own_warm_up_model_change_what_is_expected() -> None:
    stages = list(expected_stages(load_config("smoke", ["warmup_model=mine", "data.samples=s.jsonl"])))
    assert stages[:4] == ["data", "samples", "0-base/evaluate/made-up", "0-warmup/select"]
    assert "0-warmup/sft" not in stages and "0-warmup/evaluate/made-up" in stages


def test_a_folder_without_a_run_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder"):
        RunFiles(tmp_path)
    (tmp_path / "config.yaml").write_text("[1]", encoding="utf-8")
    with pytest.raises(RunError, match="expected sections, got list"):
        RunFiles(tmp_path)
    (tmp_path / "config.yaml").write_text("model: x\nnonsense: 1\ndata: {train: a.jsonl}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml: Unknown field 'nonsense'"):
        RunFiles(tmp_path)


def test_an_empty_run_still_has_results(make_until: Callable[[str], Path]) -> None:
    results = collect(RunFiles(make_until("data")))
    assert results["dpo"] == results["selection"] == []
    assert results["cost"]["parameters"] is None and results["cost"]["total"]["flops"] is None
    assert results["data"]["train"]["rows"] == 3


def test_a_damaged_file_of_a_finished_stage_is_named(finished: Path) -> None:
    path = finished / "0-warmup/evaluate/first/completions.jsonl"
    path.write_text("not json\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"first/completions.jsonl, line 1"):
        collect(RunFiles(finished))


def test_environment_names_versions_and_machine(finished: Path) -> None:
    found = environment(RunFiles(finished))
    assert {"torch", "transformers"} <= found["packages"].keys()
    assert found["cores"] >= 1 and found["cpu"] == cpu_name() != ""


def test_chat_template_is_looked_for_beside_the_tokenizer(tmp_path: Path) -> None:
    assert has_chat_template(tmp_path) is None
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer_config.json").write_text("{}")
    assert has_chat_template(tmp_path) is False
    (tmp_path / "model/chat_template.jinja").write_text("{{ messages }}")
    assert has_chat_template(tmp_path) is True
