"""A run folder made by hand, small enough to work out every figure on paper, and full of text that would run.

Test set "first": 20 problems p0..p19 without groups. Right: base p0 (flexible only), warm-up p0..p4, sampler p0..p9,
delivered p0..p3 and p5..p18. So warm-up 5, delivered 18, delivered alone 14 (p5..p18), warm-up alone 1 (p4).
p0..p4 have a near training question (0.7), the others have none (0.1).
Test set "second": 8 problems in 4 groups of 2, right: warm-up none, delivered q0..q5.

U: u0, u1, u2 (labelled) and u3. Verdicts by k, R right and W wrong, every text differs but for u0's k = 0 and 1:
    for pairs (3 a question, by the warm-up):  u0 RRR  u1 RWR  u2 WWW  u3 WRW
    for labels (2 a question, by DPO):         u0 RR   u1 RR   u2 WR   u3 WW      u0's tokens equal those before
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.recipe import load_config
from selftrain.records import Completion, Example, Pair, Problem, Verdict, write_jsonl
from selftrain.report.write import write_report
from selftrain.rundir import RunDir
from selftrain.stagefolder import write_json

FIRST, SECOND = "first", "second"
BASE, WARMUP, DPO, FINAL = "b" * 64, "c" * 64, "d" * 64, "f" * 64
HOSTILE = (
    "</pre></script><!--<script>window.pwned=1</script><img src=x onerror=window.pwned=2> "
    "\x00\x1b[31m \u202eevil & \u2028"
)
FOR_PAIRS = {"u0": "RRR", "u1": "RWR", "u2": "WWW", "u3": "WRW"}
FOR_LABELS = {"u0": "RR", "u1": "RR", "u2": "WR", "u3": "WW"}

BROUGHT = {
    "file": "<teacher>.jsonl", "sha256": "9" * 64, "rows": 5, "matched": 3, "unmatched": 2, "questions": 2, "right": 1,
    "unparsed": 0, "warnings": [],
}  # fmt: skip


def completion(name: str, k: int, right: bool, *, model: str = "", stage: str = "", flexible: bool | None = None,
               text: str | None = None, token_ids: tuple[int, ...] = (1, 2, 3, 4),
               wrong: str = "W") -> Completion:  # fmt: skip
    """A judged completion of 4 tokens with one call of 2 forced tokens; a wrong answer is `wrong` and its k."""
    answer = "42" if right else f"{wrong}{k}"
    other = right if flexible is None else flexible
    text = f"6*7=<<6*7=42>>42 {name} {k}" if text is None else text
    return Completion(
        name, k, token_ids, text, "eos", ((1, 3),), 1, 0, model, stage,
        Verdict("right" if right else "wrong", answer), Verdict("right" if other else "wrong", answer),
    )  # fmt: skip


class Maker:
    """Writes the stages of the run, in order; `until` names the last one, `right` what the delivered model can."""

    def __init__(self, folder: Path, until: str | None, config: RunConfig, right: set[str] | None = None) -> None:
        self.folder, self.until, self.config, self.stopped = folder, until, config, False
        self.right = ids("p", [0, 1, 2, 3, *range(5, 19)]) if right is None else right

    def make(self) -> Path:
        with RunDir.open(self.folder, self.config) as self.run:
            self.run.journal("weights", name="tiny", source="made up", digest=BASE)
            self.warm_up()
            self.iteration()
            if not self.stopped:
                self.run.journal("delivered", stage="1-iteration/sft", digest=FINAL)
                self.without_calculator()
                self.run.journal("end")
        return self.folder

    def warm_up(self) -> None:
        self.stage("data", self.data)
        self.greedy("0-base", FIRST, BASE, set(), flexible={"p0"})
        examples = [Example(f"u{i}", (1,), (2, 3), "gold") for i in range(3)]
        self.records("0-warmup/select", "examples.jsonl", examples, {"num_right": 0})
        self.training("0-warmup/sft", BASE, WARMUP, steps=4)
        self.greedy("0-warmup", FIRST, WARMUP, ids("p", range(5)))
        self.greedy("0-warmup", SECOND, WARMUP, set())

    def iteration(self) -> None:
        at = "1-iteration"
        self.samples(f"{at}/sample-for-pairs", FOR_PAIRS, WARMUP)
        pairs = [
            Pair("u1", (1, 2), (1, 3), "gold", f"{at}/sample-for-pairs#1", 0.2),
            Pair("u1", (1, 4), (1, 3), f"{at}/sample-for-pairs#0", f"{at}/sample-for-pairs#1", 0.4),
            Pair("u2", (1, 2), (1, 5), "gold", f"{at}/sample-for-pairs#0", 0.1),
        ]
        self.records(f"{at}/pair", "pairs.jsonl", pairs, {"num_exact": 1, "num_near": 2, "over_limit": 0})
        after = {
            "loss": 0.6, "reward_accuracy": 2 / 3, "margin": 0.25, "chosen_change_per_token": -0.01,
            "rejected_change_per_token": -0.3,
        }  # fmt: skip
        self.training(f"{at}/dpo", WARMUP, DPO, steps=2, forward_tokens=60, **after)
        self.greedy(f"{at}/sampler", FIRST, DPO, ids("p", range(10)))
        if not self.stopped:
            self.run.journal("warning", stage=at, message="<i>did next to nothing</i>")
            self.run.journal("warning", stage=at, message="<i>did next to nothing</i>")
        self.samples(f"{at}/sample-for-labels", FOR_LABELS, DPO)
        labels = [
            Example(name, (1,), (2, 4), f"{at}/sample-for-labels#{k}", DPO)
            for name, k in (("u1", 0), ("u1", 1), ("u2", 1))
        ]
        gold = [Example(f"u{i}", (1,), (2, 3), "gold") for i in range(3)]
        noted = {"num_right": 5, "num_exact": 1, "num_near": 0, "num_over_cap": 1, "cap": 3}
        self.records(f"{at}/select", "examples.jsonl", [*gold, *labels], noted)
        self.training(f"{at}/sft", BASE, FINAL, steps=6)
        self.greedy(at, FIRST, FINAL, self.right)
        self.greedy(at, SECOND, FINAL, ids("q", range(6)))

    def without_calculator(self) -> None:
        for place, model, right in (("0-base", BASE, set()), ("final", FINAL, ids("p", range(2)))):
            rows = [completion(f"p{i}", 0, f"p{i}" in right, model=model) for i in range(4)]
            self.records(f"{place}/evaluate-without-calculator/{FIRST}", "completions.jsonl", rows, {})

    def data(self, folder: Path) -> dict[str, Any]:
        train = [Problem(f"u{i}", "6 times 7?", "42", "6*7=<<6*7=42>>42\n#### 42", group=f"g{i}") for i in range(3)]
        write_jsonl(folder / "train.jsonl", train)
        write_jsonl(folder / "unlabelled.jsonl", [Problem("u3", "6 times 7?", "42", group="g3")])
        write_jsonl(folder / "validation.jsonl", list[Problem]())
        first = [
            Problem(f"p{i}", f"{i}: {HOSTILE}", "42" if i else HOSTILE, neighbour=0.7 if i < 5 else 0.1)
            for i in range(20)
        ]
        write_jsonl(folder / f"test-{FIRST}.jsonl", first)
        write_jsonl(
            folder / f"test-{SECOND}.jsonl", [Problem(f"q{i}", "?", "42", group=f"t{i // 2}") for i in range(8)]
        )
        row = {
            "rows": 3, "with_rationale": 3, "groups": 3, "near_copies": 1, "source": "file", "path": "=<a>.jsonl",
            "unusable": {"no <number>": 2}, "too_long": 4, "over_limit": 2, "passed_over": {}, "rows_sha256": "e" * 64,
        }  # fmt: skip
        write_json(folder / "report.json", {"sets": {"train": row, "unlabelled": {**row, "rows": 1}}, "tests": []})
        return {}

    def greedy(self, at: str, test_set: str, model: str, right: set[str], flexible: set[str] | None = None) -> None:
        names = ids("p", range(20)) if test_set == FIRST else ids("q", range(8))
        rows = [
            completion(
                name, 0, name in right, model=model, flexible=None if flexible is None else name in flexible,
                text=f"{HOSTILE} <<6*7=42>>42 {name}", wrong=HOSTILE,
            )
            for name in sorted(names)
        ]  # fmt: skip
        figures = {"prompt_tokens": 100, "generated_tokens": 4 * len(rows)}
        self.records(f"{at}/evaluate/{test_set}", "completions.jsonl", rows, figures, {"model": model})

    def samples(self, stage: str, verdicts: dict[str, str], model: str) -> None:
        rows: list[Completion] = []
        for name, letters in verdicts.items():
            for k, letter in enumerate(letters):
                same = name == "u0" and k < 2
                tokens = (1, 2, 3, 4) if same else (k, len(rows), hash_free(model), 9)
                text = "same" if same else f"{name} {k} {model[:1]}"
                rows.append(completion(name, k, letter == "R", model=model, stage=stage, text=text, token_ids=tokens))
        self.records(stage, "completions.jsonl", rows, {"prompt_tokens": 40, "generated_tokens": 4 * len(rows)})

    def training(self, stage: str, start: str, weights: str, *, steps: int, **final: Any) -> None:
        def work(folder: Path) -> dict[str, Any]:
            log = [{"step": step, "loss": 1.0 / step, **final} for step in range(1, steps + 1)]
            (folder / "train-log.jsonl").write_text("".join(json.dumps({**row, "loss": 0.5}) + "\n" for row in log))
            return {
                "weights": weights, "start_weights": start, "steps": steps, "trained_tokens": 1000, "forward_tokens": 0,
                "parameters": 10, "precision": "fp32", **final,
            }  # fmt: skip

        self.stage(stage, work, {"start": start})

    def records(
        self, stage: str, file: str, rows: Iterable[Any], figures: dict[str, Any], inputs: dict[str, str] | None = None
    ) -> None:
        def work(folder: Path) -> dict[str, Any]:
            write_jsonl(folder / file, rows)
            return figures

        self.stage(stage, work, inputs)

    def stage(self, name: str, work: Callable[[Path], dict[str, Any]], inputs: dict[str, str] | None = None) -> None:
        if self.stopped:
            return
        self.run.stage(name, inputs=inputs or {}, settings={}, work=work)
        self.stopped = name == self.until


class TaughtMaker(Maker):
    """The same run with samples made elsewhere: u0 RW, u1 T (not judged in time); one pair and two labels hold one."""

    def greedy(self, at: str, *arguments: Any, **settings: Any) -> None:
        if at == "0-base":
            late = dataclasses.replace(completion("u1", 0, False), strict=Verdict("timeout"))
            rows = [completion("u0", 0, True), completion("u0", 1, False), late]
            self.records("samples", "completions.jsonl", rows, BROUGHT)
        super().greedy(at, *arguments, **settings)

    def records(self, stage: str, file: str, rows: Iterable[Any], *told: Any) -> None:
        rows = list(rows)
        if file == "pairs.jsonl":
            rows[1] = dataclasses.replace(rows[1], chosen_from="samples#0")
        if stage == "1-iteration/select":
            rows[-2:] = [dataclasses.replace(row, origin=f"samples#{k}") for k, row in enumerate(rows[-2:])]
        super().records(stage, file, rows, *told)


def ids(letter: str, numbers: Iterable[int]) -> set[str]:
    return {f"{letter}{number}" for number in numbers}


def hash_free(digest: str) -> int:
    return ord(digest[0])


def tiny_config(*overrides: str) -> RunConfig:
    tests = f"[{{source: arithmetic, name: {FIRST}}}, {{source: arithmetic, name: '{SECOND}'}}]"
    return load_config("smoke", ["name=tiny", f"data.test={tests}", *overrides])


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The whole run."""
    return Maker(tmp_path / "tiny", None, tiny_config()).make()


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """The whole run, with samples made elsewhere."""
    return TaughtMaker(tmp_path / "taught", None, tiny_config("data.samples=teacher.jsonl")).make()


@pytest.fixture(scope="session")
def hostile_text() -> str:
    """Text that would run, were it not escaped: it stands in questions, answers, rationales and settings."""
    return HOSTILE


@pytest.fixture
def rival(tmp_path: Path) -> Path:
    """Another run on the same test sets, whose delivered model is right on p0..p9 of the first."""
    return Maker(tmp_path / "rival", None, tiny_config("seed=2"), ids("p", range(10))).make()


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole run, in a folder and with a model and settings whose names would run too."""
    config = tiny_config().model_copy(update={"model": f"models/{HOSTILE}", "description": f"'\"{HOSTILE}"})
    folder = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=window.pwned=3>"
    return Maker(folder, None, config).make()


@pytest.fixture(scope="session")
def finished_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the whole run."""
    folder = Maker(tmp_path_factory.mktemp("page") / "tiny", None, tiny_config()).make()
    write_report(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def make_until(tmp_path: Path) -> Callable[[str], Path]:
    """A run that was cut off after a stage."""
    return lambda stage: Maker(tmp_path / "cut", stage, tiny_config()).make()
