"""LoRA through peft (extra `lora`): adapters put into a model for one training, and merged into it afterwards.

    with adapters(module, config.training.lora, seed=7):
        fit(module, objective, folder=folder)       # trains the adapters alone
    save_model(...)                                 # a plain model again

The rest of the product never sees an adapter: what a stage hands on is a whole model. Adapters are fp32. Where the
arithmetic is bf16 the frozen weights are held in bf16 too, 2 bytes each (exact for a model that was published in bf16);
they are merged in fp32, on the CPU, since an adapter's small changes would vanish in bf16 weights.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import torch
from torch import nn

from selftrain.config import LoRAConfig
from selftrain.errors import ConfigError
from selftrain.models import is_encoder_decoder


def check_installed(config: LoRAConfig) -> None:
    """Refuse LoRA without peft, before any work.

    Raises:
        ConfigError: names the extra.
    """
    if config.rank and importlib.util.find_spec("peft") is None:
        raise ConfigError(
            f"training.lora.rank={config.rank} needs peft, which is not installed.",
            "pip install 'selftrain[lora]', or training.lora.rank=0 to train all weights.",
        )


@contextlib.contextmanager
def adapters(module: nn.Module, config: LoRAConfig, seed: int) -> Iterator[None]:
    """Within, only adapters on every linear layer but the head take gradients; afterwards they are merged.

    The start is the module as it is: an adapter adds zero until it is trained. An exception leaves the module with
    adapters, to be thrown away.
    """
    if not config.rank:
        yield
        return
    check_installed(config)
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha or 2 * config.rank,
        lora_dropout=config.dropout,
        target_modules="all-linear",
        task_type="SEQ_2_SEQ_LM" if is_encoder_decoder(module) else "CAUSAL_LM",
    )
    torch.manual_seed(seed)
    tuner = LoraModel(module, settings, "default")
    for parameter in tuner.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    yield
    if any(parameter.dtype != torch.float32 for parameter in module.parameters()):
        module.to("cpu", torch.float32)
    tuner.merge_and_unload()
    module.requires_grad_(True)


def weights_precision(config: LoRAConfig, precision: str) -> str:
    """What weights are loaded in for a training: fp32 where they are trained, the arithmetic's where they are frozen.

    >>> weights_precision(LoRAConfig(rank=8), "bf16"), weights_precision(LoRAConfig(), "bf16")
    ('bf16', 'fp32')
    """
    return precision if config.rank else "fp32"
