"""Files of a run that are not what was written: said in its results, never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.stagefolder import write_json

SFT = "1-iteration/sft"


def damage(run: Path) -> list[tuple[str, str]]:
    """What is said beside the warnings that the run itself journalled."""
    warnings = collect(RunFiles(run))["warnings"]
    return [(row["stage"], row["message"]) for row in warnings if "did next to nothing" not in row["message"]]


@pytest.fixture
def run(finished: Path) -> Path:
    """A run that resolved its model, as every real one does; what is made by hand is no archive."""
    write_json(finished / "weights.json", {"path": "tiny", "digest": "b" * 64})
    return finished


def test_of_a_whole_run_nothing_is_said(run: Path) -> None:
    assert damage(run) == []


@pytest.mark.parametrize("file", ["1-iteration/evaluate/first/completions.jsonl", f"{SFT}/train-log.jsonl"])
def test_every_file_that_was_changed_is_named(run: Path, file: str) -> None:
    text = (run / file).read_text()
    (run / file).write_text(text + text.splitlines(keepends=True)[-1])
    (run / "data/report.json").unlink()
    stage, _, name = file.rpartition("/")
    said = "is gone or is not what was written: do not rely on its figures."
    assert sorted(damage(run)) == [(stage, f"{name} {said}"), ("data", f"report.json {said}")]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "1-iteration/sft"}', "changed"])
def test_a_damaged_manifest_counts_as_not_finished(run: Path, content: str) -> None:
    file = run / SFT / "manifest.json"
    file.write_text(file.read_text().replace('"steps": 6', '"steps": 7') if content == "changed" else content)
    assert damage(run) == [(SFT, "manifest.json is not what was written: the stage counts as not finished.")]
    assert not RunFiles(run).is_done(SFT) and RunFiles(run).figures(SFT) == {}


def test_a_changed_config_or_run_json_is_named(run: Path) -> None:
    config, known = run / "config.yaml", run / "run.json"
    whole = config.read_text()
    config.write_text(whole.replace("seed: 1\n", "seed: 2\n"))
    assert damage(run) == [("start", "config.yaml is not what was written: the run may have had other settings.")]
    config.write_text(whole)
    known.write_text(known.read_text().replace('"seed": 1', '"seed": 2'))
    assert damage(run) == [("start", "run.json is not what was written.")]
    older = {key: value for key, value in json.loads(known.read_text()).items() if key not in ("seal", "config")}
    write_json(known, older)
    assert damage(run) == [], "an older version noted no digests"


def test_a_model_that_was_taken_away_is_no_damage(run: Path) -> None:
    manifest = json.loads((run / SFT / "manifest.json").read_text())
    del manifest["seal"]
    write_json(run / SFT / "manifest.json", {**manifest, "outputs": {**manifest["outputs"], "model/config.json": "0"}})
    shutil.rmtree(run / SFT / "model", ignore_errors=True)
    assert damage(run) == []
