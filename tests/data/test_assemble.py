"""How sets are drawn and kept apart: on made-up files small enough to check by eye, and on the real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import DataConfig, DataSpec
from selftrain.data.assemble import (
    NEAR_COPY,
    NO_RATIONALE,
    TAKEN_QUESTION,
    TEST_QUESTION,
    VALIDATION_QUESTION,
    assemble,
)
from selftrain.data.base import LoadedSet, load_source
from selftrain.errors import DataError
from selftrain.records import Problem


def question(number: int) -> str:
    """Questions that share no word with each other."""
    return f"ant{number} bees{number} cat{number}?"


def write(folder: Path, name: str, questions: Sequence[str], **extra: Any) -> dict[str, Any]:
    """A file of problems; returns its spec. Every problem's answer is 5."""
    rows = [{"question": text, "answer": "5", "solution": "2+3=5", **extra} for text in questions]
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return {"source": "file", "name": name, "path": str(path)}


def draw(train: dict[str, Any], count_tokens: Any = None, **fields: Any) -> Any:
    return assemble(DataConfig.model_validate({"train": train, **fields}), 0, count_tokens)


def questions(problems: Sequence[Problem]) -> list[str]:
    return [problem.question for problem in problems]


def test_parts_of_one_file_are_disjoint_and_fill_it(tmp_path: Path) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(20)])
    sets = draw(
        {**pool, "shuffle": 1, "skip": 8, "take": 5},
        test=[{**pool, "shuffle": 1, "take": 4}],
        validation={**pool, "shuffle": 1, "skip": 4, "take": 4},
        unlabelled={**pool, "shuffle": 1, "skip": 13},
    )
    ids = [
        problem.id for part in (sets.train, sets.unlabelled, sets.validation, sets.tests["pool"]) for problem in part
    ]
    assert [len(sets.train), len(sets.unlabelled), len(sets.validation), len(sets.tests["pool"])] == [5, 7, 4, 4]
    assert len(set(ids)) == len(ids) == 20
    assert ids != sorted(ids)
    assert all(problem.rationale for problem in sets.train)
    assert not any(problem.rationale for problem in sets.unlabelled)


def test_order_is_the_seed_s_and_survives_filters(tmp_path: Path) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(20)])
    first = [problem.id for problem in draw({**pool, "shuffle": 1}).train]
    assert first == [problem.id for problem in draw({**pool, "shuffle": 1}).train]
    assert first != [problem.id for problem in draw({**pool, "shuffle": 2}).train]
    assert [problem.id for problem in draw(pool).train] == [f"pool/{number}" for number in range(1, 21)]

    def count(problem: Problem) -> tuple[int, int]:
        return int(problem.id.split("/")[1]), 10

    short = draw({**pool, "shuffle": 1, "max_prompt_tokens": 12}, count)
    assert [problem.id for problem in short.train] == [name for name in first if int(name.split("/")[1]) <= 12]
    assert draw({**pool, "max_tokens": 17}, count).report["sets"]["train"]["too_long"] == 13


def test_limits_count_the_rationale_of_unlabelled_rows_too(tmp_path: Path) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(6)])

    def count(problem: Problem) -> tuple[int, int]:
        return 5, 0 if problem.rationale is None else int(problem.id.split("/")[1])

    sets = draw(
        {**pool, "max_tokens": 9, "take": 2},
        count,
        unlabelled={**pool, "max_tokens": 9, "skip": 2, "rationales": False},
    )
    assert [problem.id for problem in sets.unlabelled] == ["pool/3", "pool/4"]
    assert sets.report["sets"]["train"]["mean_prompt_tokens"] == 5.0
    assert sets.report["sets"]["train"]["mean_rationale_tokens"] == 1.5
    with pytest.raises(ValueError, match="needs count_tokens"):
        draw({**pool, "max_tokens": 9})


def test_test_and_validation_questions_never_train(tmp_path: Path) -> None:
    pool = [question(number) for number in range(8)]
    test = write(tmp_path, "test", [f"  {pool[0].upper()} "])
    validation = write(tmp_path, "validation", [pool[1], pool[0], pool[2]])
    sets = draw(
        {**write(tmp_path, "train", pool), "take": 3},
        test=[test],
        validation=validation,
        unlabelled={**write(tmp_path, "more", [pool[0], pool[1], pool[3], pool[6], pool[7], pool[7]]), "take": 2},
    )
    assert questions(sets.validation) == [pool[1], pool[2]]
    assert questions(sets.train) == [pool[3], pool[4], pool[5]]
    assert questions(sets.unlabelled) == [pool[6], pool[7]]
    accounts = sets.report["sets"]
    assert accounts["validation"]["passed_over"] == {TEST_QUESTION: 1}
    assert accounts["train"]["passed_over"] == {TEST_QUESTION: 1, VALIDATION_QUESTION: 2}
    assert accounts["unlabelled"]["passed_over"] == {TEST_QUESTION: 1, VALIDATION_QUESTION: 1, TAKEN_QUESTION: 1}


def test_questions_that_repeat_inside_training_are_taken_once(tmp_path: Path) -> None:
    train = write(tmp_path, "train", [question(0), question(0).upper(), question(1)])
    sets = draw(train)
    assert questions(sets.train) == [question(0), question(1)]
    assert sets.report["sets"]["train"]["passed_over"] == {TAKEN_QUESTION: 1}


LONG = "ann has one two three four five six seven eight nine pens how many"


def test_near_copies_are_counted_or_left_out(tmp_path: Path) -> None:
    # 14 words; two changed: 12 shared of 16, 0.75; one changed: 13 of 15, 0.867.
    copy, looser = LONG.replace("pens", "cups"), LONG.replace("pens", "cups").replace("ann", "bob")
    test = write(tmp_path, "test", [LONG, question(5)])
    train = write(tmp_path, "train", [copy, looser, question(0), question(1)])
    kept = draw({**train, "take": 3}, test=[test])
    assert questions(kept.train) == [copy, looser, question(0)]
    assert kept.report["sets"]["train"]["near_copies"] == 1
    assert kept.report["sets"]["test/test"]["near_copies"] == 1
    assert [problem.neighbour for problem in kept.tests["test"]] == [pytest.approx(13 / 15, abs=1e-4), 0.0]

    left_out = draw({**train, "take": 3}, test=[test], drop_near_duplicates=True)
    assert questions(left_out.train) == [looser, question(0), question(1)]
    assert left_out.report["sets"]["train"]["near_copies"] == 0
    assert left_out.report["sets"]["train"]["passed_over"] == {NEAR_COPY: 1}
    assert left_out.tests["test"][0].neighbour == pytest.approx(12 / 16)
    stricter = draw({**train, "take": 2}, test=[test], drop_near_duplicates=True, near_duplicate=0.7)
    assert questions(stricter.train) == [question(0), question(1)]


def test_neighbours_are_looked_for_among_unlabelled_questions_too(tmp_path: Path) -> None:
    sets = draw(
        write(tmp_path, "train", [question(0)]),
        test=[write(tmp_path, "test", [LONG])],
        unlabelled=write(tmp_path, "more", [LONG.replace("pens", "cups")]),
    )
    assert sets.tests["test"][0].neighbour == pytest.approx(13 / 15, abs=1e-4)
    assert sets.report["sets"]["unlabelled"]["near_copies"] == 1


def test_rows_without_rationale_are_passed_over_in_training_only(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    rows = [{"question": question(0), "answer": 5}, {"question": question(1), "answer": "2+3=5\n#### 5"}]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    mixed = {"source": "file", "path": str(path)}
    sets = draw(mixed, unlabelled=mixed)
    assert questions(sets.train) == [question(1)]
    assert sets.report["sets"]["train"]["passed_over"] == {NO_RATIONALE: 1}
    assert questions(sets.unlabelled) == [question(0)]
    with pytest.raises(DataError, match=r"data.train: expected 2 problems, got 1 of 2; 1 no rationale") as caught:
        draw({**mixed, "take": 2})
    assert caught.value.hint == "Lower take or skip, or write more rationales."


def test_what_to_do_follows_from_what_was_left_out(tmp_path: Path) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(4)])
    test = write(tmp_path, "test", [question(0), question(1)])

    def hint(train: dict[str, Any], **fields: Any) -> str:
        with pytest.raises(DataError, match=r"data\.train: expected") as caught:
            draw(train, lambda problem: (1 + int(problem.id.split("/")[1]), 0), **fields)
        return str(caught.value.hint)

    assert hint({**pool, "take": 3}, test=[test]) == "Lower take or skip, or bring further questions."
    assert hint(pool, test=[pool]) == "Bring further questions."
    assert hint({**pool, "take": 3, "max_tokens": 3}) == "Lower take or skip, or raise the limits on tokens."
    assert hint({**pool, "max_tokens": 1}) == "Raise the limits on tokens."
    assert hint({**pool, "take": 5}) == "Lower take or skip."


def test_what_is_refused(tmp_path: Path) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(4)])
    bare = write(tmp_path, "bare", [question(9)], solution="")
    with pytest.raises(DataError, match=r"data.train: expected 5 problems, got 3 of 4; 1 skipped"):
        draw({**pool, "skip": 1, "take": 5})
    with pytest.raises(DataError, match=r"data.test/pool: expected 1 problems, got 0 of 4; 4 skipped"):
        draw(pool, test=[{**pool, "skip": 9}])
    with pytest.raises(DataError, match="expected 1 problems, got 0 of 1; 1 no rationale") as caught:
        draw(bare)
    assert "map a rationale column" in str(caught.value.hint)
    with pytest.raises(DataError, match="expected rationales"):
        draw({**pool, "rationales": False})
    word = write(tmp_path, "word", [question(8)], answer="Tuesday", solution="It is so")
    with pytest.raises(DataError, match=r"data.train: 1 of 1 gold answers do not pass their own verifier: word/1"):
        draw(word)
    gym = {"source": "reasoning_gym:gsm_symbolic", "name": "a", "params": {"seed": 3, "size": 9}}
    with pytest.raises(DataError, match="too near"):
        draw(pool, test=[gym, {**gym, "name": "b", "params": {"seed": 4, "size": 9}}])
    folder = tmp_path / "other"
    folder.mkdir()
    with pytest.raises(DataError, match=r"2 problems with id 'pool/1'"):
        draw(pool, unlabelled=write(folder, "pool", [question(7)]))


def test_report_is_json_and_digests_follow_the_rows(tmp_path: Path) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(4)])
    one, two = draw({**pool, "take": 2}).report, draw({**pool, "take": 3}).report
    assert json.loads(json.dumps(one)) == one
    assert one["sets"]["train"]["rows"] == 2
    assert one["sets"]["train"]["source_sha256"] == two["sets"]["train"]["source_sha256"]
    assert one["sets"]["train"]["rows_sha256"] != two["sets"]["train"]["rows_sha256"]


def test_a_source_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write(tmp_path, "pool", [question(number) for number in range(4)])
    calls: list[DataSpec] = []

    def counted(spec: DataSpec, *, offline: bool) -> LoadedSet:
        calls.append(spec)
        return load_source(spec, offline=offline)

    monkeypatch.setattr("selftrain.data.assemble.load_source", counted)
    draw({**pool, "skip": 2}, test=[{**pool, "take": 2, "rationales": False}])
    assert len(calls) == 1


def test_asdiv_and_svamp_as_the_recipe_has_them(data_dir: Path) -> None:
    asdiv = {"source": "asdiv", "path": str(data_dir / "asdiv" / "ASDiv.xml"), "shuffle": 1}
    svamp = {"source": "svamp", "path": str(data_dir / "svamp" / "SVAMP.json")}
    sets = draw(
        {**asdiv, "skip": 300, "take": 300},
        unlabelled={**asdiv, "skip": 600, "take": 700},
        test=[{**asdiv, "take": 300}, svamp],
        drop_near_duplicates=True,
    )
    assert [len(sets.train), len(sets.unlabelled), len(sets.tests["asdiv"]), len(sets.tests["svamp"])] == [
        300,
        700,
        300,
        1000,
    ]
    tests = [problem for problems in sets.tests.values() for problem in problems]
    assert max(problem.neighbour or 0.0 for problem in tests) < 0.8
    assert sets.report["sets"]["train"]["passed_over"][NEAR_COPY] > 0
    learned = {problem.id for problem in [*sets.train, *sets.unlabelled]}
    assert len(learned) == 1000
    assert learned.isdisjoint(problem.id for problem in tests)
