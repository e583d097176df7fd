"""What `selftrain doctor` tells: what is installed, what would be used, what can be reached.

    for check in collect():
        print(check.name, check.ok, check.detail)

`ok` is True (fine), False (in the way of a run) or None (missing, and not needed for every run). Nothing is
changed, downloaded or installed. The hub is asked only with `online`, once, and given 3 seconds.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from selftrain import __version__, hardware, model_hub, weights
from selftrain.sampling import vllm_support

NEEDED_DISK_GB = 5.0  # packages and weights are there: what a quickstart run and its checkpoints take, with room
NEEDED_MEMORY_GB = 8.0

# package that does the work, extra that installs it (None: by hand), what it is for
_OPTIONAL = {
    "reasoning-gym": ("gym", "the quickstart's problems"),
    "datasets": ("hub", "data sets of the hub"),
    "math-verify": ("math", "verify: symbolic"),
    "peft": ("lora", "training.lora: adapters"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One line of the report: fine (True), in the way (False), or missing but not always needed (None)."""

    name: str
    ok: bool | None
    detail: str
    hint: str | None = None


def collect(data_dir: Path | None = None, *, online: bool = False) -> list[Check]:
    """Every check, in the order to print.

    Args:
        data_dir: a folder of local data files to look for as well.
        online: ask the hub whether it answers.
    """
    checks: list[Callable[[], Check]] = [
        _python,
        _selftrain,
        _torch,
        _transformers,
        _device,
        _cpu,
        _kernels,
        _memory,
        _disk,
    ]
    found = [check() for check in checks]
    found += [_extra(package, extra, purpose) for package, (extra, purpose) in _OPTIONAL.items()]
    found += [_vllm(), _weights(), _hub(online)]
    return found if data_dir is None else [*found, _data(data_dir)]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    hint = None if ok else "Python 3.11 or newer is needed."
    return Check("python", ok, f"{platform.python_version()} on {platform.system()} {platform.machine()}", hint)


def _selftrain() -> Check:
    return Check("selftrain", True, f"{__version__} in {Path(__file__).parent}")


def _torch() -> Check:
    version = _version("torch")
    if version is None:
        return Check("torch", False, "not installed", "pip install torch")
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA in this build"
    return Check("torch", True, f"{torch.__version__}, {build}")


def _transformers() -> Check:
    names = ("transformers", "accelerate", "safetensors", "gguf")
    versions = {name: _version(name) for name in names}
    missing = [name for name, version in versions.items() if version is None]
    detail = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    return Check("libraries", not missing, detail, f"pip install {' '.join(missing)}" if missing else None)


def _device() -> Check:
    if _version("torch") is None:
        return Check("device", False, "unknown without torch")
    device = hardware.default_device()
    precision = hardware.default_precision(device)
    name = ""
    if device == "cuda":
        import torch

        name = f", {torch.cuda.get_device_name()}"
    return Check("device", True, f"{device}, {precision}{name}", hardware.device_note(device) or None)


def _cpu() -> Check:
    computes = (
        "computes in bf16" if hardware.cpu_has_bf16() else "no bf16 instructions: fp32 is used, about half as fast"
    )
    return Check("cpu", True, f"{hardware.num_cpus()} processors, {computes}")


def _kernels() -> Check:
    if _version("torch") is None:
        return Check("kernels", None, "unknown without torch")
    import torch

    from selftrain.sampling.kernels import compiled

    found, why_not = compiled(torch.float32, width=64, group=3)
    if found is not None:
        return Check("kernels", True, "compiled, for decoding on a CPU")
    return Check("kernels", None, f"decoding on a CPU does without: {why_not}", "Install a C compiler (gcc).")


def _memory() -> Check:
    total = hardware.total_memory_bytes()
    if total is None:
        return Check("memory", None, "unknown")
    ok = total / 1e9 >= NEEDED_MEMORY_GB
    return Check("memory", ok or None, f"{total / 1e9:.0f} GB", None if ok else _SMALLER)


_SMALLER = "With less than 8 GB lower sampling.slots and training.micro_batch_tokens."


def _disk() -> Check:
    free = {str(place): hardware.free_disk_bytes(place) / 1e9 for place in (Path.cwd(), weights.default_cache())}
    ok = min(free.values()) >= NEEDED_DISK_GB
    detail = ", ".join(f"{gigabytes:.0f} GB free at {place}" for place, gigabytes in free.items())
    return Check("disk", ok, detail, None if ok else f"A run needs some {NEEDED_DISK_GB:.0f} GB.")


def _extra(package: str, extra: str | None, purpose: str) -> Check:
    version = _version(package)
    if version is not None:
        return Check(package, True, f"{version}, for {purpose}")
    hint = f"pip install 'selftrain[{extra}]'" if extra else f"pip install {package}"
    if extra == "gym" and not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        hint += "   (needs a C compiler and Python's headers; no compiler is on this machine's path)"
    return Check(package, None, f"not installed; for {purpose}", hint)


def _vllm() -> Check:
    found = vllm_support.installed()
    if found is None:
        return Check("vllm", None, "not installed; for sampling.backend: vllm", vllm_support.INSTALL)
    is_known = vllm_support.is_known(found[1])
    detail = " ".join(found) + (", for sampling.backend: vllm" if is_known else " is not a version that is known here")
    return Check("vllm", is_known or None, detail, None if is_known else vllm_support.INSTALL)


def _weights() -> Check:
    folder = weights.find_local(weights.SMOLLM2)
    if folder is not None:
        return Check(weights.SMOLLM2, True, f"in {folder}")
    return Check(
        weights.SMOLLM2, None, "not on this machine yet", "`selftrain run quickstart` fetches it once (93 to 270 MB)."
    )


def _hub(online: bool) -> Check:
    if not online:
        return Check("model hub", None, "not asked", "`selftrain doctor --online` asks it.")
    if model_hub.switched_off():
        return Check("model hub", None, "not asked (offline)")
    try:
        model_hub.list_files(weights.SMOLLM2_REPO)
    except model_hub.HubError as error:
        return Check("model hub", None, str(error), "Not needed for quickstart: its weights also come as a package.")
    return Check("model hub", True, "answers")


def _data(folder: Path) -> Check:
    if not folder.is_dir():
        return Check("data", False, f"{folder} is not a folder")
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return Check("data", bool(names) or None, f"{folder}: {', '.join(names[:8]) or 'empty'}")


def _version(package: str) -> str | None:
    """The installed version of a package; None where it is missing or only its record is left."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
    return version if importlib.util.find_spec(package.replace("-", "_")) is not None else None
