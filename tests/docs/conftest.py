"""What the pages for users show to be typed: README.md, docs/index.md and docs/guide/*.md, cut into commands.

A test that asks for `page` runs once a page.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SHELL = re.compile(r"(\$ )?(\w+=\S+ )*(selftrain|python|make|torchrun|accelerate|pip) ")
HEREDOC = re.compile(r"python - > (\S+) <<'END'\n(.*?)\nEND\n?", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Command:
    """A line to type: its words (comment and environment left out) and, after a `$`, what it is said to print."""

    line: str
    words: tuple[str, ...]
    prints: str | None = None

    @property
    def selftrain(self) -> list[str] | None:
        """The arguments that selftrain gets, from a launcher too; None where it is another program."""
        if self.words[0] == "selftrain":
            return list(self.words[1:])
        for first, second in zip(self.words, self.words[1:], strict=False):
            if (first, second) == ("-m", "selftrain"):
                return list(self.words[self.words.index("selftrain") + 1 :])
        return None


@dataclasses.dataclass(frozen=True)
class Page:
    """A page: its commands, those inside sentences, its Python, and files that it writes out by a script."""

    name: str
    text: str
    commands: tuple[Command, ...]
    mentioned: tuple[Command, ...]
    python: tuple[str, ...]
    scripts: tuple[tuple[str, str], ...]  # file, the Python that prints it


def command(line: str, prints: str | None = None) -> Command:
    """A line of a shell, read as the shell reads it."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    while "=" in words[0]:
        words = words[1:]
    return Command(line.strip(), tuple(words), prints)


def chunks(text: str) -> list[str]:
    """Code that stands together, without an empty line: indented or fenced, dedented."""
    found, lines, fenced = [], [], False
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fenced, line = not fenced, ""
        if line.strip() and (fenced or line.startswith("    ")):
            lines.append(line if fenced else line[4:])
        elif lines:
            found.append("\n".join(lines))
            lines = []
    return found


def read(path: Path) -> Page:
    """A page's code, cut into what it is."""
    text = path.read_text(encoding="utf-8")
    commands, python, scripts = [], [], []
    for chunk in chunks(text):
        scripts += HEREDOC.findall(chunk)
        rest = HEREDOC.sub("", chunk).replace("\\\n", " ")
        if rest.startswith("$ "):
            line, _, prints = rest.partition("\n")
            commands.append(command(line, prints))
        elif rest.startswith(("import ", "from ", "# ")):
            python.append(rest)
        else:
            commands += [command(line) for line in rest.splitlines() if SHELL.match(line)]
    sentences = re.sub(r"```.*?```|^    .*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", sentences)]
    mentioned = [command(span) for span in spans if SHELL.match(span)]
    name = path.relative_to(ROOT).as_posix()
    return Page(name, text, tuple(commands), tuple(mentioned), tuple(python), tuple(scripts))


PAGES = [read(path) for path in (ROOT / "README.md", ROOT / "docs/index.md", *sorted(ROOT.glob("docs/guide/*.md")))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES, ids=[page.name for page in PAGES])


@pytest.fixture(scope="session")
def pages() -> list[Page]:
    """Every page."""
    return PAGES


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """docs/reference.py."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
