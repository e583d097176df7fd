"""Models: loading, saving, the head, and whether a model is decoder-only or encoder-decoder.

    model = load_model(path, digest=digest, device="cpu", precision="fp32")
    logits = head_logits(model.module, hidden)

The family is read from the loaded config, never guessed from a name. Weights are safetensors only, and
remote code runs only when asked for. Training's forwards are in `forwards.py`, sampling's in `sampling/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from selftrain import durable
from selftrain.errors import ModelError, RunError, first_line, listed
from selftrain.weights import weights_digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = Sequence[int]
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers, in transformers' words
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
UNUSABLE = (  # what libraries raise for files that hold something else than they expect
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, ImportError,
    RuntimeError, MemoryError, SafetensorError, StrictDataclassError,
)  # fmt: skip
MAX_LAYERS = 1000
DEPTHS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "n_layer")
MAX_GROWTH = 16  # parameters over numbers stored: tied weights are stored once, packed ones eight in one
HEAD_LOGITS = 2**26  # of a chunk in training: 128 MiB in bf16


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A loaded model: its transformers module and tokenizer, where it came from, and its digest."""

    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    path: Path
    digest: str

    @property
    def eos_id(self) -> int:
        """The token that ends a completion."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The id that fills a batch; its value never matters."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Parameters, the embedding counted once (N in the FLOP formulas)."""
        return sum(p.numel() for p in self.module.parameters())


def load_config(path: Path, trust_remote_code: bool = False) -> Any:
    """The transformers config of a model folder; no weights are read.

    Raises:
        ModelError: no config there that transformers knows.
    """
    from transformers import AutoConfig

    _check_depth(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except UNUSABLE as error:
        raise ModelError(f"{path}: its config.json cannot be used ({first_line(error)}).") from error


def config_is_encoder_decoder(path: Path, trust_remote_code: bool = False) -> bool:
    """`is_encoder_decoder` of a model folder, from its config alone."""
    return bool(load_config(path, trust_remote_code).is_encoder_decoder)


def max_positions(config: Any) -> int | None:
    """How many positions a model knows; None where there is no such bound (T5's relative positions)."""
    return None if config.is_encoder_decoder else getattr(config, "max_position_embeddings", None)


def attention_spans(config: Any) -> dict[str, int | None]:
    """How far back each kind of a decoder-only model's layers looks, in tokens with its own; None: to the beginning.

    The kinds have transformers' names, and what a config that names none has is read as `generate` reads it.
    """
    window = getattr(config, "sliding_window", None)
    chunk = getattr(config, "attention_chunk_size", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        kinds = [SLIDING if window is not None else FULL if chunk is None else "chunked_attention"]
    spans = {SLIDING: window, "chunked_attention": chunk}
    return {kind: spans.get(kind) for kind in kinds}


def is_encoder_decoder(module: nn.Module) -> bool:
    """Whether prompts go to an encoder of their own."""
    return bool(module.config.is_encoder_decoder)  # type: ignore[union-attr]


def load_tokenizer(path: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        ModelError: no tokenizer there, or one without an end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except UNUSABLE as error:
        raise ModelError(f"{path}: no tokenizer could be loaded ({first_line(error)}).") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{path}: the tokenizer has no end token (EOS), so completions could never stop.",
            "Set `eos_token` in its tokenizer_config.json.",
        )
    return tokenizer


def load_model(
    path: Path, *, digest: str, device: str = "cpu", precision: str = "fp32", trust_remote_code: bool = False
) -> LanguageModel:
    """Load a transformers folder (safetensors) for training or sampling, in evaluation mode.

    Raises:
        ModelError: the folder holds no model that transformers can load, or one that does not fit its tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a stage has a line of its own
    tokenizer = load_tokenizer(path, trust_remote_code)
    config = load_config(path, trust_remote_code)
    try:
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        _check_size(path, kind, config, trust_remote_code)
        module, found = kind.from_pretrained(
            path, dtype=DTYPES[precision], use_safetensors=True, trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )  # fmt: skip
    except UNUSABLE as error:
        raise ModelError(f"{path}: no model could be loaded ({first_line(error)}).") from error
    _check_whole(path, module, found)
    rows = module.get_input_embeddings().weight.shape[0]
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > rows:
        raise ModelError(f"{path}: the tokenizer has {size} tokens, the embedding only {rows} rows.")
    return LanguageModel(module.to(device).eval(), tokenizer, path, digest)


def _check_depth(path: Path) -> None:
    """Refuse a config with more layers than any model has: transformers would not be done building them."""
    try:
        content = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # transformers says what is wrong
    parts = [content, *content.values()] if isinstance(content, dict) else []  # some have a config in the config
    for name in DEPTHS:
        for depth in (part.get(name) for part in parts if isinstance(part, dict)):
            if isinstance(depth, int | float) and depth > MAX_LAYERS:
                raise ModelError(f"{path}: its config.json has {name} {depth:.6g}, at most {MAX_LAYERS} are built.")


def _check_size(path: Path, kind: Any, config: Any, trust_remote_code: bool) -> None:
    """Refuse a config that is far larger than the weights beside it, before memory is taken for it."""
    with torch.device("meta"):
        module = kind.from_config(config, trust_remote_code=trust_remote_code)
    asked = sum(parameter.numel() for parameter in module.parameters())
    stored = 0
    for file in path.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            stored += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    if asked > MAX_GROWTH * stored:
        raise ModelError(f"{path}: its config.json asks for {asked} parameters, its weights hold {stored}.")


def _check_whole(path: Path, module: nn.Module, found: Mapping[str, Any]) -> None:
    """Refuse weights that are not all there, or that hold NaN or infinity."""
    missing = sorted(str(name) for name in (*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])))
    if missing:
        raise ModelError(
            f"{path}: its weights lack {listed(missing, 3)}, or have them in another shape.",
            "Copy or download the model again.",
        )
    for name, parameter in module.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"{path}: its weights are damaged: {name} holds NaN or infinity.")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write a model's folder, which takes its name at the end: whole or not at all.

    Raises:
        RunError: it cannot be written; what was there is there still.
    """
    temporary = durable.temporary_of(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
        durable.place(temporary, path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path}: the model could not be written ({first_line(error)}).", "Is the disk full?") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_model(model: LanguageModel, path: Path, state: dict[str, Tensor] | None = None) -> str:
    """Save as a plain transformers folder, whole or not at all. Returns the digest of the weights.

    `state` stands for the module's own weights, where these are elsewhere.
    """
    with written(path) as temporary:
        model.module.save_pretrained(temporary, state_dict=state)  # type: ignore[operator]
        model.tokenizer.save_pretrained(temporary)
    return weights_digest(path)


def head_logits(module: nn.Module, hidden: Tensor, product: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Logits [N, V] of hidden states [N, D]: the head, with T5's scaling and Gemma's soft cap where configured.

    `product` stands for the head's own matrix product, where a caller has a faster one.
    """
    config: Any = module.config
    if getattr(config, "scale_decoder_outputs", False):
        hidden = hidden * (config.d_model**-0.5)
    logits: Tensor = (product or module.get_output_embeddings())(hidden)  # type: ignore[operator]
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def set_dropout(module: nn.Module, probability: float | None) -> None:
    """Override every dropout of the model (`None` leaves the config's): module layers, and attention's own rates."""
    if probability is None:
        return
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = probability
        for name in ("attention_dropout", "dropout"):  # plain floats in Llama's and T5's attention
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, probability)


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a transformers model, in order."""
    unsplit = set(getattr(module, "_no_split_modules", None) or ())
    return [part for part in module.modules() if type(part).__name__ in unsplit]


def has_compiled_blocks(module: nn.Module) -> bool:
    """Whether they are compiled for training."""
    return any(block._compiled_call_impl is not None for block in blocks_of(module)[:1])


def checkpoint_activations(module: nn.Module) -> None:
    """Have each layer's activations computed again in the backward pass, in training mode."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # of newer and older transformers
    enable: Any = next(getattr(module, name) for name in names if hasattr(module, name))
    enable({"use_reentrant": False})


def checkpoints_activations(module: nn.Module) -> bool:
    """Whether `checkpoint_activations` was called on it."""
    return any(getattr(part, "gradient_checkpointing", False) for part in module.modules())
