"""The verdict file: every judged completion, no text, the same bytes each time."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from selftrain.records import Completion, read_jsonl
from selftrain.report.verdicts import write_verdicts


def test_every_verdict_is_there_and_no_text(finished: Path, tmp_path: Path) -> None:
    count = write_verdicts(finished, tmp_path / "a.gz")
    write_verdicts(finished, tmp_path / "b.gz")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress((tmp_path / "a.gz").read_bytes()).splitlines()]
    stored = {file.parent: read_jsonl(file, Completion) for file in finished.rglob("completions.jsonl")}
    assert count == len(rows) == sum(map(len, stored.values()))
    assert {key for row in rows for key in row} == {"stage", "problem_id", "k", "strict", "flexible", "answer"}
    right = sum(c.strict is not None and c.strict.outcome == "right" for found in stored.values() for c in found)
    assert sum(row["strict"] == "right" for row in rows) == right
