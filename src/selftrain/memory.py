"""What a training needs of each device's memory, from a model's shape alone: no weights, no device.

    need = training_memory(load_config(path), config.training, num_processes=4, precision="bf16")
    need.total, need.activations        # bytes on one device

fp32 weights, gradients and AdamW's two moments are counted (4 bytes a weight each). What the backward pass needs of the
forward is traced on a model without storage, with one row and with two: the difference is a row's activations, and the
rest is autocast's bf16 copy of the weights. Left out: what the allocator loses, the framework itself (about 1 GB on
a GPU), and that a model is loaded whole before it is sharded.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.config import TrainingConfig
from selftrain.errors import ConfigError
from selftrain.forwards import Tree, target_hidden
from selftrain.models import HEAD_LOGITS, blocks_of

FP32, BF16 = 4, 2  # bytes
WAY_OUT = (
    "Train adapters (training.lora.rank=16, extra lora), share the weights out over several processes "
    "(training.sharded=true), take a smaller model, or a larger device."
)
# What transformers raises for a config that it cannot build, or a forward that it cannot trace, without the model's own
# code; NotImplementedError is a RuntimeError.
CANNOT_BE_BUILT = (RuntimeError, TypeError, ValueError, AttributeError)
ROW_TOKENS = 256  # of a traced row, half prompt and half completion


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device while a micro-batch is in its backward pass."""

    weights: int
    gradients: int
    moments: int
    copies: int  # bf16: of all weights under autocast, of those that are gathered where weights are sharded
    activations: int
    logits: int  # of a chunk, and their gradient

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a model: parameters, those of its blocks and their number, weights of linear layers but the head's, width."""

    parameters: int
    block_parameters: int
    num_blocks: int
    linear: tuple[tuple[int, int], ...]
    width: int
    vocabulary: int

    def trained(self, rank: int) -> int:
        """Parameters that take gradients: adapters of a rank on every linear layer but the head, or all (rank 0)."""
        return rank * sum(inputs + outputs for inputs, outputs in self.linear) or self.parameters


def training_memory(
    config: Any, training: TrainingConfig, *, num_processes: int = 1, precision: str = "bf16"
) -> Memory:
    """The memory of one of `num_processes` devices.

    Args:
        config: a transformers config.
        training: `micro_batch_tokens`, `sharded`, `lora` and `gradient_checkpointing` count.
    """
    shape = shape_of(config)
    a_token, copies = _kept(config, precision)
    weights, gradients, moments = _held(shape, training, num_processes, precision)
    if training.lora.rank and precision == "bf16":
        copies = 0
    tokens, blocks = training.micro_batch_tokens, max(1, shape.num_blocks)
    activations = a_token * tokens
    if training.gradient_checkpointing:  # each block's input, and one block at a time
        activations = blocks * FP32 * shape.width * tokens + activations // blocks
        copies = copies // blocks
    if training.sharded:
        copies = _gathered(shape, BF16 if precision == "bf16" else FP32)
    return Memory(
        weights=weights,
        gradients=gradients,
        moments=moments,
        copies=copies,
        activations=activations,
        logits=2 * (BF16 if precision == "bf16" else FP32) * min(HEAD_LOGITS, shape.vocabulary * tokens),
    )


def _held(shape: Shape, training: TrainingConfig, num_processes: int, precision: str) -> tuple[int, int, int]:
    """Bytes of weights, gradients and AdamW's moments on one device, whatever is forwarded."""
    shares = num_processes if training.sharded else 1
    trained = shape.trained(training.lora.rank)
    adapters = trained if training.lora.rank else 0
    frozen = BF16 if adapters and precision == "bf16" else FP32  # bytes of a weight that the module holds
    weights = frozen * shape.parameters + FP32 * adapters
    return weights // shares, FP32 * trained // shares, 2 * FP32 * trained // shares


def check_training_room(
    config: Any, training: TrainingConfig, room: int | None, *, num_processes: int, precision: str
) -> None:
    """Refuse, before any work, a training whose weights, gradients and AdamW's state cannot be in a device's memory.

    Args:
        config: a transformers config; one that cannot be built without its own code is let through.
        room: bytes that there are; None where that is not known.

    Raises:
        ConfigError: with both numbers and the way out.
    """
    try:
        shape = shape_of(config)
    except CANNOT_BE_BUILT:
        return
    needed = sum(_held(shape, training, num_processes, precision))
    if room is not None and needed > room:
        raise ConfigError(
            f"Training {shape.trained(training.lora.rank) / 1e6:,.1f} of {shape.parameters / 1e6:,.1f} million weights "
            f"needs {needed / 1e9:,.1f} GB for weights, gradients and AdamW's state; {room / 1e9:,.1f} GB are there.",
            WAY_OUT,
        )


def shape_of(config: Any) -> Shape:
    """Count a model's parameters by its config."""
    with torch.device("meta"):
        module = build(config)
    blocks = blocks_of(module)
    head = module.get_output_embeddings()
    return Shape(
        parameters=_count(module),
        block_parameters=sum(map(_count, blocks)),
        num_blocks=len(blocks),
        linear=tuple(
            (part.in_features, part.out_features)
            for part in module.modules()
            if isinstance(part, nn.Linear) and part is not head
        ),
        width=int(module.get_input_embeddings().weight.shape[1]),
        vocabulary=int(config.vocab_size),
    )


def _kept(config: Any, precision: str) -> tuple[int, int]:
    """Bytes that the backward pass needs of the forward: a token's, and what is there at any length."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.random.fork_rng():
        module = build(config)
        one, two = (kept_bytes(module, rows, precision) for rows in (1, 2))
    return (two - one) // ROW_TOKENS, max(0, 2 * one - two)


def kept_bytes(module: Any, rows: int, precision: str) -> int:
    """Bytes of the tensors that one forward over so many rows keeps for its backward pass, weights left out.

    Decoder-only models take trees where they can. The head is left out.
    """
    half = [0] * (ROW_TOKENS // 2)
    weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that its place is not taken by another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _autocast(precision):
        if module.config.is_encoder_decoder:
            ids = torch.tensor([half] * rows)
            encoded = module.get_encoder()(input_ids=ids).last_hidden_state
            out = module.get_decoder()(input_ids=ids, encoder_hidden_states=encoded, use_cache=False)
        else:
            out = _decoder_only(module, [Tree(half, [half])] * rows)
    found = sum(int(storage.nbytes()) for place, storage in kept.items() if place not in weights)
    del out
    return found


def _decoder_only(module: Any, trees: list[Tree]) -> Any:
    try:
        return target_hidden(module, trees, 0, "trees")
    except NotImplementedError:  # its attention has windows, caps or sinks
        ids = torch.tensor([[*tree.prompt, *tree.targets[0]] for tree in trees])
        return module.base_model(input_ids=ids, use_cache=False)


def _autocast(precision: str) -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")


def build(config: Any, dtype: torch.dtype | None = None) -> Any:
    """A transformers config's model with random weights, on the default device."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_config(config, dtype=dtype)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _gathered(shape: Shape, size: int) -> int:
    """Two blocks (one in use, one on its way) and all that is no block, whole; and a block's gradient in fp32."""
    block = shape.block_parameters // max(1, shape.num_blocks)
    return size * (2 * block + shape.parameters - shape.block_parameters) + FP32 * block
