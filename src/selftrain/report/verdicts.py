"""Every verdict of a run as one small file to keep: who answered what, right or not; no text of any data set.

A gzipped JSONL, the same bytes for the same run: {"stage", "problem_id", "k", "strict", "flexible", "answer"}.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from selftrain.judged import COMPLETIONS
from selftrain.records import Completion, Verdict, iter_jsonl
from selftrain.report.files import RunFiles


def write_verdicts(folder: Path, target: Path) -> int:
    """Write the verdicts of every finished sample and evaluation stage; returns how many."""
    lines = list(_lines(RunFiles(folder)))
    with target.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as out:
        out.write("".join(f"{line}\n" for line in lines).encode("ascii"))
    return len(lines)


def _lines(run: RunFiles) -> Iterator[str]:
    for stage in sorted(run.manifests):
        file = run.folder / stage / COMPLETIONS
        for completion in iter_jsonl(file, Completion) if file.is_file() else ():
            yield json.dumps(
                {
                    "stage": stage,
                    "problem_id": completion.problem_id,
                    "k": completion.k,
                    "strict": _outcome(completion.strict),
                    "flexible": _outcome(completion.flexible),
                    "answer": completion.strict.extracted if completion.strict else None,
                },
                separators=(",", ":"),
            )


def _outcome(verdict: Verdict | None) -> str | None:
    return verdict.outcome if verdict else None
