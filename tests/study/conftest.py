"""A study whose run folders are made by hand: two test sets, two seeds, three arms with runs and two without.

Test set "first" has 20 problems p0..p19, "second" 8 problems q0..q7 in 4 groups of 2. Every model is right on the first
so many of each: see `RIGHT`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from selftrain.recipe import checked
from selftrain.records import Completion, Problem, Verdict, write_jsonl
from selftrain.report.accuracy import models_of
from selftrain.rundir import RunDir
from selftrain.stagefolder import write_json
from selftrain.study.spec import Study, StudyRun, runs_of

TINY = """
name: tiny
description: made by <hand>
recipe: smoke
overrides: {data.test: [{source: arithmetic, name: first}, {source: arithmetic, name: second}]}
seeds: [1, 2]
arms:
  sft: "main:warm-up"
  st-matched: "main:st-matched"
  main: {baselines: [st-matched]}
  k9: {sampling.samples_for_labels: 9}
  again: {seeds: [3, 4]}
reference: main
paper: {random-llama: {k9: {first: 50.0}, main: {first: 90.0}}}
"""
SIZES = {"first": ("p", 20), "second": ("q", 8)}
RIGHT = {  # arm and model -> how many of `first`, of `second`
    ("main", "warm-up"): (4, 0), ("main", "st-matched"): (9, 2), ("main", "delivered"): (8, 4),
    ("k9", "delivered"): (14, 4), ("again", "delivered"): (8, 5),
}  # fmt: skip


@dataclasses.dataclass
class Making:
    """What a run folder holds; the defaults are a whole run."""

    right: Mapping[tuple[str, str], tuple[int, int]] = dataclasses.field(default_factory=lambda: dict(RIGHT))
    question: str = "How many?"
    rows: int = 20  # of `first`
    trained_on: str = "t" * 64
    matched_samples: int = 40  # that st-matched drew; main draws 16 + 24
    without: int | None = None  # right answers to `first` of the delivered model without its calculator, where asked
    whole: bool = True  # false: it stops after the warm-up's evaluations


class Make(Protocol):
    """Makes a run's folder."""

    def __call__(self, run: StudyRun, **different: Any) -> None: ...


def make_run(run: StudyRun, **different: Any) -> None:
    """Write the folder of a run."""
    making = Making(**different)
    with RunDir.open(run.folder, run.config) as folder:

        def data(at: Path) -> dict[str, Any]:
            for name in ("first", "second"):
                letter, size = SIZES[name] if name == "second" else ("p", making.rows)
                problems = [
                    Problem(f"{letter}{i}", making.question, "42", group=f"t{i // 2}" if name == "second" else None)
                    for i in range(size)
                ]
                write_jsonl(at / f"test-{name}.jsonl", problems)
            write_json(at / "report.json", {"sets": {"train": {"rows_sha256": making.trained_on}}})
            return {}

        def figures(stage: str, **told: Any) -> None:
            folder.stage(stage, inputs={}, settings={}, work=lambda _: told)

        folder.stage("data", inputs={}, settings={}, work=data)
        for model in models_of(run.config):
            if model.kind in ("base", "sampler") or (model.kind != "warm-up" and not making.whole):
                continue
            drawn = {"pairs": 16, "labels": 24} if model.kind == "iteration" else {"labels": making.matched_samples}
            for kind, number in drawn.items() if model.kind != "warm-up" else ():
                figures(f"{model.at}/sample-for-{kind}", completions=number, generated_tokens=number)
            figures(f"{model.at}/sft", steps=6, trained_tokens=100, parameters=10, weights="f" * 64)
            key = "delivered" if model.kind == "iteration" else model.key
            for test_set, number in zip(run.config.data.test, making.right.get((run.arm, key), (0, 0)), strict=False):
                answer(folder, model.stage(test_set.label), test_set.label, number, making.rows)
        if making.whole:
            if making.without is not None:
                answer(folder, "final/evaluate-without-calculator/first", "first", making.without, making.rows)
            folder.journal("delivered", stage="1-iteration/sft", digest="f" * 64)
            folder.journal("end")


def answer(folder: RunDir, stage: str, name: str, num_right: int, rows: int) -> None:
    letter, size = SIZES[name]
    completions = [
        Completion(f"{letter}{i}", 0, (1, 2), "", "eos", (), 0, 0, "", stage, *[verdict(i < num_right)] * 2)
        for i in range(min(size, rows))
    ]

    def work(at: Path) -> dict[str, Any]:
        write_jsonl(at / "completions.jsonl", completions)
        return {}

    folder.stage(stage, inputs={}, settings={}, work=work)


def verdict(right: bool) -> Verdict:
    return Verdict("right" if right else "wrong", "42" if right else "41")


@pytest.fixture
def tiny() -> Study:
    """The study."""
    return checked(Study, yaml.safe_load(TINY))


@pytest.fixture
def runs(tiny: Study, tmp_path: Path) -> list[StudyRun]:
    """Its runs, none of them made yet."""
    return runs_of(tiny, tmp_path / "study-tiny")


@pytest.fixture(scope="session")
def make() -> Make:
    """Makes a run's folder."""
    return make_run


@pytest.fixture
def made(runs: list[StudyRun]) -> list[StudyRun]:
    """Its runs, all made."""
    for run in runs:
        make_run(run)
    return runs
