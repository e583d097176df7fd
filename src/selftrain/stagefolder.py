"""A stage's folder on the disk: its manifest, sealed by its own digest, and what belongs to the stage.

    manifest = read_manifest(folder)          # None where there is none, or a damaged one
    aside = prepare(folder, key)              # an empty folder, or the one of a broken attempt at the same

rundir.py says when a stage is run. A finished stage that was made otherwise is put aside as NAME.before-N, never
deleted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain import durable

MANIFEST, STARTED, SPENT, BEFORE = "manifest.json", "started.json", "spent.json", "before-"
TRACKERS = "trackers"  # what a training shows elsewhere; no result of the stage
WEIGHTS = ".safetensors"
NEEDED = frozenset({"stage", "key", "digest", "outputs", "released", "figures", "seconds"})  # of a manifest


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON-ready value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's contents."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all. Half a surrogate, which UTF-8 has not, is written as its escape."""
    durable.write(path, json.dumps(value, indent=1, ensure_ascii=False).encode(errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """The value in a JSON file; None where there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def key_of(name: str, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> str:
    """What a stage is: the digest of its name, inputs and settings."""
    return digest_of({"stage": name, "inputs": dict(inputs), "settings": dict(settings)})


def is_weights(file: str) -> bool:
    """Whether a stage's file belongs to the model that it made."""
    return file.startswith("model/")


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None where it is not there, or is damaged."""
    value = read_json(path)
    if not isinstance(value, dict):
        return None
    seal = value.pop("seal", None)  # older versions sealed nothing
    return value if seal in (None, digest_of(value)) else None


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file with its seal, the digest of what a reader will see."""
    plain = json.loads(json.dumps(value))
    write_json(path, {**plain, "seal": digest_of(plain)})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """A finished stage's manifest; None where there is none, or one that was damaged."""
    manifest = read_sealed(folder / MANIFEST)
    return manifest if manifest is not None and manifest.keys() >= NEEDED else None


def damaged_outputs(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """A finished stage's files that are gone or are not what was written.

    Of weights no more than that they are there: they are large, and compared where they are loaded.
    """
    for file, digest in manifest["outputs"].items():
        path = folder / file
        if file in manifest["released"]:
            continue
        large = is_weights(file) and file.endswith(WEIGHTS)
        if not path.is_file() or not (large or file_digest(path) == digest):
            yield file


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write it with its seal."""
    write_sealed(folder / MANIFEST, manifest)


def differing(aside: Path, inputs: Mapping[str, str], settings: Mapping[str, Any]) -> list[str]:
    """The inputs and settings in which what was put aside differs from what is asked for now."""
    before = read_json(aside / f"{BEFORE}{MANIFEST}") or {}
    pairs = [(before.get("inputs", {}), inputs), (before.get("settings", {}), settings)]
    keys = [key for old, new in pairs for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return keys or ["its manifest does not say in what"]


def prepare(folder: Path, key: str) -> Path | None:
    """A folder for a stage of this key. Work of another key is removed; finished work is put aside, and its new place
    returned."""
    if read_json(folder / STARTED) == {"key": key}:
        return None
    aside = _put_aside(folder) if (folder / MANIFEST).exists() else None
    durable.remove(folder)
    write_json(folder / STARTED, {"key": key})
    return aside


def _put_aside(folder: Path) -> Path:
    places = (folder.with_name(f"{folder.name}.{BEFORE}{number}") for number in itertools.count(1))
    aside = next(place for place in places if not place.exists())
    for name in (MANIFEST, STARTED):  # so that it is no stage any more
        if (folder / name).exists():
            durable.move(folder / name, folder / f"{BEFORE}{name}")
    durable.move(folder, aside)
    return aside


def own_files(folder: Path, scratch: Sequence[str] = ()) -> Iterator[Path]:
    """The files that a stage made, other than its bookkeeping."""
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder)
        left_out = file.name in (MANIFEST, STARTED, SPENT) or inside.parts[0] in (*scratch, TRACKERS)
        if file.is_file() and not left_out and not any(durable.is_temporary(Path(part)) for part in inside.parts):
            yield file
