"""What a run needs of memory and disk, against what there is now.

    needs = needs_of(config, counts, device="cpu", precision="bf16", num_processes=1, folder=folder, file_bytes=10**6)
    needs.training, needs.sampling, needs.free_memory, needs.disk, needs.free_disk       # bytes, None where unknown

Training: `memory.training_memory`. Sampling: the weights, on a CPU the copy that is packed for its products, key/value
storage for all slots, one step's logits. Left out: Python and its libraries, and the system. Disk: the fp32 weights of
every trained model stay until the run ends (`checkpoints.keep` then decides), and one checkpoint of 12 bytes a trained
weight lies beside them while a training runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from selftrain.config import RunConfig
from selftrain.hardware import available_memory_bytes, free_disk_bytes
from selftrain.memory import BF16, CANNOT_BE_BUILT, FP32, build, shape_of, training_memory
from selftrain.models import DTYPES
from selftrain.plan.counts import Counts
from selftrain.report.expected import expected_stages
from selftrain.sampling.paths import SLOTS, Shape
from selftrain.toy import NAMES as TOYS

CHECKPOINT_BYTES = 12  # a trained weight: itself and AdamW's two moments in fp32


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes; None where the model is not here, or the system does not tell."""

    training: int | None
    sampling: int | None
    free_memory: int | None
    a_model: int | None
    disk: int | None  # at its most, while the run is under way
    disk_after: int | None
    free_disk: int


def parameters_of(model: Any) -> int:
    """Of a transformers config; the embedding is counted once where it is shared."""
    return shape_of(model).parameters


def needs_of(
    config: RunConfig, counts: Counts, *, device: str, precision: str, num_processes: int, folder: Path, file_bytes: int
) -> Needs:
    """Memory of one device, and the disk that holds `folder`; `file_bytes` are all stages' without weights."""
    free_disk = free_disk_bytes(folder)
    if counts.model is None:
        return Needs(None, None, free_memory(device), None, None, None, free_disk)
    shape, lora = shape_of(counts.model), config.training.lora.rank
    a_model = shape.parameters * (BF16 if lora and precision == "bf16" else FP32)
    models = [stage for stage in expected_stages(config) if stage.endswith(("/sft", "/dpo"))]
    keeps_all = config.checkpoints.keep == "all"
    base = a_model if config.model in TOYS else 0
    return Needs(
        training=_training(counts.model, config, num_processes, precision),
        sampling=sampling_memory(counts.model, config, counts, device, precision),
        free_memory=free_memory(device),
        a_model=a_model,
        disk=base + len(models) * a_model + CHECKPOINT_BYTES * shape.trained(lora) + file_bytes,
        disk_after=base + (len(models) if keeps_all else 1) * a_model + file_bytes,
        free_disk=free_disk,
    )


def _training(model: Any, config: RunConfig, num_processes: int, precision: str) -> int | None:
    """Bytes of a training; None for a model whose forward cannot be traced."""
    try:
        return training_memory(model, config.training, num_processes=num_processes, precision=precision).total
    except CANNOT_BE_BUILT:
        return None


def sampling_memory(model: Any, config: RunConfig, counts: Counts, device: str, precision: str) -> int:
    """Bytes of the engine at its largest stage."""
    with torch.device("meta"):
        module = build(model, DTYPES[precision])
    slots = SLOTS if config.sampling.slots == "auto" else config.sampling.slots
    prompt = counts.sets.longest_prompt if counts.sets is not None else config.prompt.max_prompt_tokens
    new = max(config.sampling.max_new_tokens, config.evaluation.max_new_tokens or 0)
    size = BF16 if precision == "bf16" else FP32
    weights = size * sum(int(parameter.numel()) for parameter in module.parameters())
    storage = Shape(slots, prompt, new).storage_bytes(model, DTYPES[precision])
    return weights * (2 if device == "cpu" else 1) + storage + size * slots * int(model.vocab_size)


def free_memory(device: str) -> int | None:
    """What a new allocation on the device can have."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    return available_memory_bytes() if device == "cpu" else None
