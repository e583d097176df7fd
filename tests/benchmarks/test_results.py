"""The resumable file, and what a record says of completions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.child import ChildError
from benchmarks.results import Results, summary
from benchmarks.work import Question, Task, codec_of, load_task
from selftrain.errors import RunError

SETUP = {"device": "cpu", "threads": 2}


def found(*completions: tuple[int, ...], seconds: float = 2.0) -> dict[str, Any]:
    return {"token_ids": [list(ids) for ids in completions], "seconds": seconds, "peak_memory_bytes": 5}


def test_a_file_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results = Results.open(path, SETUP)
    assert results.record("ours", 0, 64, "code") is None
    results.put("ours", 0, {"rows": 64, "code": "code"})
    again = Results.open(path, SETUP)
    assert again.record("ours", 0, 64, "code") == {"rows": 64, "code": "code"}
    assert again.record("ours", 0, 128, "code") is None
    assert again.record("ours", 0, 64, "other") is None
    assert again.record("ours", 1, 64, "code") is None


def test_records_of_other_code_are_dropped(tmp_path: Path) -> None:
    results = Results.open(tmp_path / "r.json", SETUP)
    results.put("ours", 0, {"rows": 64, "code": "old"})
    results.put("ours", 1, {"rows": 64, "code": "new"})
    assert results.drop_others("ours", 64, "new") == 1
    assert list(results.content["records"]["ours"]) == ["1"]


def test_another_setup_is_refused_and_named(tmp_path: Path) -> None:
    Results.open(tmp_path / "r.json", SETUP).save()
    with pytest.raises(RunError, match=r"threads \(2 there, 4 now\)"):
        Results.open(tmp_path / "r.json", {**SETUP, "threads": 4})


def test_another_task_is_refused(tmp_path: Path, task: Task) -> None:
    results = Results.open(tmp_path / "r.json", SETUP)
    results.add_task(task)
    results.content["tasks"][task.name]["samples"] = 9
    with pytest.raises(RunError, match="samples"):
        results.add_task(task)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"records": ', encoding="utf-8")
    with pytest.raises(RunError, match="not a results file"):
        Results.open(path, SETUP)


def test_a_failure_is_remembered_until_it_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    Results.open(path, SETUP).fail("hf", "too slow")
    again = Results.open(path, SETUP)
    assert again.content["failures"] == {"hf": "too slow"}
    again.put("hf", 0, {"rows": 1})
    assert json.loads(path.read_text())["failures"] == {}


def test_a_record_counts_tokens_right_answers_and_annotations(task: Task) -> None:
    codec = codec_of(task)
    question = Question("q", (1,), "42", "made up")
    right = codec.target("6*7=<<6*7=42>>42\n#### 42")
    wrong = codec.target("6*7=<<6*7=41>>41\n#### 41")[:-1]  # cut before its end token
    record = summary(task, codec, [question], 2, 64, found(right, wrong))
    assert record["completions"] == 2
    assert record["completions_per_s"] == 1.0
    assert record["tokens"] == len(right) + len(wrong)
    assert (record["cut"], record["judged"], record["right"]) == (1, 2, 1)
    assert (record["annotations"], record["annotations_right"]) == (2, 1)
    assert record["peak_memory_bytes"] == 5
    assert "token_ids" not in record


def test_missing_completions_are_an_error(task: Task) -> None:
    with pytest.raises(ChildError, match="expected 2 completions, got 1"):
        summary(task, codec_of(task), [Question("q", (1,), None, "")], 2, 64, found((5,)))


def test_a_task_survives_its_file(work: Path, task: Task) -> None:
    again = load_task(task.save(work))
    assert again == task
    assert again.fingerprint() == task.fingerprint()
    assert str(work) not in json.dumps(task.facts())
    assert {question.source for question in task.work} == {"arithmetic"}
    assert not {q.prompt for q in task.work} & {q.prompt for q in task.search}
