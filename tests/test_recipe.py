"""Recipes and overrides: what is understood, and how what is not is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.errors import ConfigError
from selftrain.recipe import load_config, recipe_names, recipe_text, renamed


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_valid_and_named_as_its_file(name: str) -> None:
    config = load_config(name)
    assert config.name == name and config.description


def test_overrides_reach_sections_lists_and_numbers() -> None:
    config = load_config(
        "smoke", ["training.dpo.beta=0.25", "data.test.0.take=5", "training.sft.learning_rate=1e-4", "baselines=[st]"]
    )
    assert config.training.dpo.beta == 0.25
    assert config.data.test[0].take == 5
    assert config.training.sft.learning_rate == 1e-4
    assert config.baselines == ["st"]


def test_a_set_given_as_a_string() -> None:
    config = load_config("smoke", ["data.train=my/problems.jsonl", "data.unlabelled=asdiv"])
    assert (config.data.train.source, config.data.train.path) == ("file", "my/problems.jsonl")
    assert config.data.unlabelled is not None and config.data.unlabelled.source == "asdiv"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.dpo.bta=1", r"Unknown field 'training.dpo.bta'(.|\n)*Did you mean 'training.dpo.beta'"),
        ("training.dpo.beta=-1", r"training.dpo.beta: Input should be greater than 0, got -1"),
        ("sampling.temperature=hot", r"sampling.temperature: .*number.*got 'hot'"),
        ("method=ppo", r"method: Input should be 'sft', 'st' or 'dpo-st', got 'ppo'"),
        ("prompt.template=Solve it", r"prompt: .*must contain \{question\}"),
        ("data.test.7.take=1", r"expected an index below 1, got '7'"),
        ("nonsense", r"Expected section.field=value, got 'nonsense'"),
        ("prompt.template=Q: it", r"'Q: it' is read as YAML, and gives a mapping(.|\n)*quotes of its own"),
        ("data.train=source: file", r"gives a mapping"),
        ("seed=[1", r"seed: '\[1' is not a YAML value"),
    ],
)
def test_bad_overrides_say_what_was_expected_and_got(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("smoke", [override])


def test_text_in_quotes_of_its_own_stays_text() -> None:
    config = load_config("smoke", ['prompt.template="Q: {question} A:"', "data.test.0={source: arithmetic, take: 5}"])
    assert config.prompt.template == "Q: {question} A:" and config.data.test[0].take == 5


@pytest.mark.parametrize(("name", "run"), [("mine", "mine"), ("no", "no"), ("2nd", "2nd"), ("my run", "smoke")])
def test_a_copied_recipe_is_a_run_of_its_own_name(name: str, run: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(renamed(recipe_text("smoke"), name))
    config = load_config(str(path))
    assert config.name == run and config.model_copy(update={"name": "smoke"}) == load_config("smoke")


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        load_config("smok")


def test_an_unknown_file_names_the_nearest_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "mine.txt"):
        Path(name).write_text("name: mine", encoding="utf-8")
    for asked in ("mine.yml", "./mine.yml", "mine"):
        with pytest.raises(ConfigError, match=r"Did you mean 'mine\.yaml'"):
            load_config(asked)
    with pytest.raises(ConfigError, match="Give one of these names"):
        load_config("no/such/folder.yml")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(str(tmp_path / "r.yaml"))
    (tmp_path / "s.yaml").write_text("just text")
    with pytest.raises(ConfigError, match="expected a mapping of sections, got str"):
        load_config(str(tmp_path / "s.yaml"))
