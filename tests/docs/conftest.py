"""What the pages show to be typed: README.md, CONTRIBUTING.md, benchmarks/README.md and docs/, cut into commands.

docs/log.md is left out: it is history, and tells commands as they were. A test that asks for `page` runs once a page;
one that asks for `runs` once a page on which something can be carried out, and gets that part of it.
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
OUTSIDE = ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")
HISTORY = ("docs/log.md",)
SHELL = re.compile(r"(\$ )?(\w+=\S+ )*(selftrain|python|make|torchrun|accelerate|pip|hf|tar) ")
COMMENTED = re.compile(r" # .*: (selftrain .+)")
HEREDOC = re.compile(r"python - > (\S+) <<'END'\n(.*?)\nEND\n?", re.DOTALL)

NOT_RUN = {
    r"^make |^pip ": "installs packages; .ci/run does, with check, test and docs",
    r"^python -m benchmarks": "minutes to hours: tests/benchmarks/",
    r"^torchrun |^accelerate ": "several processes: tests/e2e/test_processes.py",
    r"^hf auth": "asks for a token",
    r"\bvllm\b": "needs vLLM: tests/sampling/",
    r"^CUDA_VISIBLE_DEVICES": "needs GPUs; docs/guide/choosing.md has the same lines without it",
    r"--serve": "goes on until Ctrl-C: tests/report/test_serve.py",
    r"SVAMP\.json": "a data set that is not part of the repository: tests/data/test_sources.py",
    r"\bgsm8k-": "a model and data of the hub, on a GPU",
    r"chat_template=model": "needs a chat model: tests/e2e/test_chat_template.py",
    r"\bpush\b": "uploads: tests/test_push.py",
    r"^selftrain (run|study) smoke\b": "10 s and more; tests/e2e/test_smoke.py and tests/study/test_smoke.py run them",
    r"^selftrain study ": "hours, with data of the hub: tests/study/",
    r"\bCalculatorLogitsProcessor\b": "goes on from a program of the reader's: tests/e2e/test_processor.py",
}


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

    def run(self) -> Page:
        """What of it is carried out."""
        commands = tuple(command for command in self.commands if not reason_not_to(command.line))
        python = tuple(text for text in self.python if not reason_not_to(text))
        return dataclasses.replace(self, commands=commands, python=python)


def reason_not_to(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in NOT_RUN)


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
    mentioned = [command(span) for span in (*spans, *COMMENTED.findall(text)) if SHELL.match(span)]
    name = path.relative_to(ROOT).as_posix()
    return Page(name, text, tuple(commands), tuple(mentioned), tuple(python), tuple(scripts))


PAGES = [
    read(path)
    for path in (*(ROOT / name for name in OUTSIDE), *sorted(ROOT.glob("docs/**/*.md")))
    if path.relative_to(ROOT).as_posix() not in HISTORY
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parts = [page.run() for page in PAGES]
    for name, pages in (("page", PAGES), ("runs", [page for page in parts if page.commands or page.python])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, pages, ids=[page.name for page in pages])


@pytest.fixture(scope="session")
def pages() -> list[Page]:
    """Every page."""
    return PAGES


@pytest.fixture(scope="session")
def not_run() -> dict[str, str]:
    """What is not carried out -> why."""
    return NOT_RUN


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """docs/reference.py."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
