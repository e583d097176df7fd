"""Recipes: whole runs as YAML, found by name or path, with dotted overrides from the command line.

    config = load_config("quickstart", ["training.dpo.beta=0.1", "data.test.0.take=50"])

An unknown recipe, field or value is a `ConfigError` that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from selftrain.config import RunConfig
from selftrain.errors import ConfigError, nearest

Checked = TypeVar("Checked", bound=BaseModel)

YAML_SUFFIXES = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return shipped_names("recipes")


def recipe_text(name_or_path: str) -> str:
    """A recipe's YAML text.

    Raises:
        ConfigError: neither a recipe's name nor a readable file.
    """
    return shipped_text(name_or_path, "recipe", "recipes")


@dataclasses.dataclass(frozen=True)
class Listed:
    """What a shipped recipe says of itself: its description, and the line of its header that begins `# Size:`."""

    name: str
    size: str
    hours: str
    hardware: str
    description: str


def listed_recipes() -> list[Listed]:
    """Every recipe that comes with the package, for `selftrain recipes`."""
    return [_listed(name) for name in recipe_names()]


def _listed(name: str) -> Listed:
    text = recipe_text(name)
    facts = re.search(r"^# Size: (.+); hours: (.+); hardware: (.+)\.$", text, re.MULTILINE)
    if facts is None:
        raise ConfigError(f"{name}: expected a line '# Size: ...; hours: ...; hardware: ....' in its header.")
    return Listed(name, facts[1], facts[2], facts[3], str(yaml_tree(text, name).get("description", "")))


def shipped_names(folder: str) -> list[str]:
    """Names of the YAML files that come with the package in a folder of it."""
    entries = (resources.files("selftrain") / folder).iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in entries if entry.name.endswith(".yaml"))


def shipped_text(name_or_path: str, what: str, folder: str) -> str:
    """The text of a YAML file that comes with the package, by name, or of one's own, by path; `what` it is in words.

    Raises:
        ConfigError: neither a known name nor a readable file.
    """
    known = shipped_names(folder)
    if name_or_path in known:
        return (resources.files("selftrain") / folder / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix in YAML_SUFFIXES and path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}).") from error
    close = nearest(name_or_path, [*known, *_beside(path)])
    raise ConfigError(
        f"No {what} or YAML file is called {name_or_path!r}; {folder}: {', '.join(known)}.",
        f"Did you mean {close!r}?" if close else "Give one of these names, or the path of a .yaml file.",
    )


def short_name(name_or_path: str) -> str:
    """A recipe's or study's name; of a file, its name without folder and suffix.

    >>> short_name("gsm8k-qwen3-0.6b"), short_name("tried/mine.yaml")
    ('gsm8k-qwen3-0.6b', 'mine')
    """
    path = Path(name_or_path)
    return path.stem if path.suffix in YAML_SUFFIXES else path.name


def _beside(path: Path) -> list[str]:
    """The YAML files of the folder that a path names."""
    entries = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    return [str(entry) for entry in entries if entry.suffix in YAML_SUFFIXES]


def renamed(text: str, name: str) -> str:
    """A recipe's YAML text as that of a run called `name`, so that it has a folder of its own; as it is for a bad name.

    >>> renamed("# the loop\\nname: smoke\\n", "mine"), renamed("name: smoke\\n", "my run")
    ('# the loop\\nname: "mine"\\n', 'name: smoke\\n')
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return text
    return re.sub(r"^name: .*$", f'name: "{name}"', text, count=1, flags=re.MULTILINE)


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe with overrides (`section.field=value`, value read as YAML) as a checked configuration.

    Raises:
        ConfigError: unknown recipe or field, or a value of the wrong type or range.
    """
    tree = yaml_tree(recipe_text(name_or_path), name_or_path)
    for override in overrides:
        _apply(tree, override)
    return config_from(tree)


def yaml_tree(text: str, name: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; `name` is for messages.

    Raises:
        ConfigError: it is no YAML, or no mapping.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML ({_one_line(error)}).") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: expected a mapping of sections, got {type(tree).__name__}.")
    return tree


def config_from(tree: dict[str, Any]) -> RunConfig:
    """A checked configuration from plain values; errors name the field, what was expected and what was got."""
    return checked(RunConfig, tree)


def checked(section: type[Checked], tree: dict[str, Any]) -> Checked:
    """A section from plain values.

    Raises:
        ConfigError: names the field, what was expected and what was got.
    """
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(*_explain(error, section)) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"Expected section.field=value, got {override!r}.")
    *parents, last = path.split(".")
    node: Any = tree
    for part in parents:
        node = _child(node, part, path)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {text!r} is not a YAML value ({_one_line(error)}).", _QUOTED) from error
    if isinstance(value, dict) and not text.lstrip().startswith("{"):
        raise ConfigError(f"{path}: {text!r} is read as YAML, and gives a mapping.", _QUOTED)
    value = _number(value)
    if isinstance(node, list):
        node[_index(node, last, path)] = value
    else:
        node[last] = value


_QUOTED = (
    "Put text with signs of YAML (: { # and others) into quotes of its own: 'prompt.template=\"Q: {question} A:\"'"
)


def _child(node: Any, part: str, path: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, path)]
    if isinstance(node.get(part), str) and part in ("train", "unlabelled", "validation", "samples"):
        raise ConfigError(f"{path}: the recipe gives {part} as one string; override it as a whole.")
    if not isinstance(node.get(part), (dict, list)):
        node[part] = {}
    return node[part]


def _index(node: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"{path}: expected an index below {len(node)}, got {part!r}.")
    return int(part)


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as a string; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(error: ValidationError, root: type[BaseModel]) -> tuple[str, str | None]:
    """The first problem of a validation error as a message and a hint."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _fields_at(problem["loc"][:-1], root)
        close = nearest(str(problem["loc"][-1]), known)
        hint = f"Did you mean {'.'.join([*map(str, problem['loc'][:-1]), close])!r}?" if close else None
        return f"Unknown field {where!r}; known there: {', '.join(known)}.", hint
    got = "nothing" if problem["type"] == "missing" else repr(problem["input"])[:120]
    more = len(error.errors()) - 1
    rest = f" ({more} more)" if more else ""
    return f"{where or 'configuration'}: {problem['msg'].removeprefix('Value error, ')}, got {got}.{rest}", None


def _fields_at(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """The field names of the section that a location points to."""
    section: Any = root
    for part in location:
        if isinstance(part, int):
            continue
        section = _section(section.model_fields[part].annotation)
    return sorted(section.model_fields)


def _section(annotation: Any) -> Any:
    """The section class inside an annotation such as `Spec | None` or `list[Spec]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section(argument) for argument in get_args(annotation))
    return next((section for section in found if section is not None), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
