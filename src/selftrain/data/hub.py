"""Rows from a hub data set, through the `datasets` extra, imported only when a set needs it.

A hub that cannot be reached, a missing extra and a run that is offline are each one message that says what to
do; the cache that `datasets` keeps is used as it uses it (offline: only with HF_HUB_OFFLINE=1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from selftrain.data.reading import Row
from selftrain.errors import DataError

LOCAL_HINT = "Give a local file instead (the set's `path`, or data.files.SOURCE=PATH for all sets of a source)"


def hub_rows(
    name: str, splits: Sequence[str], *, offline: bool, config: str | None = None, revision: str | None = None
) -> list[Row]:
    """The rows of some splits of a hub data set, in order; a row's key is "SPLIT-NUMBER", numbers from 1.

    Raises:
        DataError: without the extra, offline without a cache, hub or data set not reachable, no such split.
    """
    datasets = _datasets(name)
    if offline and not datasets.config.HF_HUB_OFFLINE:
        raise DataError(
            f"{name}: a hub data set, and this run is offline.",
            f"{LOCAL_HINT}, or set HF_HUB_OFFLINE=1 to use a cached copy.",
        )
    rows: list[Row] = []
    for split in splits:
        try:
            table = datasets.load_dataset(name, config, split=split, revision=revision)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            why = " ".join(str(error).split())[:200]
            raise DataError(
                f"{name}, split {split!r}: could not be loaded from the hub ({why}).", _hint(name, str(error))
            ) from error
        rows.extend(
            Row(f"{name}, {split} row {number}", f"{split}-{number}", dict(values))
            for number, values in enumerate(table, start=1)
        )
    return rows


def _hint(name: str, why: str) -> str:
    """What to do about an error of the hub."""
    why = why.replace(name, "")
    if re.search(r"\bgated\b|authenticat|cannot be accessed|\b40[13]\b", why, re.IGNORECASE):
        return (
            f"If {name} is spelled right it needs a login: ask for access on its page on the hub, "
            f"then `hf auth login` (or set HF_TOKEN). {LOCAL_HINT}."
        )
    if "config name is missing" in why.lower():
        return f"It has subsets: hub:{name}:SPLIT:SUBSET. {LOCAL_HINT}."
    return f"{LOCAL_HINT}."


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name}: a hub data set needs the package `datasets`, which is not installed.",
            f"pip install 'selftrain[hub]'. {LOCAL_HINT}.",
        ) from error
    return datasets


def splits_of(split: str | None, default: Sequence[str]) -> list[str]:
    """The splits that a spec names ("train+test"), or those of the source."""
    return [part.strip() for part in split.split("+")] if split else list(default)
