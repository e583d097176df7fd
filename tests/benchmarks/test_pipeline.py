"""A whole iteration of each on the two-layer model of `smoke`, and the command around it with results made up."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.child import ChildError, Job
from benchmarks.pipeline import main, options_from
from benchmarks.pipeline_table import missed, summary, text
from benchmarks.pipeline_work import (
    OURS,
    PHASES,
    RIVAL,
    compare,
    iteration_task,
    load_iteration_task,
    one_iteration,
    refuse_what_differs,
)
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, RunError
from selftrain.recipe import load_config
from selftrain.records import Problem
from selftrain.stagefolder import read_json, write_json

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install -e '.[dev]'"
)
COMPUTE = {"device": "cpu", "precision": "fp32", "threads": 1}
SMALL = (
    "data.train.params.size=12", "data.unlabelled.params.size=6", "sampling.max_new_tokens=16",
    "sampling.samples_for_pairs=2", "sampling.samples_for_labels=2", "training.sft.epochs=2",
    "training.sft.batch_size=5", "training.dpo.batch_size=4", "training.dpo.max_steps=3",
)  # fmt: skip
COUNTS = {
    "sample-for-pairs": {"completions": 36, "tokens": 400, "right": 9, "cut": 0},
    "pair": {"pairs": 20}, "dpo": {"steps": 3},
    "sample-for-labels": {"completions": 36, "tokens": 420, "right": 12, "cut": 1},
    "select": {"examples": 20, "labels": 8}, "sft": {"steps": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's configuration, and nothing else."""
    folder = tmp_path_factory.mktemp("run")
    write_json(folder / "config.yaml", load_config("smoke", SMALL).model_dump(mode="json"))  # JSON is YAML
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """Where the warm-up is kept, once made."""
    folder = tmp_path_factory.mktemp("work")
    iteration_task("", run, COMPUTE, folder, lambda _: None)
    return folder


class Told:
    """Answers jobs with results made up: so many seconds a phase, and these verdicts."""

    def __init__(self, seconds: dict[str, float], verdicts: dict[str, str], broken: str = "") -> None:
        self.seconds, self.verdicts, self.broken = seconds, verdicts, broken
        self.jobs: list[Job] = []

    def __call__(self, job: Job, python: str, folder: Path, limit_s: float) -> dict[str, Any]:
        if job.kind == "peak":
            return {"fp32": 1e11, "bf16": 1e9}
        self.jobs.append(job)
        system = job.setup.system
        if system == self.broken:
            raise ChildError("ended with code 1: no memory")
        return {
            "phases": dict.fromkeys(PHASES, self.seconds[system]), "work": COUNTS, "settings": {"rows": job.setup.rows},
            "peak_memory_bytes": 10**9, "verdicts": self.verdicts[system], "versions": {"trl": "1.16.0"},
        }  # fmt: skip


def arguments(run: Path, work: Path, out: Path, *more: str) -> list[str]:
    return [
        "--run", str(run), "--work", str(work), "--out", str(out), "--device", "cpu", "--precision", "fp32",
        "--threads", "1", *more,
    ]  # fmt: skip


ALL_RIGHT, NONE_RIGHT = "1" * 32, "0" * 32


def test_run_resume_and_table(run: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    first = Told({OURS: 1.0, RIVAL: 3.0}, {OURS: ALL_RIGHT, RIVAL: ALL_RIGHT[:-1] + "0"})
    assert main(arguments(run, work, out, "--check"), first) == 0
    assert [(job.setup.system, job.setup.rows, job.kind) for job in first.jobs] == [
        (OURS, 0, "iteration"),
        (RIVAL, 64, "iteration"),
    ]
    shown = capsys.readouterr().out.splitlines()
    assert next(line.split()[:4] for line in shown if line.startswith("sft")) == ["sft", "1.0", "3.0", "3.00"]
    assert next(line.split()[:4] for line in shown if line.startswith("all")) == ["all", "6.0", "18.0", "3.00"]
    assert any(line.startswith("an iteration over TRL and generate") and line.endswith("met") for line in shown)
    assert any("100.0 and 96.9 % right, +3.1 points" in line for line in shown)
    written = out.read_text()
    assert not any(str(folder) in written for folder in (run, work, tmp_path))

    again = Told({OURS: 1.0, RIVAL: 2.0}, {OURS: ALL_RIGHT, RIVAL: ALL_RIGHT})
    assert main(arguments(run, work, out), again) == 0
    assert again.jobs == []
    assert main(arguments(run, work, out, "--rows", "8", "--check"), again) == 1  # another batch: the rival again
    assert [(job.setup.system, job.setup.rows) for job in again.jobs] == [(RIVAL, 8)]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missed: ")]
    assert lines == ["missed: an iteration over TRL and generate: 2 (2 to 2 in 1), target at least 2.5"]


def test_lower_accuracy_is_a_miss(run: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = Told({OURS: 1.0, RIVAL: 3.0}, {OURS: NONE_RIGHT, RIVAL: ALL_RIGHT})
    assert main(arguments(run, work, tmp_path / "results.json", "--check"), worse) == 1
    shown = capsys.readouterr().out
    assert "accuracy, MISSED: 0.0 and 100.0 % right" in shown
    assert "missed: equal accuracy: 0.0 and 100.0 % right, -100.0 points" in shown


def test_a_rival_that_fails_is_a_miss_and_not_tried_again(
    run: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    broken = Told({OURS: 1.0}, {OURS: ALL_RIGHT}, broken=RIVAL)
    assert main(arguments(run, work, out, "--check"), broken) == 1
    shown = capsys.readouterr().out
    assert "not measured: TRL and generate: ended with code 1: no memory" in shown
    assert "missed: equal accuracy: not measured" in shown
    assert main(arguments(run, work, out), broken) == 0
    assert main(arguments(run, work, out, "--retry"), broken) == 0
    assert [job.setup.system for job in broken.jobs] == [OURS, RIVAL, RIVAL]
    assert main(arguments(run, work, out, "--systems", OURS, "--check"), broken) == 0


def test_a_task_travels_and_is_named_by_what_decides_it(run: Path, work: Path, tmp_path: Path) -> None:
    task = iteration_task("", run, COMPUTE, work, lambda _: None)
    assert load_iteration_task(task.save(tmp_path)) == task
    assert task.facts()["questions"] == 18
    assert task.facts()["test"] == [{"name": "made-up", "rows": 32}]
    text_of_facts = json.dumps(task.facts())
    assert str(work) not in text_of_facts and str(run) not in text_of_facts
    other = load_config("smoke", [*SMALL, "training.dpo.beta=0.2"])
    changed = one_iteration(other, COMPUTE).model_dump(mode="json")
    assert type(task)(**{**vars(task), "config": changed}).fingerprint() != task.fingerprint()
    assert type(task)(**{**vars(task), "model": "elsewhere"}).fingerprint() == task.fingerprint()


def test_weights_that_a_run_kept_are_taken(run: Path, work: Path, tmp_path: Path) -> None:
    made = Path(iteration_task("", run, COMPUTE, work, lambda _: None).run)
    before = (made / "0-warmup" / "sft" / "manifest.json").stat().st_mtime_ns
    task = iteration_task("", made, COMPUTE, tmp_path, lambda _: None)
    assert Path(task.run).parent == tmp_path
    taken = Path(task.run) / "0-warmup" / "sft" / "manifest.json"
    assert taken.stat().st_mtime_ns == before  # copied, not trained again
    assert read_json(taken)["figures"]["weights"] == task.digest


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        iteration_task("", tmp_path, COMPUTE, tmp_path, lambda _: None)


@pytest.mark.parametrize(
    "setting",
    ["training.dpo.loss=ipo", "training.lora.rank=4", "sampling.top_k=50", "sampling.calculator=false", "data.test=[]"],
)
def test_what_the_rival_cannot_do_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        refuse_what_differs(one_iteration(load_config("smoke", [setting]), COMPUTE))


def test_one_iteration_without_decisions() -> None:
    config: RunConfig = one_iteration(load_config("quickstart", ["method=st", "schedule.iterations=3"]), COMPUTE)
    assert (config.method, config.schedule.iterations, config.guard.enabled) == ("dpo-st", 1, False)
    assert [spec.label for spec in config.data.test] == ["known-templates"]
    assert config.data.validation is None
    assert (config.compute.device, config.compute.threads) == ("cpu", 1)
    refuse_what_differs(config)


def test_unknown_systems_are_explained(run: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'iteration-hf'"):
        options_from(["--run", str(run), "--systems", "iteration-h"])


# --- Accuracies beside each other ---


def problems(groups: Sequence[str | None]) -> list[Problem]:
    return [Problem(f"p{number}", "?", "1", group=group) for number, group in enumerate(groups)]


def test_the_interval_decides() -> None:
    alone = problems([None] * 60)
    near = compare({"0": {"verdicts": "1" * 40 + "0" * 20}}, {"0": {"verdicts": "1" * 42 + "0" * 18}}, alone)
    far = compare({"0": {"verdicts": "1" * 20 + "0" * 40}}, {"0": {"verdicts": "1" * 42 + "0" * 18}}, alone)
    assert near is not None and far is not None
    assert near["accuracies"] == [pytest.approx(2 / 3), pytest.approx(0.7)]
    assert near["low"] < 0 <= near["high"]
    assert far["high"] < 0
    assert not near["clustered"]


def test_groups_and_repetitions_count_together() -> None:
    both = {"0": {"verdicts": "1100"}, "1": {"verdicts": "1000"}}
    other = {"0": {"verdicts": "0000"}, "1": {"verdicts": "0000"}, "2": {"verdicts": "1111"}}
    pooled = compare(both, other, problems([None] * 4))
    assert pooled is not None
    assert (pooled["repetitions"], pooled["num"], pooled["num_groups"]) == (2, 8, 4)
    assert pooled["difference"] == pytest.approx(3 / 8)
    by_template = compare(both, other, problems(["a", "a", "b", "b"]))
    assert by_template is not None and by_template["num_groups"] == 2
    assert compare(both, {}, problems([None] * 4)) is None


def test_nothing_measured_is_no_table_and_a_miss() -> None:
    environment = {"cpu": "A processor", "cores": 2, "python": "3.11", "packages": {}, "system": "Linux"}
    content = {
        "setup": {"device": "cpu", "precision": "fp32", "threads": 2, "environment": environment},
        "tasks": {"iteration": {
            "questions": 18, "labelled": 12, "samples": [2, 2], "temperature": 0.7, "max_new_tokens": 16,
            "test": [{"name": "made-up", "rows": 32}], "fingerprint": "f00", "weights": "abc",
        }},
        "matrix_peak": {}, "records": {}, "failures": {},
    }  # fmt: skip
    assert len(missed(content, (OURS, RIVAL))) == 2
    assert missed(content, (OURS,)) == []
    assert text(content, (OURS, RIVAL)).startswith("18 questions (12 labelled), 2 and 2 samples each")


def test_a_records_time_is_that_of_all_phases() -> None:
    record = summary({"phases": dict.fromkeys(PHASES, 60.0)}, rows=64)
    assert (record["seconds"], record["iterations_per_h"], record["rows"]) == (360.0, 10.0, 64)


# --- Both for real ---


@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_a_whole_iteration_of_each(
    in_process: Callable[..., Any], run: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    assert main(arguments(run, work, out, "--rows", "7"), in_process()) == 0
    content = json.loads(out.read_text())
    assert content["failures"] == {}
    ours, theirs = (content["records"][name]["0"] for name in (OURS, RIVAL))
    for record in (ours, theirs):
        assert list(record["phases"]) == list(PHASES)
        assert min(record["phases"].values()) > 0
        assert record["seconds"] == pytest.approx(sum(record["phases"].values()), abs=0.01)
        assert len(record["verdicts"]) == 32
        assert record["work"]["sample-for-pairs"]["completions"] == 36
        assert record["work"]["dpo"]["steps"] > 0
        examples = record["work"]["select"]["examples"]
        assert record["work"]["sft"]["steps"] == -(-2 * examples // 5)  # two epochs, the last batch incomplete
    assert theirs["settings"]["dpo"]["precompute_ref_log_probs"] is True
    assert theirs["settings"]["sft"]["packing"] is False
    assert content["accuracy"]["num"] == 32
    assert not any(str(folder) in out.read_text() for folder in (run, work, tmp_path))
    assert "rival's packages: " in capsys.readouterr().out
