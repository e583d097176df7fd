"""The generated reference says all of the configuration and of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from selftrain.cli import app
from selftrain.config import BroughtSamples, DataConfig, DataSpec, RunConfig
from selftrain.recipe import load_config, recipe_names


@pytest.fixture(scope="module")
def table(reference: ModuleType) -> dict[str, list[str]]:
    """Field -> the other cells of its line."""
    lines = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", reference.config_page(), re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in lines}


def leaves(section: BaseModel, place: str = "") -> Iterator[str]:
    """Dotted names of all that can be set, from values: no type is looked at."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        yield place + name
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                yield from leaves(inner, f"{place}{name}.")


def test_every_field_has_a_line(table: dict[str, list[str]]) -> None:
    spec = DataSpec(source="asdiv")
    data = DataConfig(train=spec, samples=BroughtSamples(path="x.jsonl"))
    wanted = set(leaves(RunConfig(model="m", data=data)))
    assert len(wanted) > 100
    assert wanted <= table.keys(), sorted(wanted - table.keys())
    assert table.keys() <= wanted, sorted(table.keys() - wanted)


def test_sets_of_one_shape_are_told_once(reference: ModuleType) -> None:
    page = reference.config_page()
    assert "The same fields stand under `data.unlabelled`, `data.validation`, `data.test.0`." in page
    for place in ("data.unlabelled", "data.validation", "data.test.0"):
        load_config("smoke", [f"{place}.take=3"])


@pytest.mark.parametrize(
    ("name", "words", "default"),
    [
        ("training.dpo.beta", "number, above 0", "`0.3`"),
        ("sampling.top_p", "number, above 0, at most 1", "`1.0`"),
        ("sampling.slots", "whole number, at least 1; or `auto`", '`"auto"`'),
        ("method", "`sft`, `st`, `dpo-st`", '`"dpo-st"`'),
        ("baselines", "list, each: `st`, `st-matched`, `sft-matched`", "`[]`"),
        ("compute.threads", "whole number, at least 1; or `null`", "`null`"),
        ("guard.enabled", "`true` or `false`", "`true`"),
        ("data.train.source", "text", "required"),
    ],
)
def test_type_range_and_default(table: dict[str, list[str]], name: str, words: str, default: str) -> None:
    assert table[name][:2] == [words, default]


def test_described(table: dict[str, list[str]]) -> None:
    silent = [name for name, cells in table.items() if len(cells) < 3 or not cells[2].strip()]
    assert not silent


def members(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for member, inner in getattr(command, "commands", {}).items():
        yield from members(inner, f"{name} {member}")


def test_every_command_with_every_option(reference: ModuleType) -> None:
    parts = dict(re.findall(r"^## (selftrain.*?)\n\n```text\n(.*?)\n```", reference.commands_page(), re.M | re.S))
    commands = dict(members(typer.main.get_command(app), "selftrain"))
    assert len(commands) > 12
    assert parts.keys() == commands.keys()
    for name, command in commands.items():
        for param in command.params:
            assert all(option in parts[name] for option in param.opts if option.startswith("-")), (name, param.opts)
        assert "help" in parts[name], name


def test_the_page_is_what_help_prints(reference: ModuleType) -> None:
    printed = CliRunner().invoke(app, ["data", "check", "--help"], prog_name="selftrain", terminal_width=80).stdout
    assert f"## selftrain data check\n\n```text\n{printed.strip()}\n```" in reference.commands_page()


def test_every_recipe(reference: ModuleType) -> None:
    page = reference.recipes_page()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == recipe_names()
    assert "\nname: quickstart\n" in page
