"""What importing costs and changes, seen from fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
HEAVY = ("torch", "transformers", "accelerate", "datasets", "matplotlib", "huggingface_hub")

LIGHT = [
    pytest.param("import selftrain", id="selftrain"),
    pytest.param("import selftrain.cli", id="cli"),
    pytest.param("import selftrain.report.text, selftrain.report.write", id="report"),
    pytest.param("import selftrain.config, selftrain.recipe; selftrain.recipe.load_config('smoke', [])", id="recipe"),
    pytest.param("import selftrain.calculator.forcing, selftrain.verify.numeric, selftrain.metrics", id="pure"),
    pytest.param("import selftrain.weights, selftrain.doctor, selftrain.hardware", id="weights"),
]

# Prints what an import of every module changed in the process, as JSON.
WATCH = """
import importlib, importlib.util, json, logging, os, pkgutil, random, signal, sys, warnings
import numpy, torch, accelerate, transformers
import selftrain

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "root handlers": [repr(handler) for handler in logging.getLogger().handlers],
        "root level": logging.getLogger().level,
        "transformers level": transformers.logging.get_verbosity(),
        "random": hash(random.getstate()),
        "numpy": hash(numpy.random.get_state()[1].tobytes()),
        "torch": hash(torch.random.get_rng_state().numpy().tobytes()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "interrupt": repr(signal.getsignal(signal.SIGINT)),
        "recursion": sys.getrecursionlimit(),
        "files": sorted(os.listdir(".")),
    }

def names(package):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        needs_triton = module.name.endswith("triton_source")
        if not module.name.endswith("__main__") and not (needs_triton and importlib.util.find_spec("triton") is None):
            yield module.name

before = state()
imported = [importlib.import_module(name).__name__ for name in names(selftrain)]
after = state()
print(json.dumps({"imported": imported, "changed": [key for key in before if before[key] != after[key]]}))
"""


# Windows has neither module.
WITHOUT = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(("fcntl", "resource")))
import selftrain
for module in pkgutil.walk_packages(selftrain.__path__, "selftrain."):
    if not module.name.endswith(("__main__", "triton_source")):
        importlib.import_module(module.name)
from pathlib import Path
from selftrain.verify import worker
worker._bound_memory()
print(len([name for name in sys.modules if name.startswith("selftrain.")]))
"""


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def heavy_imports(folder: Path, *arguments: str) -> list[str]:
    """The heavy packages that a run of the interpreter imports, read from its own import log."""
    done = python("-X", "importtime", *arguments, folder=folder)
    logged = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if line not in logged)
    imported = {line.rsplit("|", 1)[-1].strip() for line in logged}
    assert "selftrain" in imported
    return sorted(imported.intersection(HEAVY))


@pytest.mark.parametrize("code", LIGHT)
def test_light_imports(code: str, tmp_path: Path) -> None:
    assert heavy_imports(tmp_path, "-c", code) == []


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("report", "--help")])
def test_help_is_light(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert heavy_imports(tmp_path, "-m", "selftrain", *arguments) == []


def test_the_check_sees_torch(tmp_path: Path) -> None:
    assert "torch" in heavy_imports(tmp_path, "-c", "import selftrain, torch")


def test_importing_everything_changes_nothing(tmp_path: Path) -> None:
    done = python("-c", WATCH, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    files = {path.stem for path in (SOURCE / "selftrain").glob("*.py")} - {"__init__", "__main__"}
    assert {f"selftrain.{name}" for name in files} <= set(seen["imported"])
    assert seen["changed"] == []


def test_everything_is_imported_without_the_modules_of_posix(tmp_path: Path) -> None:
    done = python("-c", WITHOUT, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100
