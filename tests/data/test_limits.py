"""Rows over a limit on tokens: refused with counts and names, or left out where the config says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.config import DataConfig, PromptConfig, RunConfig, TrainingConfig
from selftrain.data.assemble import Assembled
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.stages.data import check_limits


def problem(name: str, prompt: int, target: int) -> Problem:
    """A problem whose "tokens" are words: so many of a question, so many of a rationale."""
    return Problem(name, " ".join(["q"] * prompt), "1", " ".join(["r"] * target))


def count_words(row: Problem) -> tuple[int, int]:
    return len(row.question.split()), len((row.rationale or "").split())


def config(over_limit: str = "refuse") -> RunConfig:
    data = DataConfig.model_validate({"train": {"source": "arithmetic"}, "over_limit": over_limit})
    return RunConfig(
        model="random-llama",
        data=data,
        prompt=PromptConfig(max_prompt_tokens=4),
        training=TrainingConfig(max_target_tokens=6),
    )


def sets(train: list[Problem], test: list[Problem]) -> Assembled:
    return Assembled(train, [], [], {"svamp": test}, {})


def test_what_fits_passes() -> None:
    check_limits(sets([problem("a", 4, 6)], [problem("b", 4, 60)]), config(), count_words)


def test_every_set_is_named_with_counts_and_rows() -> None:
    train = [problem("short", 1, 1), *(problem(f"t{i}", 1, 7) for i in range(7))]
    with pytest.raises(DataError) as found:
        check_limits(sets(train, [problem("long", 5, 1)]), config(), count_words)
    message = str(found.value)
    assert "7 of 8 targets of train have over 6: t0 (7), t1 (7), t2 (7), t3 (7), t4 (7) and 2 more" in message
    assert "1 of 1 prompts of svamp have over 4: long (5)" in message
    assert "data.over_limit=drop" in str(found.value.hint)


def test_rows_that_are_left_out_are_counted_with_their_set(tmp_path: Path) -> None:
    from selftrain.api import run

    overrides = ["data.over_limit=drop", "training.max_target_tokens=19", "training.sft.max_steps=1"]
    results = run("smoke", overrides, out=tmp_path / "run", until="0-warmup/sft")
    left_out = results["data"]["train"]["over_limit"]
    assert 0 < left_out < results["data"]["train"]["rows"] == 48
    assert "over_limit" not in results["data"]["unlabelled"], "no prompt is over its limit"
    said = f"{left_out} rows have a prompt over its limit or more than 19 tokens"
    assert any(warning["message"].startswith(said) for warning in results["warnings"]), "as SFT says"


@pytest.mark.parametrize("over_limit", ["refuse", "drop"])
@pytest.mark.parametrize(
    ("limit", "value", "what"),
    [("training.max_target_tokens", 8, "targets"), ("prompt.max_prompt_tokens", 3, "prompts")],
)
def test_a_run_refuses_or_drops_as_asked(over_limit: str, limit: str, value: int, what: str, tmp_path: Path) -> None:
    from selftrain.api import run

    settings = {limit: value, "schedule.iterations": 1, "training.sft.max_steps": 1}
    overrides = [f"{name}={value}" for name, value in settings.items()] + [
        f"data.over_limit={over_limit}",
        "method=sft",
    ]
    if over_limit == "drop":
        with pytest.raises(DataError, match="at least one example"):  # all of smoke's rows are longer
            run("smoke", overrides, out=tmp_path / "run")
    else:
        with pytest.raises(DataError, match=f"48 of 48 {what} of train have over {value}"):
            run("smoke", overrides, out=tmp_path / "run")
        assert not (tmp_path / "run/0-base/evaluate").exists()
