"""The commands and the Python of the pages, carried out one after the other where all that they name is there.

Recipes and models are stand-ins of a few rows and a random model, so that a page takes seconds. What is not carried out
stands in NOT_RUN of conftest.py with its reason; test_commands.py parses it all the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.cli import main

RECIPE = {
    "model": "random-llama",
    "sampling": {"max_new_tokens": 24, "samples_for_pairs": 2, "samples_for_labels": 2},
    "training": {"sft": {"epochs": 1, "batch_size": 8}, "dpo": {"batch_size": 16, "max_steps": 2}},
    "schedule": {"iterations": 1},
    "evaluation": {"without_calculator_rows": 4},
    "compute": {"min_free_disk_gb": 0.1},
}
LETTERS = "docs/guide/answers.md"  # the page whose mine.yaml is about letters


def write_recipe(path: Path, file: str) -> None:
    """A run of a few rows, in place of the recipe or YAML file that a page names."""
    data = {
        "train": {"source": "file", "path": file, "skip": 8, "take": 16},
        "test": [{"source": "file", "path": file, "take": 8}],
    }
    path.write_text(yaml.safe_dump({"name": path.stem, "data": data, **RECIPE}), encoding="utf-8")


def write_rows(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_files(script: str) -> None:
    """The files that the pages name, made of the problems that a page's own script prints."""
    printed = io.StringIO()
    Path("script.py").write_text(script, encoding="utf-8")
    with contextlib.redirect_stdout(printed):
        runpy.run_path("script.py")
    Path("my.jsonl").write_text(printed.getvalue(), encoding="utf-8")
    rows = [json.loads(line) for line in printed.getvalue().splitlines()]
    write_rows("my-test.jsonl", rows[:8])
    write_rows("questions.jsonl", [{"question": row["question"]} for row in rows[:6]])
    answers = [{"question": r["question"], "text": f"#### {r['answer'] + n}"} for r in rows for n in (0, 1)]
    write_rows("teacher.jsonl", answers)
    letters = [{**row, "answer": "ABCD"[n % 4], "rationale": "One fits."} for n, row in enumerate(rows)]
    write_rows("quiz.jsonl", letters)
    write_rows("riddles.jsonl", [{**row, "answer": "a bee"} for row in letters[:5]])
    mixed = ["3", "4", "5", "B", "D"]
    write_rows("mixed.jsonl", [{"question": f"Number {n}?", "answer": answer} for n, answer in enumerate(mixed)])


def selftrain(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["selftrain", *arguments])
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("selftrain.bench.matrix_flops", lambda *_: 1e11)  # it would take most of the time
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, pages: list[Any]) -> Path:
    """A folder with every file, a finished run under every name that a page uses, and models."""
    folder = tmp_path_factory.mktemp("docs")
    with contextlib.chdir(folder):
        write_files(dict(script for page in pages for script in page.scripts)["my.jsonl"])
        write_recipe(Path("quickstart.yaml"), "my.jsonl")
        code, _, err = selftrain("run", "quickstart.yaml")
        assert code == 0, err
        for name in ("mine", "plain", "beta"):
            shutil.copytree("runs/quickstart", f"runs/{name}")
        for name in ("my-sft-model", "path/to/my-sft-model"):
            shutil.copytree("runs/quickstart/model", name)
        Path("docs/results").mkdir(parents=True)
    return folder


class Reader:
    """Types what a page says, in a folder of its own.

    A page's `run` lines are examples to choose from: one with other settings than the last into the same run folder, or
    `--out` file, begins anew. Baselines are added to the run that is there.
    """

    def __init__(self, page: Any, prepared: Path) -> None:
        self.page, self.prepared = page, prepared
        self.settings = {"runs/quickstart": []}

    def type(self, command: Any) -> str | None:
        """What went wrong, or None."""
        for name in ("quickstart", "mine"):
            write_recipe(Path(f"{name}.yaml"), "quiz.jsonl" if self.page.name == LETTERS else "my.jsonl")
        shutil.copy(self.prepared / "teacher.jsonl", ".")  # a random model's answers may be empty, and are refused then
        arguments = [word.replace("NAME", "quickstart") for word in command.selftrain or command.words]
        if command.selftrain is None:
            done = subprocess.run(arguments, capture_output=True, text=True)
            return done.stderr if done.returncode else None
        if arguments[0] in ("run", "plan") and "quickstart" in arguments:
            arguments[arguments.index("quickstart")] = "quickstart.yaml"
        self.clear_the_way(arguments)
        code, out, err = selftrain(*arguments)
        if command.prints is not None and out.strip() != command.prints.strip():
            return f"printed\n{out}{err}"
        return err or f"exit code {code}" if code > (command.prints is not None) else None

    def clear_the_way(self, arguments: list[str]) -> None:
        """Remove what an earlier example left where this one writes."""
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else None
        if arguments[0] == "run":
            folder = out or f"runs/{Path(arguments[1]).stem}"
            settings = [word for word in arguments[2:] if "=" in word and not word.startswith("baselines=")]
            if self.settings.get(folder) != settings:
                shutil.rmtree(folder, ignore_errors=True)
            self.settings[folder] = settings
        elif arguments[0] in ("init", "recipes"):
            Path(out or "mine.yaml").unlink(missing_ok=True)
        elif arguments[0] == "sample" and out is not None:
            Path(out).unlink(missing_ok=True)
            Path(f"{out}.manifest.json").unlink(missing_ok=True)


def test_reasons_are_needed(pages: list[Any], not_run: dict[str, str]) -> None:
    lines = [line for page in pages for line in (*(command.line for command in page.commands), *page.python)]
    assert [pattern for pattern in not_run if not any(re.search(pattern, line) for line in lines)] == []


def test_a_page_does_what_it_says(runs: Any, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the folder of a verifier is added to it
    monkeypatch.delitem(sys.modules, "checks", raising=False)
    for text in runs.python:
        if name := re.match(r"# (\w+\.py)\n", text):
            Path(name[1]).write_text(text, encoding="utf-8")
    reader = Reader(runs, prepared)
    for command in runs.commands:
        wrong = reader.type(command)
        assert wrong is None, f"{command.line}\n{wrong}"
    for text in runs.python:
        shutil.rmtree("runs/mine", ignore_errors=True)
        Path("program.py").write_text(text, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            runpy.run_path("program.py")
