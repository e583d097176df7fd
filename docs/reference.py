"""The reference pages, made from the code: every field of a run, every command's `--help`, every recipe.

    python docs/reference.py        # prints them; `make docs` puts them into the site through docs/hooks.py

Types and ranges are those of the JSON schema that pydantic makes of the configuration, so that a page cannot say other
than what a run accepts. Nothing is written by hand and nothing is stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import typer
import yaml
from pydantic.fields import FieldInfo

from selftrain.cli import app
from selftrain.config import RunConfig, Section
from selftrain.recipe import recipe_names, recipe_text

HELP_WIDTH = 80  # columns of a command's help, as in a plain terminal
TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}

CONFIG_INTRO = """\
# Configuration

A run is one YAML file of these fields. On the command line any of them is an override, `section.field=value`, with the
value read as YAML: `selftrain run quickstart training.dpo.beta=0.1`. An unknown field, a value of another type or out
of its range is refused before any work. In the descriptions "paper" is Wang, Li, Lu (ACL 2024), "code" its published
code, "ours" our own choice.
"""

COMMANDS_INTRO = """\
# Commands

What `--help` prints. Exit codes: 0 done, 1 a check that found something or a question that was answered no, 2 something
that you can put right (one message, no traceback), 130 interrupted.
"""

RECIPES_INTRO = """\
# Recipes

`selftrain run NAME` takes one of these; `selftrain recipes cp NAME mine.yaml` makes a copy to change.
"""


def pages() -> dict[str, str]:
    """Each page's place in the site and its Markdown."""
    return {
        "reference/config.md": config_page(),
        "reference/commands.md": commands_page(),
        "reference/recipes.md": recipes_page(),
    }


def config_page() -> str:
    """A table of fields for each section of a run's configuration."""
    definitions = RunConfig.model_json_schema()["$defs"]
    parts = [CONFIG_INTRO]
    for section, places in sections().items():
        properties = (definitions.get(section.__name__) or RunConfig.model_json_schema())["properties"]
        parts.append(f"## {places[0] or 'The run itself'}\n\n{section.__doc__}")
        if len(places) > 1:
            parts.append("The same fields stand under " + ", ".join(f"`{place}`" for place in places[1:]) + ".")
        rows = ["| field | type and range | default | what it is |", "|---|---|---|---|"]
        for name, field in section.model_fields.items():
            rows.append(_row(_dotted(places[0], name), kind(properties[name]), field))
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def sections() -> dict[type[Section], list[str]]:
    """Every section with the dotted places where it stands in a run; a list's place is its first item's."""
    found: dict[type[Section], list[str]] = {RunConfig: [""]}

    def walk(section: type[Section], place: str) -> None:
        for name, field in section.model_fields.items():
            for inner in _sections_in(field.annotation):
                here = _dotted(place, name) + (".0" if "list" in str(field.annotation) else "")
                found.setdefault(inner, []).append(here)
                walk(inner, here)

    walk(RunConfig, "")
    return found


def kind(schema: dict[str, Any]) -> str:
    """What a field takes, in words, from its JSON schema.

    >>> kind({"type": "integer", "minimum": 1})
    'whole number, at least 1'
    >>> kind({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "null"}]})
    'number, above 0, at most 1; or `null`'
    """
    if "anyOf" in schema:
        return "; or ".join(kind(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return "section, below"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "null":
        return "`null`"
    if schema["type"] == "array":
        return f"list, each: {kind(schema['items'])}"
    if schema["type"] == "object":
        return "mapping"
    bounds = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}
    words = [TYPES[schema["type"]], *(f"{word} {schema[key]:g}" for key, word in bounds.items() if key in schema)]
    if "pattern" in schema:
        words.append(f"that matches `{schema['pattern']}`")
    return ", ".join(words)


def commands_page() -> str:
    """What `--help` prints, for `selftrain` and each of its commands."""
    parts = [COMMANDS_INTRO]
    for name, text in helps():
        parts.append(f"## {name}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def helps() -> Iterator[tuple[str, str]]:
    """(`selftrain data check`, its help) for every command, groups before their members."""

    def walk(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
        context = command.make_context(
            name.split()[-1], [], parent=parent, resilient_parsing=True, terminal_width=HELP_WIDTH
        )
        yield name, command.get_help(context).strip()
        for member, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {member}", context)

    return walk(typer.main.get_command(app), "selftrain", None)


def recipes_page() -> str:
    """Each recipe with its description and its YAML."""
    parts = [RECIPES_INTRO]
    for name in recipe_names():
        text = recipe_text(name)
        parts.append(f"## {name}\n\n{yaml.safe_load(text)['description']}.\n\n```yaml\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _sections_in(annotation: Any) -> list[type[Section]]:
    """The sections in a field's type, e.g. of `list[DataSpec]` or `DataSpec | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]


def _dotted(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _row(name: str, words: str, field: FieldInfo) -> str:
    """A field's line of the table."""
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if field.is_required():
        default = "required"
    elif isinstance(value, Section):
        default = ""
    else:
        default = f"`{json.dumps(value, ensure_ascii=False)}`"
    inner = _sections_in(field.annotation)
    cells = (f"`{name}`", words, default, field.description or (inner[0].__doc__ if inner else "") or "")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<<", "&lt;&lt;") for cell in cells) + " |"


if __name__ == "__main__":
    print("\n".join(pages().values()))
