"""The archive of a run: reports can be made again from it, and no text of a data set is in it."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

import pytest

from selftrain.errors import RunError
from selftrain.records import Problem, read_jsonl
from selftrain.report.archive import write_archive
from selftrain.report.write import write_report


@pytest.fixture
def unpacked(finished: Path, tmp_path: Path) -> Path:
    archive = tmp_path / "kept.tar.gz"
    assert write_archive(finished, archive) == 1
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "again", filter="data")
    return tmp_path / "again" / finished.name


def test_the_report_of_an_archive_is_the_run_s(finished: Path, unpacked: Path) -> None:
    again, first = (json.dumps(write_report(folder)).replace(str(folder), "RUN") for folder in (unpacked, finished))
    assert json.loads(again) == json.loads(first)


def test_no_text_of_a_data_set_is_kept_and_no_weights(finished: Path, unpacked: Path, tmp_path: Path) -> None:
    content = gzip.decompress((tmp_path / "kept.tar.gz").read_bytes())
    problems = [p for file in (finished / "data").glob("*.jsonl") for p in read_jsonl(file, Problem)]
    assert len(problems) > 20
    for problem in problems:
        assert problem.question.encode() not in content
    assert not list(unpacked.rglob("*.safetensors"))
    kept = [p for file in (unpacked / "data").glob("*.jsonl") for p in read_jsonl(file, Problem)]
    assert sorted(p.id for p in kept) == sorted(p.id for p in problems)
    assert all(p.question.startswith("sha256:") and p.answer is None and p.rationale is None for p in kept)
    assert len({p.question for p in kept}) == len({p.question for p in problems})


def test_the_same_folder_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_archive(finished, tmp_path / f"{name}.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no config\.yaml"):
        write_archive(tmp_path, tmp_path / "x.tar.gz")
    assert not (tmp_path / "x.tar.gz").exists()
