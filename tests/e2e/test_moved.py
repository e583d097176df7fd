"""A run folder that was copied elsewhere, to where its data is not, goes on as if it had stayed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from selftrain.api import run

HALF, END = "0-warmup/sft", "1-iteration/select"


def test_a_moved_folder_goes_on_without_the_data_that_it_was_made_from(
    tmp_path: Path, fingerprint: Callable[[Path], dict[str, str]]
) -> None:
    data, samples = tmp_path / "data.jsonl", tmp_path / "samples.jsonl"
    rows = [
        {"question": f"{n} pens and 1 more?", "answer": f"{n}+1=<<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"}
        for n in range(24)
    ]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = [{"question": row["question"], "text": f"That is\n#### {n + 1}"} for n, row in enumerate(rows)]
    samples.write_text("".join(f"{json.dumps(row)}\n" for row in told))
    settings = [
        f"data.train={{source: file, path: {data}}}", f"data.samples={samples}", "compute.precision=fp32",
        "sampling.max_new_tokens=12", "training.sft.epochs=1", "training.dpo.max_steps=2",
    ]  # fmt: skip
    here, moved = tmp_path / "here/run", tmp_path / "elsewhere/of another name"
    run("smoke", settings, out=here, until=HALF)
    shutil.copytree(here, moved)
    run("smoke", settings, out=here, until=END)
    data.unlink()
    samples.unlink()
    here = here.rename(tmp_path / "here/stayed")
    run("smoke", settings, out=moved, until=END)
    assert fingerprint(moved) == fingerprint(here)
    events = [json.loads(line) for line in (moved / "journal.jsonl").read_text().splitlines()]
    starts = [event["stage"] for event in events if event["event"] == "stage-start"]
    assert len(starts) == len(set(starts)) == len(list(moved.rglob("manifest.json"))), "no stage was made again"
