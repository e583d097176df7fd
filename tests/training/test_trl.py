"""Twenty steps against TRL's trainers, the same rows in the same order: loss, margins, gradients, weights.

TRL gets our token ids, our order and a constant rate; everything else is its own. Both trainers run in fp32 on a tiny
Llama. Skipped where TRL is not installed (it is part of the extra `dev`).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from selftrain.records import Example, Pair
from selftrain.toy import make_toy
from selftrain.training.dpo import DPOObjective
from selftrain.training.fit import fit
from selftrain.training.steplog import read_steps

pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[dev]'")
pytestmark = pytest.mark.filterwarnings("ignore")

STEPS, BATCH, RATE = 20, 4, 2e-3
SAME: dict[str, Any] = {
    "learning_rate": RATE, "batch_size": BATCH, "warmup_fraction": 0.0, "final_lr_fraction": 1.0, "max_grad_norm": 1e9
}  # fmt: skip


class Recorder:
    """What a TRL trainer does, step by step: mixed into the trainer's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.margins: list[float] = []
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # token ids already

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[attr-defined]

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, *args, **kwargs)  # type: ignore[misc]
        self.losses.append(loss.item())
        self.margins += self._metrics["train"].get("rewards/margins", [])[-1:]  # type: ignore[attr-defined]
        self.norms.append(float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()))
        return loss


def _arguments(kind: Any, folder: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(folder), per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=1e9, bf16=False, use_cpu=True, report_to=[],
        logging_steps=1, save_strategy="no", gradient_checkpointing=False, disable_tqdm=True, max_length=None, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from selftrain.models import load_tokenizer

    folder = tmp_path_factory.mktemp("toy")
    make_toy("random-llama", folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _train_dpo(module: nn.Module, rows: list[dict[str, Any]], tokenizer: Any, folder: Path, **more: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Ours(Recorder, DPOTrainer):  # type: ignore[misc]
        pass

    arguments = _arguments(DPOConfig, folder, beta=0.3, precompute_ref_log_probs=True, **more)
    trainer = Ours(model=module, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    return trainer


def _many(pairs: Sequence[Pair]) -> list[Pair]:
    """40 questions of 2 pairs that share a winner, so that every batch holds two whole questions."""
    ids = [side for pair in pairs for side in (pair.chosen_ids, pair.rejected_ids)]
    made = []
    for number in range(40):
        winner, *losers = [(number % 90 + 3, *ids[(number + i) % len(ids)]) for i in (0, 1, 2)]
        made += [Pair(f"n{number}", winner, (91 + i, *loser), "s#0", "s#1", 0.0) for i, loser in enumerate(losers)]
    return made


@contextlib.contextmanager
def _first_gradients(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Of every tensor of the module, as the first update within finds them."""
    found: dict[str, torch.Tensor] = {}

    def note(*_: Any) -> None:
        if not found:
            found.update({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield found
    finally:
        handle.remove()


def _same_gradients(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> None:
    """Each tensor to 1e-4 of its largest entry, none of them zero."""
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, value in theirs.items():
        largest = float(value.abs().max())
        assert largest > 0 and float((ours[name] - value).abs().max()) <= 1e-4 * largest, name


def _close(ours: Sequence[float], theirs: Sequence[float]) -> None:
    assert len(ours) == len(theirs) == STEPS
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-7)


def _compare_dpo(
    family: Any, pairs: Sequence[Pair], tokenizer: Any, folder: Path, settings: Mapping[str, Any] = {},
    theirs: Mapping[str, Any] = {}, spoil: Callable[[DPOObjective], None] = lambda objective: None,
) -> None:  # fmt: skip
    """Twenty steps of both; `spoil` may damage our side."""
    objective = family.dpo(_many(pairs), max_steps=STEPS, beta=0.3, **SAME, **settings)
    assert objective.plan.num_steps == STEPS
    rows = [
        {
            "prompt_ids": list(question.prompt_ids),
            "chosen_ids": list(question.completions[winner]),
            "rejected_ids": list(question.completions[loser]),
        }
        for batch in objective.plan.batches
        for question in (objective.questions[item] for item in batch)
        for winner, loser, _ in question.pairs
    ]
    spoil(objective)
    ours = family.model()
    other = copy.deepcopy(ours)
    with _first_gradients(ours) as our_gradients:
        fit(ours, objective, folder=folder / "ours")
    log = read_steps(folder / "ours" / "train-log.jsonl")
    with _first_gradients(other) as their_gradients:
        trainer = _train_dpo(other, rows, tokenizer, folder / "trl", **theirs)
    _same_gradients(our_gradients, their_gradients)
    _close([row["loss"] for row in log], trainer.losses)
    _close([row["grad_norm"] for row in log], trainer.norms)
    assert [row["margin"] for row in log] == pytest.approx(trainer.margins, rel=1e-4, abs=1e-5)
    assert min(trainer.norms) > 0
    assert log[-1]["loss"] < log[0]["loss"]
    for name, value in other.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("layout", ["rows", "trees"])
@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({}, {}),
        ({"loss": "hinge"}, {"loss_type": "hinge"}),
        ({"loss": "ipo", "length_normalised": True}, {"loss_type": "ipo"}),
    ],
    ids=["dpo", "hinge", "ipo"],
)
def test_dpo(
    llama: Any, pairs: list[Pair], tokenizer: Any, tmp_path: Path, layout: Any, settings: dict[str, Any],
    theirs: Mapping[str, Any],
) -> None:  # fmt: skip
    _compare_dpo(dataclasses.replace(llama, layout=layout), pairs, tokenizer, tmp_path, settings, theirs)


def _compare_sft(
    family: Any, examples: Sequence[Example], tokenizer: Any, folder: Path, ours_of: Sequence[Example] | None = None
) -> None:
    """Twenty steps of both; `ours_of` are our side's examples where they are not the same."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Ours(Recorder, SFTTrainer):  # type: ignore[misc]
        pass

    objective = family.sft(ours_of or examples, max_steps=STEPS, **SAME)
    rows = []
    for batch in objective.plan.batches:
        for example in (examples[item] for item in batch):
            ids, prompt = [*example.prompt_ids, *example.target_ids], len(example.prompt_ids)
            rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    ours = family.model()
    other = copy.deepcopy(ours)
    with _first_gradients(ours) as our_gradients:
        fit(ours, objective, folder=folder / "ours")
    log = read_steps(folder / "ours" / "train-log.jsonl")
    trainer = Ours(
        model=other, args=_arguments(SFTConfig, folder / "trl"), train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    with _first_gradients(other) as their_gradients:
        trainer.train()
    _same_gradients(our_gradients, their_gradients)
    _close([row["loss"] for row in log], trainer.losses)
    _close([row["grad_norm"] for row in log], trainer.norms)
    assert min(trainer.norms) > 0
    assert log[-1]["loss"] < log[0]["loss"]
    for name, value in other.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("layout", ["rows", "trees"])
def test_sft(llama: Any, examples: list[Example], tokenizer: Any, tmp_path: Path, layout: Any) -> None:
    _compare_sft(dataclasses.replace(llama, layout=layout), examples, tokenizer, tmp_path)


@pytest.mark.parametrize("layout", ["rows", "trees"])
def test_a_dropped_mask_in_sft_fails(
    llama: Any, examples: list[Example], tokenizer: Any, tmp_path: Path, layout: Any
) -> None:
    """The comparison is no formality: with one completion's mask gone (its prompt trained on too) it fails."""
    family = dataclasses.replace(llama, layout=layout)
    first = family.sft(examples, max_steps=STEPS, **SAME).plan.batches[0][0]
    whole = examples[first]
    spoiled = dataclasses.replace(
        whole, prompt_ids=whole.prompt_ids[:1], target_ids=(*whole.prompt_ids[1:], *whole.target_ids)
    )
    with pytest.raises(AssertionError):
        _compare_sft(family, examples, tokenizer, tmp_path, [*examples[:first], spoiled, *examples[first + 1 :]])


@pytest.mark.parametrize("layout", ["rows", "trees"])
def test_a_dropped_mask_in_dpo_fails(
    llama: Any, pairs: list[Pair], tokenizer: Any, tmp_path: Path, layout: Any
) -> None:
    """One completion less a token in rows; in trees, completions that see what is to come."""

    def spoil(objective: DPOObjective) -> None:
        if layout == "rows":
            objective.counts[objective.plan.batches[0][0]][0][0] = 0.0

    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssertionError):
        if layout == "trees":
            patch.setattr(
                "selftrain.forwards._branch_mask",
                lambda trunk, own, device: torch.ones(
                    own.stop - own.start, trunk.stop - trunk.start + own.stop - own.start, dtype=torch.bool
                ),
            )
        _compare_dpo(dataclasses.replace(llama, layout=layout), pairs, tokenizer, tmp_path, spoil=spoil)
