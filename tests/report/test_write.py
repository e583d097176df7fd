"""results.json and report.html are made from files alone, whole, and the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain import durable
from selftrain.errors import RunError
from selftrain.recipe import load_config
from selftrain.report.command import make_report
from selftrain.report.write import write_report
from selftrain.rundir import RunDir


def test_results_json_is_what_is_returned(finished: Path) -> None:
    results = write_report(finished)
    assert json.loads((finished / "results.json").read_text(encoding="utf-8")) == results
    json.dumps(results, allow_nan=False)


def test_the_command_names_the_page_once(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_report(finished, say=print)
    assert capsys.readouterr().out.count("report.html") == 1


def test_both_files_are_made_again_to_the_byte(finished: Path) -> None:
    write_report(finished)
    first = [(finished / name).read_bytes() for name in ("results.json", "report.html")]
    for name in ("results.json", "report.html"):
        (finished / name).unlink()
    write_report(finished)
    assert [(finished / name).read_bytes() for name in ("results.json", "report.html")] == first


def test_a_failure_leaves_the_old_page(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(finished)
    before = (finished / "report.html").read_bytes()

    def fails(*_: object) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr("selftrain.report.write.page", fails)
    with pytest.raises(RuntimeError, match="no page"):
        write_report(finished)
    assert (finished / "report.html").read_bytes() == before
    assert not list(finished.glob(".*.tmp"))


def test_a_secret_in_a_message_is_in_no_file_and_an_old_one_not_shown(
    make_until: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, address = "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "https://me:pass-w0rd@host.example"
    monkeypatch.setenv("WANDB_API_KEY", key)
    folder = make_until("data")
    config = load_config(folder / "config.yaml")
    with RunDir.open(folder, config) as run:
        run.journal("warning", stage="data", message=f"new: no answer from {address} with {key}")
    journal = (folder / "journal.jsonl").read_text()
    assert "new: no answer from https://***@host.example with ***" in journal
    old = {"event": "warning", "stage": "data", "message": f"old: no answer from {address} with {key}"}
    (folder / "journal.jsonl").write_text(journal + json.dumps(old) + "\n")
    write_report(folder)
    for name in ("results.json", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "new: no answer" in text and "old: no answer" in text and "***@host.example" in text
        assert key not in text and "pass-w0rd" not in text


def test_figure_and_table_are_written_whole_or_not_at_all(finished: Path, tmp_path: Path) -> None:
    make_report(finished, say=print, markdown=tmp_path / "new/results.md", figure=tmp_path / "new/headline.svg")
    assert "tiny" in (tmp_path / "new/results.md").read_text() and "<svg" in (tmp_path / "new/headline.svg").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        make_report(finished, say=print, markdown=tmp_path / "file/results.md")
    before = (tmp_path / "new/headline.svg").read_bytes()
    with pytest.MonkeyPatch.context() as patched, pytest.raises(RunError, match="No space left on device"):
        patched.setenv(durable.FAULTS, "fail:fsync headline.svg:1")
        make_report(finished, say=print, figure=tmp_path / "new/headline.svg")
    assert (tmp_path / "new/headline.svg").read_bytes() == before
