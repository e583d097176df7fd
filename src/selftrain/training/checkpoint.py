"""Checkpoints inside a training: folders of safetensors, sealed by a JSON file of digests. No pickle.

    save_checkpoint(folder, digest, counters, training_tensors(module, optimizer))
    found, notes = load_checkpoint(folder, digest)
    if found is not None: restore_tensors(module, optimizer, found.tensors)

A sealed folder is written under a temporary name, fsynced, and renamed; its `seal.json` holds the SHA-256
of every file, the digest of what is being trained on what, and its own. A folder that fails either test is never
used. Only the newest checkpoint stays. No random state is kept: every step seeds its own stream (`fit.py`).
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from selftrain import durable
from selftrain.errors import RunError
from selftrain.stagefolder import digest_of, file_digest
from selftrain.training.sharding import placed_like, whole

Files = Mapping[str, Mapping[str, Tensor]]
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SEAL = "seal.json"


@dataclasses.dataclass(frozen=True)
class Sealed:
    """What a sealed folder holds: its files' tensors, and the counters that went with them."""

    tensors: dict[str, dict[str, Tensor]]
    counters: dict[str, Any]


def save_checkpoint(folder: Path, digest: str, counters: Mapping[str, Any], files: Files) -> None:
    """Write `folder`/step-N, N = counters["step"], and remove every other checkpoint there.

    Raises:
        RunError: it could not be written (disk full); older checkpoints are then untouched.
    """
    target = folder / f"step-{counters['step']:08d}"
    write_sealed(target, digest, counters, files)
    for other in folder.iterdir():
        if other != target:
            durable.remove(other)


def load_checkpoint(folder: Path, digest: str) -> tuple[Sealed | None, list[str]]:
    """The newest checkpoint that can be trusted, or None, and a note on each one that cannot."""
    notes: list[str] = []
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        found, reason = read_sealed(candidate, digest)
        if found is not None:
            return found, notes
        notes.append(f"checkpoint {candidate.name} is not used: {reason}")
    return None, notes


def write_sealed(target: Path, digest: str, counters: Mapping[str, Any], files: Files) -> None:
    """Write a folder of NAME.safetensors and its seal, whole or not at all.

    Raises:
        RunError: it could not be written.
    """
    temporary = durable.temporary_of(target)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        digests = {name: _write_tensors(temporary / f"{name}.safetensors", files[name]) for name in files}
        seal = json.loads(json.dumps({"digest": digest, "counters": dict(counters), "files": digests}))
        (temporary / SEAL).write_text(json.dumps({**seal, "seal": digest_of(seal)}, indent=1), encoding="utf-8")
        durable.place(temporary, target)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{target}: the checkpoint could not be written ({error}).", "Is the disk full?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)
    return file_digest(path)


def read_sealed(folder: Path, digest: str) -> tuple[Sealed | None, str]:
    """The folder's contents on the CPU, or None and the reason why it can't be trusted."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        if seal.pop("seal") != digest_of(seal):
            return None, f"{SEAL} is not what was written"
        if seal["digest"] != digest:
            return None, "it belongs to other data, settings or start weights"
        for name, expected in seal["files"].items():
            if file_digest(folder / f"{name}.safetensors") != expected:
                return None, f"{name}.safetensors is not what was written"
        tensors = {name: load_file(folder / f"{name}.safetensors") for name in seal["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        return None, f"it is incomplete or broken ({type(error).__name__})"
    return Sealed(tensors, seal["counters"]), ""


def training_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """Files of a checkpoint: the trainable weights, and AdamW's moments under the weights' names.

    Sharded tensors are gathered: every process of a team must ask.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in trainable(module)}
    moments = {
        f"{part}/{names[parameter]}": whole(state[part])
        for parameter, state in optimizer.state.items()
        for part in MOMENTS
    }
    return {"weights": {name: whole(parameter) for name, parameter in trainable(module)}, "optimizer": moments}


def restore_tensors(module: nn.Module, optimizer: torch.optim.Optimizer, files: Files) -> None:
    """Put back what `training_tensors` gave, in place."""
    with torch.no_grad():
        for name, parameter in trainable(module):
            parameter.copy_(placed_like(parameter, files["weights"][name]))
    saved = optimizer.state_dict()
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = {parameter: name for name, parameter in trainable(module)}
    saved["state"] = {
        index: {part: _moment(parameter, files["optimizer"], part, names[parameter]) for part in MOMENTS}
        for index, parameter in enumerate(ordered)
        if f"step/{names[parameter]}" in files["optimizer"]
    }
    optimizer.load_state_dict(saved)


def _moment(parameter: nn.Parameter, saved: Mapping[str, Tensor], part: str, name: str) -> Tensor:
    tensor = saved[f"{part}/{name}"].clone()
    return tensor if part == "step" else placed_like(parameter, tensor)


def trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that take gradients, tied ones once."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
