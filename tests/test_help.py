"""What the command line says where little was typed: lists of commands, and what is missing."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from selftrain.cli import app


@pytest.mark.parametrize("group", [[], ["recipes"], ["data"]])
def test_no_line_of_a_list_of_commands_is_cut(group: list[str]) -> None:
    shown = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"}).output
    lines = shown.partition("Commands:\n")[2].splitlines()
    assert lines and [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["init"], "Missing option '--data'. Such as: selftrain init --data my.jsonl"),
        (["evaluate", "m"], "Missing option '--data'. Such as: selftrain evaluate runs/quickstart/model --data my"),
        (["sample", "m"], "Missing option '--data'. Such as: selftrain sample runs/quickstart/model --data svamp"),
        (["ask", "m"], "Such as: selftrain ask runs/quickstart/model"),
        (["recipes", "show"], "Missing argument"),  # without an example in its help
    ],
)
def test_what_is_missing_is_told_with_an_example(typed: list[str], said: str) -> None:
    told = CliRunner().invoke(app, typed)
    assert told.exit_code == 2 and said in told.output and told.output.count("Such as") == said.count("Such as")
