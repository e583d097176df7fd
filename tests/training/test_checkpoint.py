"""Checkpoints: what was written comes back, and what was not written whole is never used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selftrain.errors import RunError
from selftrain.training import checkpoint
from selftrain.training.checkpoint import load_checkpoint, restore_tensors, save_checkpoint, training_tensors

FILES = {"weights": {"w": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"step/w": torch.tensor(3.0)}}


def test_round_trip_and_only_the_newest_stays(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "d", {"step": 3, "seconds": 1.5}, FILES)
    save_checkpoint(tmp_path, "d", {"step": 12, "seconds": 2.5}, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000012"]
    found, notes = load_checkpoint(tmp_path, "d")
    assert found is not None and notes == []
    assert found.counters == {"step": 12, "seconds": 2.5}
    assert torch.equal(found.tensors["weights"]["w"], FILES["weights"]["w"])


def test_nothing_there_is_nothing_to_note(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent", "d") == (None, [])


@pytest.mark.parametrize(
    "damage", ["truncated", "one byte", "no seal", "half a seal", "a file missing", "a list", "counters"]
)
def test_a_damaged_checkpoint_is_never_used(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, "d", {"step": 3}, FILES)
    weights, seal = tmp_path / "step-00000003/weights.safetensors", tmp_path / "step-00000003/seal.json"
    content = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(content[:-4])
    elif damage == "one byte":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "no seal":
        seal.unlink()
    elif damage == "half a seal":
        seal.write_text(seal.read_text()[:20])
    elif damage == "counters":
        seal.write_text(seal.read_text().replace('"step": 3', '"step": 2'))
    elif damage == "a list":
        seal.write_text("[1]")
    else:
        weights.unlink()
    found, notes = load_checkpoint(tmp_path, "d")
    assert found is None
    assert len(notes) == 1 and "step-00000003 is not used" in notes[0]


def test_another_training_s_checkpoint_is_never_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "d", {"step": 3}, FILES)
    found, notes = load_checkpoint(tmp_path, "other")
    assert found is None and "other data" in notes[0]


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, "d", {"step": 3}, FILES)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match="No space left"):
        save_checkpoint(tmp_path, "d", {"step": 4}, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert load_checkpoint(tmp_path, "d")[0] is not None


def test_optimizer_state_goes_back_to_the_parameter_it_came_from() -> None:
    def trained(scale: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
        module[0].bias.requires_grad_(False)
        matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in module.parameters() if p.requires_grad and p.ndim == 1]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        (scale * module(torch.ones(4, 2)).square().mean()).backward()
        optimizer.step()
        return module, optimizer

    torch.manual_seed(0)
    module, optimizer = trained(1.0)
    saved = {
        name: {k: v.clone() for k, v in part.items()} for name, part in training_tensors(module, optimizer).items()
    }
    assert "0.bias" not in saved["weights"]
    fresh, fresh_optimizer = trained(5.0)
    restore_tensors(fresh, fresh_optimizer, saved)
    again = training_tensors(fresh, fresh_optimizer)
    for name, part in saved.items():
        assert part.keys() == again[name].keys()
        assert all(torch.equal(value, again[name][key]) for key, value in part.items())
