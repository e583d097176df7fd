"""The two-layer model of `smoke` after its warm-up, made once, a run's folder to train from, and results as a file
would hold them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.child import ChildError, Job, job_from, run_job
from benchmarks.work import Settings, Task, main_task
from selftrain.data.arithmetic import problems
from selftrain.models import load_tokenizer
from selftrain.prompts import Codec
from selftrain.recipe import load_config
from selftrain.records import Example, Pair, write_jsonl
from selftrain.stagefolder import write_json
from selftrain.toy import make_toy

Content = dict[str, Any]
SMALL = ("training.sft.batch_size=4", "training.dpo.batch_size=4", "training.micro_batch_tokens=128")


class InProcess:
    """Does jobs here, through the JSON that a child would get, and counts them; `broken` systems fail as it says."""

    def __init__(self, broken: Callable[[str], str] = lambda system: "") -> None:
        self.broken = broken
        self.names: list[str] = []

    def __call__(self, job: Job, python: str, folder: Path, limit_s: float) -> dict[str, Any]:
        self.names.append(job.name)
        if job.kind == "peak":
            return {"fp32": 1e11, "bf16": 1e9}
        if reason := self.broken(job.setup.system):
            raise ChildError(reason)
        written = json.loads(json.dumps(dataclasses.asdict(job)))
        found: dict[str, Any] = json.loads(json.dumps(run_job(job_from(written))))
        return found


@pytest.fixture
def in_process() -> Callable[..., InProcess]:
    """Makes what `main` starts jobs with."""
    return InProcess


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the benchmark keeps its models."""
    return tmp_path_factory.mktemp("benchmark")


@pytest.fixture(scope="session")
def task(work: Path) -> Task:
    """Six made-up problems, two samples each."""
    settings = Settings("smoke", None, work, None, num_problems=6, num_search=4, samples=2, max_new_tokens=32)
    return main_task(settings, lambda message: None)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of `smoke` leaves, without running it: a random model, 12 questions with 1 to 2 pairs, 12 examples."""
    folder = tmp_path_factory.mktemp("run")
    config = load_config("smoke", SMALL)
    write_json(folder / "config.yaml", config.model_dump(mode="json"))  # JSON is YAML
    make_toy("random-llama", folder / "model")
    codec = Codec.build(load_tokenizer(folder / "model"), config.prompt, False)
    found = problems(seed=5, size=16)
    asked, others = found[:12], found[12:]
    for name, rows in (("train", asked[:6]), ("unlabelled", asked[6:]), ("validation", [])):
        write_jsonl(folder / "data" / f"{name}.jsonl", rows)
    write_json(folder / "data" / "report.json", {"tests": []})
    targets = {problem.id: codec.target(problem.rationale or "") for problem in asked}
    wrong = [(9, *codec.target(problem.rationale or "")) for problem in others]
    pairs = [
        Pair(problem.id, targets[problem.id], wrong[(number + shift) % 4], "gold", "s#0", 0.1)
        for number, problem in enumerate(asked)
        for shift in range(1 + number % 2)
    ]
    examples = [Example(p.id, codec.prompt(p.question), targets[p.id], "gold") for p in asked]
    write_jsonl(folder / "1-iteration" / "pair" / "pairs.jsonl", pairs)
    write_jsonl(folder / "1-iteration" / "select" / "examples.jsonl", examples)
    return folder


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    """A repetition's record by its speed."""

    def make(rate: float, **changes: Any) -> dict[str, Any]:
        record = {
            "rows": 64, "seconds": 1000 / rate, "completions": 1000, "tokens": 100_000, "completions_per_s": rate,
            "tokens_per_s": 100 * rate, "mean_tokens": 100.0, "sd_tokens": 50.0, "cut": 10, "judged": 1000,
            "right": 150, "annotations": 2000, "annotations_right": 2000, "peak_memory_bytes": 2_000_000_000,
        }  # fmt: skip
        return {**record, **changes}

    return make


@pytest.fixture
def make_content(make_record: Callable[..., dict[str, Any]]) -> Callable[..., Content]:
    """A results file's content from rates: make_content(ours=[4.0, 4.2], hf=[1.0, 1.1])."""

    def make(**rates: list[float]) -> Content:
        environment = {
            "cpu": "A processor",
            "cores": 2,
            "python": "3.11",
            "packages": {"torch": "2"},
            "system": "Linux",
        }
        task = {
            "questions": {"gsm_symbolic": 128}, "samples": 4, "temperature": 0.7, "max_new_tokens": 300,
            "weights": "abc", "notes": [],
        }  # fmt: skip
        records = {
            system.replace("_", "-"): {
                str(number): make_record(rate, parameters=100_000_000) for number, rate in enumerate(found)
            }
            for system, found in rates.items()
        }
        return {
            "setup": {"device": "cpu", "precision": "fp32", "threads": 2, "environment": environment},
            "tasks": dict.fromkeys(("main", "smoke", "t5"), task),
            "matrix_peak": {"fp32": 2e11, "bf16": 1e9},
            "batches": {},
            "records": records,
            "failures": {},
        }

    return make
