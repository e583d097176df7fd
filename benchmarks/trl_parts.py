"""What `training` and `pipeline` share of TRL: its trainers, fed with ids, and what a run's settings are to them.

kind, config = trainer_of(is_dpo=True)
trainer = kind(model=module, args=config(output_dir=folder, **common_arguments(setup, settings), ...),
               train_dataset=dataset_of(rows), processing_class=with_pad_token(tokenizer))
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader, Sampler

from benchmarks.systems import Setup
from benchmarks.training_work import Row, row_tokens

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "trl")


def trainer_of(is_dpo: bool) -> tuple[Any, Any]:
    """TRL's DPO or SFT trainer, which takes rows as ids and shows no bars, and the class of its arguments."""
    os.environ["TQDM_DISABLE"] = "1"
    trl: Any = importlib.import_module("trl")
    datasets: Any = importlib.import_module("datasets")
    datasets.disable_progress_bars()
    return (_takes_ids(trl.DPOTrainer), trl.DPOConfig) if is_dpo else (_takes_ids(trl.SFTTrainer), trl.SFTConfig)


def _takes_ids(kind: Any) -> Any:
    class TakesIds(kind):  # type: ignore[misc, unused-ignore]
        """`kind`, with pairs as ids: nothing is tokenised."""

        def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
            is_dpo = "chosen_ids" in dataset.column_names
            return dataset if is_dpo else super()._prepare_dataset(dataset, *rest)

    return TakesIds


def dataset_of(rows: Sequence[Row]) -> Any:
    """The rows as its trainers take them."""
    datasets: Any = importlib.import_module("datasets")
    return datasets.Dataset.from_list(list(rows))


def with_pad_token(tokenizer: Any) -> Any:
    """The tokenizer, which pads with its end token where it has none of its own."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def common_arguments(setup: Setup, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Common to both trainers, from the run's DPOConfig or SFTConfig as a dict; rows come in their order."""
    return {
        "num_train_epochs": 1, "learning_rate": settings["learning_rate"], "lr_scheduler_type": "constant",
        "weight_decay": settings["weight_decay"], "max_grad_norm": settings["max_grad_norm"],
        "bf16": setup.precision == "bf16", "use_cpu": setup.device == "cpu", "gradient_checkpointing": False,
        "dataloader_pin_memory": setup.device == "cuda", "train_sampling_strategy": "sequential", "report_to": [],
        "logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip


# --- The steps of a plan of ours, as they are ---


def indexed(steps: Sequence[Sequence[Row]]) -> tuple[list[Row], list[list[int]]]:
    """The distinct rows, the longest first (a reference pass then pads least), and each step as indices of them."""
    distinct = {_key(row): row for rows in steps for row in rows}
    ordered = sorted(distinct, key=lambda name: -row_tokens(distinct[name])[1])
    place = {name: number for number, name in enumerate(ordered)}
    return [distinct[name] for name in ordered], [[place[_key(row)] for row in rows] for rows in steps]


def _key(row: Row) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(ids)) for name, ids in row.items())


def schedule(settings: Mapping[str, Any], num_steps: int) -> dict[str, Any]:
    """Our learning rates as transformers' arguments: step 1 without a warm-up has the peak, as with one of 1 step."""
    return {
        "lr_scheduler_type": "cosine_warmup_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": settings["final_lr_fraction"]},
        "warmup_steps": max(1, round(settings["warmup_fraction"] * num_steps)),
    }


class Batches(Sampler[list[int]]):
    """Given batches, in their order."""

    def __init__(self, batches: Sequence[Sequence[int]]) -> None:
        self.batches = [list(batch) for batch in batches]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def in_batches(kind: Any, batches: Sequence[Sequence[int]]) -> Any:
    """A trainer whose steps are the given batches of its dataset."""

    class InBatches(kind):  # type: ignore[misc, unused-ignore]
        """`kind`, a batch a step."""

        def get_train_dataloader(self) -> Any:
            loader: Any = DataLoader(
                self._remove_unused_columns(self.train_dataset, description="Training"),
                batch_sampler=Batches(batches),
                collate_fn=self.data_collator,
                pin_memory=self.args.dataloader_pin_memory,
            )
            return self.accelerator.prepare(loader)

    return InBatches
