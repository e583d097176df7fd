"""LoRA and gradient checkpointing inside `fit`."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.config import LoRAConfig
from selftrain.errors import ConfigError
from selftrain.forwards import Tree, target_hidden
from selftrain.models import checkpoint_activations
from selftrain.records import Example, Pair
from selftrain.training.adapters import adapters, check_installed
from selftrain.training.fit import Interrupted, fit
from selftrain.training.steplog import read_steps

TREES = [Tree((5, 6, 7), [(20, 21, 1), (22, 1)]), Tree((8, 9), [(23, 24, 25, 1)])]
with_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
quiet = pytest.mark.filterwarnings("ignore::UserWarning")


@with_peft
@quiet
def test_adapters_alone_are_trained_and_then_merged(family: Any, examples: list[Example], tmp_path: Path) -> None:
    module = family.model()
    before = copy.deepcopy(module.state_dict())
    with adapters(module, LoRAConfig(rank=4), seed=7):
        names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        assert names and all("lora_" in name for name in names)
        untrained, _, _ = target_hidden(module, TREES, 1, family.layout)
        result = fit(module, family.sft(examples, epochs=4), folder=tmp_path)
        trained, _, _ = target_hidden(module, TREES, 1, family.layout)
    merged, _, _ = target_hidden(module, TREES, 1, family.layout)
    assert result.last["loss"] < result.first["loss"]
    plain = family.model()
    torch.testing.assert_close(target_hidden(plain, TREES, 1, family.layout)[0], untrained)
    torch.testing.assert_close(merged, trained, rtol=1e-3, atol=1e-4)
    after = module.state_dict()
    assert after.keys() == before.keys(), "a plain model again"
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and not any("embed" in name or "shared" in name or "norm" in name for name in changed)
    assert all(parameter.requires_grad for parameter in module.parameters())


@with_peft
@quiet
def test_a_resumed_lora_training_is_bitwise_the_unbroken_one(llama: Any, pairs: list[Pair], tmp_path: Path) -> None:
    def trained(folder: Path, stops: list[int]) -> dict[str, torch.Tensor]:
        module = llama.model()
        for stop in [*stops, 10**6]:
            module = llama.model()
            asked = itertools.count(1)
            with contextlib.suppress(Interrupted), adapters(module, LoRAConfig(rank=2), seed=7):
                fit(
                    module, llama.dpo(pairs, max_epochs=2), folder=folder,
                    should_stop=functools.partial(_reached, asked, stop),
                )  # fmt: skip
        return dict(module.state_dict())

    whole, broken = trained(tmp_path / "whole", []), trained(tmp_path / "broken", [8, 3])
    assert whole.keys() == broken.keys()
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())


@with_peft
@quiet
def test_frozen_weights_may_be_bf16_and_are_merged_in_fp32(
    family: Any, examples: list[Example], tmp_path: Path
) -> None:
    """Changes far below a bf16 step are in the merged weights; a model that bf16 holds exactly starts as itself."""
    module = family.model().bfloat16()
    before = {name: tensor.float() for name, tensor in module.state_dict().items()}
    with adapters(module, LoRAConfig(rank=4), seed=7):
        assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in module.parameters() if not p.requires_grad} == {torch.bfloat16}
        result = fit(module, family.sft(examples, epochs=4, learning_rate=1e-5), folder=tmp_path, precision="bf16")
    after = module.state_dict()
    assert result.steps > 1 and after.keys() == before.keys()
    assert {tensor.dtype for tensor in after.values() if tensor.is_floating_point()} == {torch.float32}
    changes = torch.cat([(after[name] - before[name]).flatten() for name in after])
    assert 0 < float(changes.abs().max()) < 1e-4
    lost = torch.cat([(after[name].bfloat16().float() - before[name]).flatten() for name in after])
    assert int((lost != 0).sum()) < int((changes != 0).sum()) / 10


def _reached(asked: Iterator[int], stop: int) -> bool:
    return next(asked) >= stop


def test_rank_zero_changes_nothing(family: Any) -> None:
    module = family.model()
    with adapters(module, LoRAConfig(), seed=7):
        assert not any("lora" in name for name, _ in module.named_parameters())


def test_lora_without_peft_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_installed(LoRAConfig())
    with pytest.raises(ConfigError, match="needs peft"):
        check_installed(LoRAConfig(rank=8))


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_gradient_checkpointing_changes_no_number(
    family: Any, examples: list[Example], pairs: list[Pair], tmp_path: Path, kind: str
) -> None:
    logs = []
    for name in ("plain", "checkpointed"):
        module = family.model(dropout=0.0)
        calls = 0
        if name == "checkpointed":
            checkpoint_activations(module)
        first = (
            module.get_decoder().block[0].layer[0] if family.encoder_decoder else module.base_model.layers[0].self_attn
        )

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        first.register_forward_pre_hook(count)
        fit(module, family.sft(examples) if kind == "sft" else family.dpo(pairs), folder=tmp_path / name)
        logs.append((read_steps(tmp_path / name / "train-log.jsonl"), calls))
    (plain, plain_calls), (checkpointed, checkpointed_calls) = logs
    assert checkpointed_calls > plain_calls, "layers are computed again"
    for row, other in zip(plain, checkpointed, strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)
