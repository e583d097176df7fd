"""The whole training benchmark on a random two-layer model: run, resume, check; TRL's part where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.child import Job, launch
from benchmarks.systems import Setup
from benchmarks.training import main, options_from
from benchmarks.training_rivals import TRAINERS, body_and_head, trl_settings
from benchmarks.training_work import objective_of, rival_rows, tasks_of
from selftrain.errors import ConfigError
from selftrain.models import load_model

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install -e '.[dev]'"
)
OURS = ("dpo", "dpo-rows", "single", "sft")


Make = Callable[..., Any]


def arguments(run: Path, work: Path, out: Path, systems: tuple[str, ...], *more: str) -> list[str]:
    return [
        "--run", str(run), "--work", str(work), "--out", str(out), "--systems", ",".join(systems), "--repetitions",
        "2", "--budget-tokens", "300", "--threads", "1", "--device", "cpu", "--precision", "fp32", *more,
    ]  # fmt: skip


def test_run_resume_and_check(
    in_process: Make, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, work = tmp_path / "results.json", tmp_path / "work"
    first = in_process()
    assert main(arguments(run_folder, work, out, OURS), first) == 0
    assert first.names[1:] == [f"{name}-train-0-0" for name in OURS] + [f"{name}-train-0-1" for name in OURS[::-1]]
    shown = capsys.readouterr().out
    assert "selftrain, rows" in shown
    content = json.loads(out.read_text())
    records = {name: rows["0"] for name, rows in content["records"].items()}
    assert set(records) == set(OURS)
    assert records["dpo"]["tokens"] == records["dpo-rows"]["tokens"] == records["dpo"]["computed_tokens"]
    assert records["dpo-rows"]["computed_tokens"] > records["dpo"]["computed_tokens"]
    assert records["single"]["pairs"] == 4 * records["single"]["steps"] > records["sft"]["pairs"] == 0
    for name, record in records.items():
        assert record["training_seconds"] > 0
        assert (record["reference_seconds"] > 0) == (record["after_seconds"] > 0) == (name != "sft")
        assert 0 < record["micro_batch_tokens"] <= record["computed_tokens"]
    assert not any(str(folder) in out.read_text() for folder in (run_folder, tmp_path))

    del content["records"]["sft"]["1"]
    out.write_text(json.dumps(content))
    second = in_process()
    assert main(arguments(run_folder, work, out, OURS, "--check"), second) == 1
    assert second.names == ["sft-train-0-1"]
    missed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missed: ")]
    assert any(line.startswith("missed: SFT, share of the roofline: not measured (2 of 3") for line in missed)


def test_other_work_is_refused(
    in_process: Make, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    assert main(arguments(run_folder, tmp_path, out, ("sft",)), in_process()) == 0
    again = in_process()
    assert main(arguments(run_folder, tmp_path, out, ("sft",), "--budget-tokens", "600"), again) == 2
    assert "holds results of something else" in capsys.readouterr().err
    assert again.names == []


@needs_trl
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_on_the_same_work(in_process: Make, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    systems = ("dpo", "dpo-trl", "single-trl", "sft", "sft-trl", "sft-trl-packed")
    options = arguments(run_folder, tmp_path, out, systems)
    assert main([*options, "--repetitions", "1"], in_process()) == 0
    content = json.loads(out.read_text())
    assert content["failures"] == {}
    records = {name: rows["0"] for name, rows in content["records"].items()}
    assert records["dpo"]["pairs"] == records["dpo-trl"]["pairs"]
    assert records["dpo"]["flops"] == records["dpo-trl"]["flops"]
    assert records["sft"]["tokens"] == records["sft-trl"]["tokens"]
    assert records["sft"]["steps"] == records["sft-trl"]["steps"]
    assert records["dpo-trl"]["computed_tokens"] > records["dpo"]["computed_tokens"]
    assert records["sft-trl-packed"]["computed_tokens"] == records["sft-trl-packed"]["tokens"] > 0
    assert records["dpo-trl"]["reference_seconds"] > 0
    assert records["sft-trl"]["reference_seconds"] == 0
    assert "trl" in records["dpo-trl"]["versions"]
    settings = records["dpo-trl"]["settings"]
    assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] == 4
    assert str(tmp_path) not in out.read_text()


def test_a_rival_that_fails_is_named_and_not_tried_again(
    in_process: Make, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(system: str) -> str:
        return "ended with code 9: killed" if "trl" in system else ""

    out = tmp_path / "results.json"
    options = arguments(run_folder, tmp_path, out, ("sft", "sft-trl"))
    assert main(options, in_process(broken)) == 0
    assert "not measured: sft, TRL SFTTrainer: ended with code 9: killed" in capsys.readouterr().out
    again = in_process(broken)
    assert main(options, again) == 0
    assert again.names == []
    assert main([*options, "--retry"], again) == 0
    assert again.names == ["sft-trl-train-0-0"]


def test_trls_settings(run_folder: Path) -> None:
    tasks = tasks_of(run_folder, None, ["dpo", "sft"], 300, lambda _: None)
    for name, task in tasks.items():
        rows = rival_rows(objective_of(task, 0, "rows"))
        found = trl_settings(task, rows, packed=False)
        assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == 4
        assert found.get("precompute_ref_log_probs", False) == (name == "dpo")
    lengths = [len(row["input_ids"]) for row in rows]
    packed = trl_settings(tasks["sft"], rows, packed=True)
    assert packed["max_length"] == 128
    assert packed["gradient_accumulation_steps"] == max(1, round(4 * sum(lengths) / len(lengths) / 128))


def test_the_embedding_multiplies_nothing(run_folder: Path) -> None:
    module: Any = load_model(run_folder / "model", digest="").module
    body, head = body_and_head(module)
    total = sum(parameter.numel() for parameter in module.parameters())
    assert head == module.config.vocab_size * 64
    assert body == total - head  # tied: the table counts once, as the head
    module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone())
    assert body_and_head(module) == (body, head)


def test_a_child_process_trains(run_folder: Path, tmp_path: Path) -> None:
    task = tasks_of(run_folder, None, ["dpo"], 300, lambda _: None)["dpo"]
    job = Job(Setup("dpo", 0, 1, "cpu", "fp32", 1), str(task.save(tmp_path)), "train", 0, "train")
    found = launch(job, sys.executable, tmp_path, 120)
    assert 0 < found["seconds"] < 120
    assert found["seconds"] == found["training_seconds"] + found["reference_seconds"]
    assert found["peak_memory_bytes"] > 10_000_000


def test_quick_is_one_short_repetition(tmp_path: Path) -> None:
    quick, full = (options_from(["--run", str(tmp_path), "--device", "cpu", *more]) for more in (["--quick"], []))
    assert quick.repetitions == 1
    assert quick.budget_tokens < full.budget_tokens
    assert "dpo-rows" not in quick.systems
    assert full.systems == tuple(name for name in TRAINERS if not name.endswith("compiled"))
    assert quick.out != full.out


def test_an_unknown_system_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'dpo-trl'"):
        options_from(["--run", str(tmp_path), "--systems", "dpo-tr"])
