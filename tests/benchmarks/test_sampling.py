"""The whole benchmark on a two-layer model: run, resume, check; and jobs in processes of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.child import ChildError, Job, launch
from benchmarks.sampling import main, options_from
from benchmarks.systems import Setup
from benchmarks.work import Task
from selftrain.errors import ConfigError

Make = Callable[..., Any]


def arguments(work: Path, out: Path, *more: str) -> list[str]:
    return [
        "--recipe", "smoke", "--work", str(work), "--out", str(out), "--problems", "4", "--samples", "2",
        "--max-new-tokens", "32", "--repetitions", "2", "--pairs", "2", "--threads", "1", "--device", "cpu",
        "--systems", "ours,ours-plain,hf-calculator,hf", "--batch", "ours=4", "--batch", "hf-calculator=2", *more,
    ]  # fmt: skip


def test_run_resume_and_check(in_process: Make, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    first = in_process()
    assert main(arguments(work, out), first) == 0
    shown = capsys.readouterr().out
    assert "selftrain, calculator off" in shown
    assert "a. generate, decoding calculator" in shown
    assert sum("-work-" in name for name in first.names) == 8
    assert any(name.startswith("hf-search-64") for name in first.names)

    content = json.loads(out.read_text())
    assert {name: len(rows) for name, rows in content["records"].items()} == {
        "ours": 2, "ours-plain": 2, "hf-calculator": 2, "hf": 2,
    }  # fmt: skip
    ours = content["records"]["ours"]["0"]
    assert ours["completions"] == 8
    assert ours["annotations_right"] == ours["annotations"] > 0
    assert content["records"]["ours-plain"]["0"]["rows"] == 4
    assert str(tmp_path.parent) not in out.read_text()
    assert str(work) not in out.read_text()

    del content["records"]["hf"]["1"]
    out.write_text(json.dumps(content))
    second = in_process()
    assert main(arguments(work, out, "--check"), second) == 1
    assert [name.partition("-work")[0] for name in second.names] == ["hf"]
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missed: ")]
    assert any("b. generate: not measured (2 of 3 repetitions measured)" in line for line in missed)


def test_a_rival_that_fails_is_named_and_the_others_go_on(
    in_process: Make, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(system: str) -> str:
        return "ended with code 9: killed" if system.startswith("hf") else ""

    out = tmp_path / "results.json"
    start = in_process(broken)
    assert main(arguments(work, out), start) == 0
    assert "not measured: b. generate: ended with code 9: killed" in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert set(content["failures"]) == {"hf", "hf-calculator"}
    assert set(content["records"]) == {"ours", "ours-plain"}
    again = in_process(broken)
    assert main(arguments(work, out), again) == 0
    assert again.names == []
    assert main(arguments(work, out, "--retry"), again) == 0
    assert {name.partition("-work")[0].partition("-search")[0] for name in again.names} == {"hf", "hf-calculator"}


def test_quick_is_ours_and_the_papers_way() -> None:
    options = options_from(["--quick", "--device", "cpu"])
    assert options.systems == ("ours", "hf-calculator")
    assert options.settings.num_problems * options.settings.samples == 96
    assert (options.repetitions, options.pairs) == (1, 1)
    assert set(options.batches) == set(options.systems)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["--systems", "our"], "Did you mean 'ours'"),
        (["--systems", "vllm"], "--vllm-python"),
        (["--batch", "ours"], "SYSTEM=ROWS"),
        (["--batch", "mine=4"], "No system is called 'mine'"),
    ],
)
def test_bad_options_are_explained(line: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        options_from(line)


def job(task: Task, work: Path) -> Job:
    return Job(Setup("ours", 4, 2, "cpu", "fp32", 1), str(task.save(work)), "search", 0)


def test_a_child_process_samples(task: Task, work: Path) -> None:
    found = launch(job(task, work), sys.executable, work, 120)
    assert len(found["token_ids"]) == 2 * len(task.search)
    assert 0 < found["seconds"] < 120
    assert found["peak_memory_bytes"] > 10_000_000
    assert "torch" in found["versions"]


def test_a_child_that_fails_or_hangs_says_so(task: Task, work: Path, tmp_path: Path) -> None:
    failing, hanging = tmp_path / "failing", tmp_path / "hanging"
    failing.write_text("#!/bin/sh\necho 'OSError: /somewhere/deep/model.bin is missing'\nexit 3\n")
    hanging.write_text("#!/bin/sh\nexec sleep 20\n")
    for script in (failing, hanging):
        script.chmod(0o755)
    with pytest.raises(ChildError, match=r"^ended with code 3: OSError: model\.bin is missing$"):
        launch(job(task, work), str(failing), work, 60)
    with pytest.raises(ChildError, match="not done after 0 s"):
        launch(job(task, work), str(hanging), work, 0.2)
