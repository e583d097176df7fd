"""Imports go down the layers only, read from the source: nothing is imported here.

A module may import modules of lower layers, and of its own layer as long as no circle arises; a stage never
imports a stage. Imports under `if TYPE_CHECKING` are for the type checker and don't count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "selftrain"

# From the top down. A new module or package of `selftrain` must be given a layer here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__", "cli", "studycommand", "subcommands"),
    (
        "api", "datacheck", "doctor", "evaluate", "export", "init", "inityaml", "isolate", "lengths", "plan",
        "processor", "push", "samplefile", "samplejob", "sampletable", "study", "terminal", "use",
    ),
    ("runner",),
    ("loop",),
    ("workbench",),
    ("samplebench",),
    ("bench",),
    ("modelstore",),
    ("stages",),
    ("report", "sampling", "training"),
    ("forwards", "memory"),
    ("flex_trees", "native", "short_attention"),
    ("models",),
    (
        "calculator", "card", "claim", "data", "guard", "identity", "judged", "labelling", "model_hub", "outfile",
        "pairing", "pool", "prompts", "proposal", "recipe", "rundir", "sharing", "similarity", "smollm2", "spent",
        "stagefolder", "toy", "verify", "weights",
    ),
    ("config", "cost", "durable", "errors", "evidence", "hardware", "locking", "metrics", "offline", "processes",
     "progress", "provenance", "records", "redaction", "seeding",
     "stopping", "userpath"),
)  # fmt: skip
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def top_level(root: Path) -> set[str]:
    """The modules and packages directly under a package."""
    modules = {path.stem for path in root.glob("*.py")} - {"__init__"}
    return (
        modules
        | {path.parent.name for path in root.glob("*/__init__.py")}
        | {path.parent.name for path in root.glob("*/*.py")}
    )


def imports_of(source: str, package: str) -> Iterator[str]:
    """Dotted names under `selftrain` that a module imports at run time, at whatever depth of the code.

    `package` is the dotted package that the module lies in, for relative imports.
    """
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "selftrain")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            if base.split(".")[0] == "selftrain":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a tree but for those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from (inner for branch in node.orelse for inner in [branch, *runtime_nodes(branch)])
        else:
            yield node
            yield from runtime_nodes(node)


def edges(root: Path) -> set[tuple[str, str]]:
    """(importing file, imported top-level name) of a whole package; the root's `__init__` is left out."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if place == Path("__init__.py"):
            continue
        package = ".".join(["selftrain", *place.parent.parts])
        for name in imports_of(path.read_text(encoding="utf-8"), package):
            parts = [*name.split("."), "(the root)"]
            found.add((place.as_posix(), ".".join(parts[1:3]) if parts[1] == "stages" else parts[1]))
    return found


def owner(file: str) -> str:
    """The top-level name that a file belongs to."""
    return file.split("/")[0].removesuffix(".py")


def violations(found: set[tuple[str, str]]) -> list[str]:
    """What is wrong with a set of edges, in words."""
    wrong = []
    for file, target in sorted(found):
        name, own = target.split(".")[0], owner(file)
        if name not in RANK or own not in RANK:
            continue
        if RANK[name] < RANK[own]:
            wrong.append(f"{file} imports {target}, which lies above it")
        elif own == name == "stages" and (ROOT / f"stages/{target.split('.')[-1]}.py").exists():
            wrong.append(f"{file} imports {target}: a stage never imports a stage")
    return wrong


def circle(found: set[tuple[str, str]]) -> list[str]:
    """A circle among top-level names, as a path; empty when there is none."""
    graph: dict[str, set[str]] = {}
    for file, target in found:
        if owner(file) != target.split(".")[0]:
            graph.setdefault(owner(file), set()).add(target.split(".")[0])
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for following in sorted(graph.get(name, ())):
            if found_circle := visit(following, [*path, name]):
                return found_circle
        done.add(name)
        return []

    return next((bad for name in sorted(graph) if (bad := visit(name, []))), [])


def test_every_module_has_a_layer() -> None:
    unknown = top_level(ROOT) - RANK.keys()
    assert not unknown, f"give these a layer in {Path(__file__).name}: {sorted(unknown)}"


def test_only_known_names_are_imported() -> None:
    unknown = {(file, name) for file, name in edges(ROOT) if name.split(".")[0] not in {*RANK, "__version__"}}
    assert not unknown


def test_imports_go_down() -> None:
    assert violations(edges(ROOT)) == []


def test_no_circles() -> None:
    assert circle(edges(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("config.py", "import selftrain.cli", "lies above"),
        ("sampling/engine.py", "def f():\n    from selftrain.stages.sample import x", "lies above"),
        ("data/base.py", "from ..models import x", "lies above"),
        ("stages/pair.py", "from selftrain.stages.sample import x", "a stage never imports a stage"),
        ("stages/pair.py", "from . import sample", "a stage never imports a stage"),
        ("loop.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from selftrain.runner import x", ""),
        ("stages/pair.py", "from selftrain.records import Pair", ""),
    ],
)
def test_the_check_can_fail(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    wrong = violations(edges(tmp_path))
    assert len(wrong) == (1 if complaint else 0)
    assert complaint in "".join(wrong)


def test_a_circle_is_seen() -> None:
    assert circle({("data/a.py", "verify"), ("verify/b.py", "data"), ("data/a.py", "data")}) == [
        "data",
        "verify",
        "data",
    ]
    assert circle({("data/a.py", "verify"), ("verify/b.py", "errors")}) == []
