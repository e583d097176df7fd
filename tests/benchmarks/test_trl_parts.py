"""TRL takes the steps of a plan of ours: the same batches, the same rates, and so the same weights."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments, get_scheduler

from benchmarks.pipeline_rival import train
from benchmarks.systems import Setup
from benchmarks.training_work import objective_of, tasks_of
from benchmarks.trl_parts import in_batches, indexed, schedule
from selftrain.models import load_model
from selftrain.training.fit import fit
from selftrain.training.schedule import learning_rate

needs_trl = pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed: pip install -e '.[dev]'"
)


@pytest.mark.parametrize(("num_steps", "warmup_fraction"), [(1, 0.1), (3, 0.0), (4, 0.1), (10, 0.25), (61, 0.1)])
def test_the_rates_are_ours(num_steps: int, warmup_fraction: float) -> None:
    settings = {"warmup_fraction": warmup_fraction, "final_lr_fraction": 0.1}
    given = schedule(settings, num_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = get_scheduler(
        given["lr_scheduler_type"], optimizer, given["warmup_steps"], num_steps, given["lr_scheduler_kwargs"]
    )
    for step in range(1, num_steps + 1):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate(step, num_steps, peak=2.0, **settings))
        optimizer.step()
        scheduler.step()


def test_rows_are_given_once_and_steps_by_index() -> None:
    short, long = {"input_ids": [1], "labels": [1]}, {"input_ids": [1, 2], "labels": [1, 2]}
    rows, batches = indexed([[short, long], [dict(short)], [long, dict(short), long]])
    assert rows == [long, short]
    assert batches == [[1, 0], [1], [0, 1, 0]]


class Seen(torch.nn.Module):
    """Remembers the rows of each forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.batches: list[list[float]] = []

    def forward(self, row: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batches.append(row.tolist())
        return {"loss": (self.weight * row).mean()}


@pytest.mark.filterwarnings("ignore")
def test_each_batch_is_a_step_and_none_is_filled_up(tmp_path: Path) -> None:
    module, batches = Seen(), [[0, 1, 2], [3], [2, 2]]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=1, per_device_train_batch_size=3, use_cpu=True, report_to=[],
        remove_unused_columns=False, save_strategy="no", logging_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = in_batches(Trainer, batches)(
        model=module, args=arguments, train_dataset=[{"row": float(number)} for number in range(4)]
    )
    trainer.train()
    assert module.batches == [[0.0, 1.0, 2.0], [3.0], [2.0, 2.0]]
    assert trainer.state.global_step == 3


@needs_trl
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["dpo", "sft"])
def test_the_same_rows_give_the_same_weights(name: str, run_folder: Path, tmp_path: Path) -> None:
    """By TRL and by our own loop, from the same start: steps, batches, rates, losses and the optimiser are the same."""
    task = tasks_of(run_folder, None, [name], 10**9, lambda _: None)[name]
    task = dataclasses.replace(task, settings={**task.settings, "batch_size": 5})  # the last batch is incomplete
    said = train(Setup("iteration-hf", 0, 1, "cpu", "fp32", 1), task, tmp_path / "model", seed=0)
    model = load_model(run_folder / "model", digest="")
    start = flat(model.module)
    assert said["steps"] == fit(model.module, objective_of(task, model.pad_id, "rows"), folder=tmp_path / "ours").steps
    ours, theirs = flat(model.module), flat(load_model(tmp_path / "model", digest="").module)
    assert float((theirs - ours).norm() / (ours - start).norm()) < 0.02


def flat(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
