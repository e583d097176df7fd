"""The whole loop in two processes on the CPU, started by accelerate or by torchrun: the samples of one process, and its
models but for rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

Environment = Callable[[], dict[str, str]]
SETTINGS = [
    "compute.precision=fp32",
    "sampling.shard_questions=8",
    "training.micro_batch_tokens=256",
    "checkpoints.keep=all",
]


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0")


def launch(
    out: Path, environment: dict[str, str], launcher: Sequence[str] = (), *settings: str, recipe: str = "smoke"
) -> subprocess.CompletedProcess[str]:
    command = ["-m", "selftrain", "run", recipe, *SETTINGS, *settings, "--out", str(out)]
    return subprocess.run(
        [sys.executable, *launcher, *command],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cli_environment: Environment) -> dict[int, Path]:
    made = {}
    for num_processes, launcher in ((1, ()), (2, ACCELERATE)):
        out = tmp_path_factory.mktemp("processes") / "run"
        done = launch(out, cli_environment(), launcher)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("On ") >= 1 and done.stderr.count("0-warmup/sft") >= 1
        made[num_processes] = out
    return made


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_process_alone_writes(runs: dict[int, Path]) -> None:
    journals = {number: rows(run / "journal.jsonl") for number, run in runs.items()}
    starts = {
        number: [e["stage"] for e in journal if e["event"] == "stage-start"] for number, journal in journals.items()
    }
    assert starts[1] == starts[2]
    assert len({event["pid"] for event in journals[2] if event["event"] == "start"}) == 1


@pytest.mark.parametrize(
    ("stage", "start", "bound"), [("0-warmup/sft", "base", 1e-4), ("1-iteration/dpo", "0-warmup/sft/model", 5e-3)]
)
def test_training_is_that_of_one_process(runs: dict[int, Path], stage: str, start: str, bound: float) -> None:
    """Same steps, same losses: the micro-batches of a step are shared out, and their gradients summed.

    The weights differ by a small part of what the training moved; AdamW makes steps of the smallest gradients too.
    """
    logs = [rows(run / stage / "train-log.jsonl") for run in runs.values()]
    assert max(row["padded_tokens"] for row in logs[0]) > 2 * 256  # three micro-batches: the two do not share evenly
    assert len(logs[0]) == len(logs[1]) > 3
    for one, two in zip(*logs, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert two["tokens"] == one["tokens"]
    if stage == "1-iteration/dpo":
        pairs = [rows(run / "1-iteration/pair/pairs.jsonl") for run in runs.values()]
        assert pairs[0] == pairs[1]
    one, two = (load_file(run / stage / "model/model.safetensors") for run in runs.values())
    before = load_file(runs[1] / start / "model.safetensors")
    moved, apart = (sum(float((one[n] - other[n]).square().sum()) for n in one) ** 0.5 for other in (before, two))
    assert 0 < apart < bound * moved


def test_samples_do_not_depend_on_the_number_of_processes(runs: dict[int, Path]) -> None:
    """The base model's completions are equal to the token, in the same order."""
    found = [rows(run / "0-base/evaluate" / name / "completions.jsonl") for run in runs.values() for name in sets(run)]
    assert found[0] and found[0] == found[1]


def sets(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "0-base/evaluate").iterdir())


def test_a_finished_run_is_found_finished_by_both(runs: dict[int, Path], cli_environment: Environment) -> None:
    before = os.stat(runs[2] / "1-iteration/sft/manifest.json").st_mtime_ns
    assert launch(runs[2], cli_environment(), TORCHRUN).returncode == 0
    assert os.stat(runs[2] / "1-iteration/sft/manifest.json").st_mtime_ns == before


SHORT = ["training.sft.max_steps=4", "training.dpo.max_steps=3", "data.test=[]", "data.validation=null"]


@pytest.mark.parametrize("recipe", ["smoke", "smoke-t5"])
def test_sharded_weights_train_as_whole_ones(recipe: str, tmp_path: Path, cli_environment: Environment) -> None:
    """FSDP2 over two processes gives the losses and weights of one, gradient checkpointing included."""
    runs = {}
    sharded = ["training.sharded=true", "training.gradient_checkpointing=true"]
    for number, launcher, settings in ((1, (), []), (2, TORCHRUN, sharded)):
        runs[number] = tmp_path / str(number)
        done = launch(runs[number], cli_environment(), launcher, *SHORT, *settings, recipe=recipe)
        assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("0-warmup/sft", "1-iteration/dpo", "1-iteration/sft"):
        one, two = (rows(run / stage / "train-log.jsonl") for run in runs.values())
        assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-3)
        assert [row["grad_norm"] for row in two] == pytest.approx([row["grad_norm"] for row in one], rel=1e-2)
        assert [row["tokens"] for row in two] == [row["tokens"] for row in one]
        whole, gathered = (load_file(run / stage / "model/model.safetensors") for run in runs.values())
        assert whole.keys() == gathered.keys()
        assert max(float((whole[name] - gathered[name]).abs().max()) for name in whole) < 1e-3
