"""Every command and setting in the pages is one that the programs take: verbs, options, recipes, fields, targets."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import typer
from accelerate.commands.launch import launch_command_parser
from huggingface_hub.cli.hf import app as hub
from torch.distributed.run import get_args_parser as torchrun_parser

from selftrain.cli import app
from selftrain.config import Section
from selftrain.errors import ConfigError
from selftrain.recipe import load_config, recipe_text
from selftrain.study.spec import load_study, runs_of

ROOT = Path(__file__).parents[2]
USAGE_ERROR: Any = typer.BadParameter.__base__
SECTIONS = "|".join(name for name, value in load_config("smoke") if isinstance(value, Section))
SETTING = re.compile(rf"(?<![\w./-])(?:{SECTIONS})\.(?!md\b|py\b|jsonl?\b)(?:[a-zA-Z0-9_]+\.)*[a-z_0-9]+")
WITHOUT_COMMANDS = ("docs/concepts/", "docs/decisions/", "docs/results/asdiv", "docs/results/quickstart",
    "docs/results/gsm-symbolic", "docs/results/main-", "docs/results/iterations-", "docs/results/dpo-step-",
    "docs/results/compute-", "docs/results/samples-", "docs/results/calculator-", "docs/results/gsm8k-40")  # fmt: skip
HAS_KEYS_OF_ITS_OWN = ("data.files.", "data.train.params.", "data.train.fields.", "sampling.vllm.")


def parse(arguments: list[str], command: Any = None, name: str = "selftrain") -> tuple[str, dict[str, Any]]:
    """The verb that takes these arguments, and what each of its parameters gets. Nothing is carried out."""
    command, context = command or typer.main.get_command(app), None
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        left = [*getattr(context, "_protected_args", []), *context.args]
        if not hasattr(command, "commands") or not left:
            return context.command_path, context.params
        name, command, arguments = command.resolve_command(context, left)


def check(arguments: list[str], folder: Path) -> None:
    """Parse a command of selftrain, and look its recipe and settings up; `folder` is for a YAML of the reader's."""
    print("selftrain", *arguments)  # shown where it fails
    verb, values = parse(arguments)
    if verb == "selftrain study" and not re.fullmatch(r"[A-Z]+|.+\.yaml", values["study"]):
        runs_of(load_study(values["study"]), folder, values["base"], values["overrides"] or ())
    recipe = values.get("recipe") or (values["name"] if verb.startswith("selftrain recipes ") else None)
    if recipe is None or re.fullmatch("[A-Z]+", recipe):
        return
    if recipe.endswith(".yaml"):
        recipe = str(folder / "mine.yaml")
        Path(recipe).write_text(recipe_text("smoke"), encoding="utf-8")
    if values.get("overrides") is not None:
        load_config(recipe, values["overrides"])
    else:
        assert recipe_text(recipe)


def test_there_is_something_to_check(pages: list[Any]) -> None:
    counts = {page.name: len(page.commands) for page in pages}
    assert len(counts) >= 25
    assert sum(counts.values()) > 90
    assert [name for name, number in counts.items() if not number and not name.startswith(WITHOUT_COMMANDS)] == []
    assert sum(len(SETTING.findall(page.text)) for page in pages) > 60


def test_selftrain(page: Any, tmp_path: Path) -> None:
    for command in page.commands:
        if command.selftrain is not None:
            check(command.selftrain, tmp_path)


def test_selftrain_in_sentences(page: Any, tmp_path: Path) -> None:
    verbs = typer.main.get_command(app).commands
    for command in page.mentioned:
        if command.selftrain is not None and len(command.selftrain) == 1:
            assert command.selftrain[0] in verbs, command.line
        elif command.selftrain is not None:
            check(command.selftrain, tmp_path)


def help_examples(command: Any) -> Iterator[str]:
    for line in re.findall(r"\bselftrain [a-z]+ .+", command.help or ""):
        yield re.split(r"`|\s{2,}\(", line)[0]
    for inner in getattr(command, "commands", {}).values():
        yield from help_examples(inner)


def test_selftrain_in_help(tmp_path: Path) -> None:
    examples = list(help_examples(typer.main.get_command(app)))
    assert len(examples) > 10
    for line in examples:
        check(shlex.split(line)[1:], tmp_path)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("run quickstart --fast", USAGE_ERROR),
        ("run quickstart training.dpo.betta=0.1", Exception),
        ("run quickstar", Exception),
        ("recipes cp quickstar mine.yaml", Exception),
        ("training quickstart", USAGE_ERROR),
        ("export pairs", USAGE_ERROR),
        ("sample model --data x.jsonl -k many --out y.jsonl", USAGE_ERROR),
    ],
)
def test_a_wrong_command_is_found(line: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        check(line.split(), tmp_path)


def test_settings(page: Any, reference: ModuleType) -> None:
    known = set(re.findall(r"^\| `([\w.]+)` \|", reference.config_page(), re.MULTILINE))
    known |= {place for places in reference.sections().values() for place in places}
    for name in SETTING.findall(page.text):
        plain = re.sub(r"^data\.(unlabelled|validation|test\.\d|SET)\.", "data.train.", name)
        assert plain in known or plain.startswith(HAS_KEYS_OF_ITS_OWN), name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])  # mkdocs looks after those in docs/
def test_links(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make(page: Any) -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", text, re.MULTILINE))
    for command in (*page.commands, *page.mentioned):
        if command.words[0] == "make":
            named = [word.split("=")[0] if "=" in word else word for word in command.words[1:]]
            assert set(named) <= targets | variables, command.line


def test_pip(page: Any) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for line in re.findall(r"pip install '?(?:\.|selftrain)\[([^]]+)\]", page.text):
        assert set(line.split(",")) <= extras.keys(), line


def benchmark(module: Any, words: list[str]) -> None:
    """The options of `python -m benchmarks.NAME`, its systems and its recipe."""
    module.options_from(words)
    recipe = getattr(module.parser().parse_args(words), "recipe", None)
    assert recipe is None or recipe_text(recipe)


def launched(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """A launcher's own options; those of selftrain are looked at by `test_selftrain`."""
    given = parser.parse_args(words)
    assert (given.module, given.training_script) == (True, "selftrain")


def other_program(words: list[str]) -> None:
    """Parse a command of another program; one that nobody here can parse is an error."""
    print(*words)  # shown where it fails
    program, *arguments = words
    if program == "torchrun":
        launched(torchrun_parser(), arguments)
    elif words[:2] == ["accelerate", "launch"]:
        launched(launch_command_parser(), arguments[1:] or ["-m", "selftrain"])  # a sentence names it alone
    elif program == "hf":
        parse(arguments, hub, "hf")
    elif program == "tar":
        assert len(arguments) == 2 and arguments[0] in ("xzf", "czf")
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        benchmark(importlib.import_module(arguments[1]), arguments[2:])
    else:
        assert program in ("make", "pip"), "nothing here parses it"  # they have tests of their own


def test_other_programs(page: Any) -> None:
    for command in (*page.commands, *page.mentioned):
        if command.words[0] != "selftrain":
            other_program(list(command.words))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python -m benchmarks.sampling --chek", SystemExit),
        ("python -m benchmarks.sampling --systems ours,theirs", ConfigError),
        ("python -m benchmarks.training --quick", SystemExit),  # no --run
        ("python -m benchmarks.pipeline --recipe smok", ConfigError),
        ("python -m benchmarks.sampler", ModuleNotFoundError),
        ("torchrun --cards 2 -m selftrain run mine.yaml", SystemExit),
        ("torchrun selftrain run mine.yaml", AssertionError),
        ("accelerate launch --num-cards 2 -m selftrain run mine.yaml", SystemExit),
        ("hf auth log", click.UsageError),
        ("cmake all", AssertionError),
    ],
)
def test_a_wrong_command_of_another_program_is_found(line: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        other_program(shlex.split(line))
