"""A file that is whole or not there, whose half-done parts are gone on with by the same job only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selftrain import locking
from selftrain.errors import RunError
from selftrain.outfile import OutFile, differences
from selftrain.records import Completion, read_jsonl

JOB = {"seed": 1, "model": "a" * 64, "top_p": 1.0}
ROWS = [Completion("q", k, (1, 2), "text", "eos") for k in range(3)]


@pytest.fixture
def out(tmp_path: Path) -> OutFile:
    return OutFile(tmp_path / "samples.jsonl")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def half_done(out: OutFile) -> None:
    with out.open(JOB) as parts:
        (parts / "piece").write_text("done")


def test_from_nothing_to_a_finished_file(out: OutFile) -> None:
    out.check_place()
    assert out.finished(JOB) is None and names(out.path.parent) == []
    half_done(out)
    assert out.finished(JOB) is None and not out.path.exists()
    with out.open(JOB) as parts:
        assert (parts / "piece").read_text() == "done"
        out.deliver(ROWS, JOB, {"sets": [1, 2]})
    assert names(out.path.parent) == ["samples.jsonl", "samples.jsonl.manifest.json"]
    manifest = out.finished(JOB)
    assert manifest is not None and (manifest["rows"], manifest["sets"]) == (3, [1, 2])
    assert read_jsonl(out.path, Completion) == ROWS
    out.check_place()


def test_cut_off_between_manifest_and_file_it_goes_on(out: OutFile) -> None:
    half_done(out)
    out.manifest.write_text(json.dumps({"identity": JOB, "sha256": "0"}))
    assert out.finished(JOB) is None
    with out.open(JOB) as parts:
        assert (parts / "piece").exists()


def test_parts_left_behind_by_a_finished_file_are_removed(out: OutFile, tmp_path: Path) -> None:
    half_done(out)
    shutil.copytree(out.parts, tmp_path / "left")
    with out.open(JOB):
        out.deliver(ROWS, JOB, {})
    shutil.move(tmp_path / "left", out.parts)
    assert out.finished(JOB) is not None
    assert not out.parts.exists()


@pytest.mark.parametrize("is_finished", [False, True])
def test_another_job_is_refused_and_its_keys_are_named(out: OutFile, is_finished: bool) -> None:
    with out.open(JOB):
        if is_finished:
            out.deliver(ROWS, JOB, {})
    other = {"seed": 2, "model": "b" * 64, "top_p": 1}
    with pytest.raises(RunError) as caught:
        out.finished(other)
    assert "model (aaaaaaaaaaaa there, bbbbbbbbbbbb asked), seed (1 there, 2 asked)" in caught.value.message
    assert "top_p" not in caught.value.message
    assert ("finished" if is_finished else "half done") in caught.value.message
    assert (out.finished(JOB) is not None) is is_finished, "it is left alone"
    if not is_finished:
        with pytest.raises(RunError, match="half done"), out.open(other):
            pytest.fail("opened")


def test_a_changed_file_is_refused(out: OutFile) -> None:
    with out.open(JOB):
        out.deliver(ROWS, JOB, {})
    out.path.write_text(out.path.read_text() + "\n")
    with pytest.raises(RunError, match="was changed after it was made"):
        out.finished(JOB)


def test_two_processes_cannot_work_on_one_file(out: OutFile) -> None:
    with out.open(JOB), pytest.raises(RunError, match="in use by process"), OutFile(out.path).open(JOB):
        pytest.fail("opened twice")
    half_done(out)


def test_what_another_process_finished_meanwhile_is_not_done_again(out: OutFile) -> None:
    assert out.finished(JOB) is None
    with OutFile(out.path).open(JOB):
        OutFile(out.path).deliver(ROWS, JOB, {})
    before = out.path.read_bytes()
    with pytest.raises(RunError, match="was finished by another process just now"), out.open(JOB):
        pytest.fail("opened")
    assert names(out.path.parent) == ["samples.jsonl", "samples.jsonl.manifest.json"]
    assert out.path.read_bytes() == before and out.finished(JOB) is not None


def test_a_lock_that_was_removed_while_it_was_waited_for_is_not_held(
    out: OutFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(descriptor: int, *, wait: bool) -> None:  # the one who held it has finished and removed the parts
        shutil.rmtree(out.parts)

    monkeypatch.setattr(locking, "lock", lock)
    with pytest.raises(RunError, match="could not be written"), out.open(JOB):
        pytest.fail("opened")


def test_what_others_left_is_never_touched(out: OutFile) -> None:
    out.path.write_text("mine\n")
    with pytest.raises(RunError, match=r"is there already and has no manifest samples.jsonl.manifest.json"):
        out.check_place()
    assert out.path.read_text() == "mine\n"
    out.path.unlink()
    out.parts.mkdir()
    out.check_place()
    (out.parts / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something else"):
        out.check_place()
    assert names(out.parts) == ["notes.txt"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent/samples.jsonl", "there is no folder"),
        (".", "Expected a file to write"),
        ("..", "got a folder"),
        ("/proc/samples.jsonl", "nothing can be written into /proc"),
    ],
)
def test_places_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    if path.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=message):
        OutFile(Path(path)).check_place()
    assert names(tmp_path) == []


def test_a_key_that_one_side_lacks_is_a_difference() -> None:
    assert differences({"data.a": "x"}, {"data.b": "y"}) == [
        "data.a ('x' there, nothing asked)",
        "data.b (nothing there, 'y' asked)",
    ]
