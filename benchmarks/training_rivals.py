"""How each trains: ours through `fit`, TRL through its trainers, the same ids, weights, threads and precision.

    found = train(setup, file)      # in a process of its own: loads, trains, says what it took

The first optimiser step, and a reference pass's forwards for its rows, are a warm-up: they come first in the same
training, and the clock starts where they end. What ours does after the last step (DPO's statistics over all pairs,
which TRL has not) is told apart.

TRL's best settings here: micro-batches of as many tokens as ours, rows sorted by length (as `group_by_length` would),
reference computed before training, no gradient checkpointing, no log, its fused AdamW. Rows reach it as ids, so
nothing is tokenised. Its head skips the prompt's tokens on GPUs only; that is its own.
"""

from __future__ import annotations

import dataclasses
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks import measure
from benchmarks.systems import Setup
from benchmarks.training_work import (
    Amount,
    Row,
    TrainingTask,
    amount_of,
    load_training_task,
    micro_batches,
    objective_of,
    rival_rows,
    row_tokens,
    rows_at_once,
)
from benchmarks.trl_parts import PACKAGES, common_arguments, dataset_of, trainer_of, with_pad_token
from selftrain.forwards import Layout, choose_layout
from selftrain.hardware import forget_peak_memory
from selftrain.models import LanguageModel, load_model
from selftrain.training.compiling import compile_blocks
from selftrain.training.dpo import DPOObjective
from selftrain.training.fit import Precision, fit
from selftrain.training.objective import Forward, Measure

STEP, REFERENCE, AFTER = "step", "reference", "after"
STEADY_COPIES = 3  # of the weights: gradients, and AdamW's two moments
NEVER_S = 1e9
Json = dict[str, Any]
Go = Callable[[], Json]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """A way to train a task: ours in a layout, or TRL's (no layout), packed or not."""

    label: str
    task: str
    layout: Layout | None
    packed: bool = False
    compiled: bool = False


TRAINERS: dict[str, Trainer] = {
    "dpo": Trainer("selftrain, trees", "dpo", "trees"),
    "dpo-rows": Trainer("selftrain, rows", "dpo", "rows"),
    "dpo-compiled": Trainer("selftrain, trees, compiled", "dpo", "trees", compiled=True),
    "dpo-trl": Trainer("TRL DPOTrainer", "dpo", None),
    "single": Trainer("selftrain, trees", "single", "trees"),
    "single-rows": Trainer("selftrain, rows", "single", "rows"),
    "single-trl": Trainer("TRL DPOTrainer", "single", None),
    "sft": Trainer("selftrain, trees", "sft", "trees"),
    "sft-rows": Trainer("selftrain, rows", "sft", "rows"),
    "sft-compiled": Trainer("selftrain, trees, compiled", "sft", "trees", compiled=True),
    "sft-trl": Trainer("TRL SFTTrainer", "sft", None),
    "sft-trl-packed": Trainer("TRL SFTTrainer, packing", "sft", None, packed=True),
}


def train(setup: Setup, file: Path) -> Json:
    """Train a task in this process and say what it took."""
    task, trainer = load_training_task(file), TRAINERS[setup.system]
    watch = measure.Watch(setup.device)
    started = time.perf_counter()
    model = load_model(Path(task.model), digest=task.digest, device=setup.device)  # fp32: master weights
    with tempfile.TemporaryDirectory() as folder:
        opened = _open_trl if trainer.layout is None else _open_ours
        go = opened(setup, task, model, watch, Path(folder))
        resident = _settle(model.module, setup.device)
        loading = time.perf_counter() - started
        said = go()
    peak = measure.peak_memory_bytes(setup.device)
    training, reference = watch.since(STEP, 1), watch.since(REFERENCE, said.pop("warm_up_forwards"))
    steady = resident + STEADY_COPIES * _bytes(model.module)
    return {
        "seconds": training + reference,
        "training_seconds": training,
        "reference_seconds": reference,
        "loading_seconds": loading,
        "peak_memory_bytes": peak,
        "steady_memory_bytes": steady,
        "parameters": model.num_parameters,
        "versions": measure.versions(PACKAGES),
        **said,
    }


def _settle(module: nn.Module, device: str) -> int:
    """Take the weights off the mapped file that they may still lie in, forget the peak; memory held then, in bytes."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    gc.collect()
    forget_peak_memory()
    return measure.memory_bytes(device)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def body_and_head(module: Any) -> tuple[int, int]:
    """Parameters of the layers, and of the head; the input embedding multiplies nothing."""
    embedding, head = module.get_input_embeddings().weight, module.get_output_embeddings().weight
    apart = 0 if head is embedding else head.numel()
    return sum(parameter.numel() for parameter in module.parameters()) - embedding.numel() - apart, head.numel()


def _amounts(amount: Amount, module: nn.Module, is_dpo: bool) -> Json:
    return {
        "pairs": amount.pairs,
        "tokens": amount.tokens,
        "flops": amount.flops(*body_and_head(module), reference=is_dpo),
    }


# --- Ours ---


def _open_ours(setup: Setup, task: TrainingTask, model: LanguageModel, watch: measure.Watch, folder: Path) -> Go:
    layout, _ = choose_layout(model.module, TRAINERS[setup.system].layout or "rows")
    if TRAINERS[setup.system].compiled:
        compile_blocks(model.module)

    class Watched(DPOObjective):
        """Marks where each forward without gradient ends."""

        def before(self, module: nn.Module, measure: Measure) -> dict[str, Tensor]:
            return super().before(module, _watching(measure, watch, REFERENCE))

        def after(self, module: nn.Module, measure: Measure) -> dict[str, float]:
            return super().after(module, _watching(measure, watch, AFTER))

    objective = objective_of(task, model.pad_id, layout, Watched)
    plan = objective.plan
    forwards = [forward for step in range(1, plan.num_steps) for forward in plan.step(step)]
    warm_up = len(plan.step(0))
    precision: Precision = "bf16" if setup.precision == "bf16" else "fp32"

    def go() -> Json:
        result = fit(
            model.module, objective, folder=folder, precision=precision, model_digest=task.digest,
            checkpoint_every_s=NEVER_S, on_step=lambda *_: watch.mark(STEP),
        )  # fmt: skip
        return {
            **_amounts(amount_of(objective), model.module, bool(task.questions)),
            "steps": result.steps - 1,
            "computed_tokens": sum(forward.padded_tokens for forward in forwards),
            "micro_batch_tokens": max(forward.padded_tokens for forward in forwards),
            "after_seconds": watch.since(AFTER, warm_up),
            "warm_up_forwards": warm_up,
            "settings": {"layout": layout, "micro_batch_tokens": task.micro_batch_tokens},
        }

    return go


def _watching(measure_all: Measure, watch: measure.Watch, name: str) -> Measure:
    def watched(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def work() -> Tensor:
            result = forward()
            watch.mark(name)
            return result

        return work

    def measure_watched(forwards: Sequence[Forward]) -> list[Tensor]:
        return measure_all([(size, watched(forward)) for size, forward in forwards])

    return measure_watched


# --- TRL ---


def _open_trl(setup: Setup, task: TrainingTask, model: LanguageModel, watch: measure.Watch, folder: Path) -> Go:
    kind, config = trainer_of(is_dpo=bool(task.questions))
    objective = objective_of(task, model.pad_id, "rows")
    rows = rival_rows(objective)
    settings = trl_settings(task, rows, TRAINERS[setup.system].packed)

    def go() -> Json:
        trainer = _watched(kind, watch)(
            model=model.module,
            args=config(output_dir=str(folder), **common_arguments(setup, task.settings), **settings),
            train_dataset=dataset_of(rows),
            processing_class=with_pad_token(model.tokenizer),
            callbacks=[_step_marks(watch)],
        )
        trainer.train()
        at_once, together = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
        amounts = _amounts(amount_of(objective), model.module, bool(task.questions))
        if settings.get("packing"):
            computed = [len(ids) for ids in trainer.train_dataset["input_ids"]][together:]
            amounts = {name: value * sum(computed) // amounts["tokens"] for name, value in amounts.items()}
        else:
            computed = micro_batches(rows[at_once * together :], at_once)
        return {
            **amounts,
            "steps": len(watch.ends[STEP]) - 1,
            "computed_tokens": sum(computed),
            "micro_batch_tokens": max(computed),
            "warm_up_forwards": together,
            "settings": {**settings, "optim": trainer.args.optim.value, "gradient_checkpointing": False},
        }

    return go


def trl_settings(task: TrainingTask, rows: Sequence[Row], packed: bool) -> Json:
    """What is chosen for TRL: micro-batches of about the task's tokens, the task's effective batch.

    Packed rows are filled to the task's tokens (or the longest row), and as many accumulated as come nearest to an
    effective batch.
    """
    size, tokens = task.settings["batch_size"], task.micro_batch_tokens
    if packed:
        lengths = [row_tokens(row)[1] for row in rows]
        width = max(tokens, *lengths)
        together = max(1, round(size * sum(lengths) / len(lengths) / width))
        return {
            "packing": True, "max_length": width, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": together,
        }  # fmt: skip
    at_once = rows_at_once(rows[size:], size, tokens)
    found = {
        "max_length": None, "per_device_train_batch_size": at_once, "gradient_accumulation_steps": size // at_once
    }  # fmt: skip
    if task.questions:
        found |= {"precompute_ref_log_probs": True, "beta": task.settings["beta"]}
    return found


def _watched(kind: Any, watch: measure.Watch) -> Any:
    """A TRL trainer that marks where each forward of its reference pass ends."""

    class Watched(kind):  # type: ignore[misc, unused-ignore]
        """`kind`, timed."""

        def compute_ref_log_probs(self, *inputs: Any) -> Any:
            found = super().compute_ref_log_probs(*inputs)
            watch.mark(REFERENCE)
            return found

    return Watched


def _step_marks(watch: measure.Watch) -> Any:
    from transformers import TrainerCallback

    class StepMarks(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Marks where each optimiser step ends."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.mark(STEP)

    return StepMarks()
