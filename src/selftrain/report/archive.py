"""The folder of a run or a study as one small file to keep: all that reports are made of, but no weights and no text
of any data set.

    write_archive(Path("runs/study-main"), Path("study-main.tar.gz"))

    tar xzf study-main.tar.gz                                        # then the reports can be made again
    selftrain study main --report-only --out study-main

Questions become digests, by which runs are still compared; gold answers and rationales are left out. What models wrote
stays as text; token ids become one number for all of them, as often as there are tokens, since reports ask only how
many there are and whether two texts have the same. Settings stand as they are, paths that they name too. The same
folder gives the same bytes. Such a folder can't be gone on with: it has no weights.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selftrain import durable
from selftrain.errors import RunError
from selftrain.judged import COMPLETIONS
from selftrain.records import Completion, Example, Pair, Problem, as_line, iter_jsonl
from selftrain.stagefolder import MANIFEST, digest_of

AS_THEY_ARE = ("config.yaml", "run.json", "journal.jsonl", "report.json", "train-log.jsonl", MANIFEST)


def write_archive(folder: Path, target: Path) -> int:
    """Write it, whole or not at all; returns how many runs are in it.

    Raises:
        RunError: there is no run, or the file cannot be written.
        DataError: a damaged file of a finished stage.
    """
    runs = sorted(path.parent for path in folder.rglob("config.yaml"))
    if not runs:
        raise RunError(f"{folder}: expected a run or a study, found no config.yaml in it.")
    with (
        durable.whole(target) as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path, content in (entry for run in runs for entry in _entries(run)):
            place = tarfile.TarInfo(f"{folder.resolve().name}/{path.relative_to(folder).as_posix()}")
            place.size = len(content)
            tar.addfile(place, io.BytesIO(content))
    return len(runs)


def _entries(run: Path) -> Iterator[tuple[Path, bytes]]:
    """Files of a run, and what of them is kept."""
    for path in sorted(run.rglob("*.*")):
        kept = _kept(path) if path.is_file() else None
        if kept is not None:
            yield path, kept


def _kept(path: Path) -> bytes | None:
    if path.name in AS_THEY_ARE:
        return path.read_bytes()
    if path.suffix == ".jsonl" and path.parent.name == "data":
        return _lines(path, Problem, _without_text)
    kinds: dict[str, tuple[Any, Callable[[Any], Any]]] = {
        COMPLETIONS: (Completion, _counted),
        "pairs.jsonl": (Pair, lambda pair: dataclasses.replace(pair, chosen_ids=(), rejected_ids=())),
        "examples.jsonl": (Example, lambda example: dataclasses.replace(example, prompt_ids=(), target_ids=())),
    }
    return _lines(path, *kinds[path.name]) if path.name in kinds else None


def _lines(path: Path, kind: Any, change: Callable[[Any], Any]) -> bytes:
    return b"".join(as_line(change(record)) for record in iter_jsonl(path, kind))


def _without_text(problem: Problem) -> Problem:
    return dataclasses.replace(problem, question=f"sha256:{digest_of(problem.question)}", answer=None, rationale=None)


def _counted(completion: Completion) -> Completion:
    ids = (int(digest_of(completion.token_ids)[:12], 16),) * len(completion.token_ids)
    return dataclasses.replace(completion, token_ids=ids, prefix=())
