"""Your own problems: columns found and mapped, answers split, broken rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import DataSpec
from selftrain.data import load, prove_gold
from selftrain.errors import DataError
from selftrain.records import Problem


def spec(folder: Path, rows: list[Any] | str, name: str = "my.jsonl", **fields: Any) -> DataSpec:
    path = folder / name
    path.write_text(rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return DataSpec(source="file", path=str(path), **fields)


def test_usual_names_and_plain_equations(tmp_path: Path) -> None:
    rows = [{"Problem": "6 boxes of 7 pens?", "solution": "6 x 7 = 42 pens", "final_answer": 42.0, "topic": "x"}]
    loaded = load(spec(tmp_path, rows))
    assert loaded.problems == [Problem("my/1", "6 boxes of 7 pens?", "42", "6 x 7 = <<6*7=42>>42 pens\n#### 42")]
    assert prove_gold(loaded.problems) == []


def test_mapped_names_ids_and_groups(tmp_path: Path) -> None:
    rows = [{"text": "q?", "gold value": "1,000", "key": 7, "kind": "easy", "why": "500*2=<<500*2=1000.0>>1000"}]
    fields = {"question": "text", "answer": "gold value", "id": "key", "group": "kind", "rationale": "why"}
    found = load(spec(tmp_path, rows, fields=fields)).problems
    assert found == [Problem("my/7", "q?", "1000", "500*2=<<500*2=1000>>1000\n#### 1000", "easy")]


def test_answers_in_gsm8k_style(tmp_path: Path) -> None:
    rows = [{"question": "q?", "answer": "2+3=5\n#### 5"}, {"question": "r?", "answer": "#### 8"}]
    found = load(spec(tmp_path, rows)).problems
    assert found == [Problem("my/1", "q?", "5", "2+3=<<2+3=5>>5\n#### 5"), Problem("my/2", "r?", "8")]
    found = load(spec(tmp_path, [{"prompt": "q?", "solution": "2+3=5\n#### 5"}])).problems
    assert found == [Problem("my/1", "q?", "5", "2+3=<<2+3=5>>5\n#### 5")]


def test_annotation_can_be_turned_off(tmp_path: Path) -> None:
    rows = [{"question": "q?", "answer": "2+3=5\n#### 5"}]
    assert load(spec(tmp_path, rows, params={"annotate": False})).problems[0].rationale == "2+3=5\n#### 5"
    with pytest.raises(DataError, match=r"params.annotate: expected true or false, got 'no'"):
        load(spec(tmp_path, rows, params={"annotate": "no"}))


def test_answers_in_other_writings(tmp_path: Path) -> None:
    rows = [{"question": "q?", "answer": answer} for answer in ("$1,200.50", "5/2", "1/3", 72.0, "-3.", "B")]
    loaded = load(spec(tmp_path, rows))
    assert [problem.answer for problem in loaded.problems] == ["1200.5", "2.5", "1/3", "72", "-3", "B"]
    assert [failure.split(":")[0] for failure in prove_gold(loaded.problems)] == ["my/6"]


def test_rationales_that_end_in_another_answer_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [
        {"question": "q?", "solution": "2+3=5\n#### 5", "answer": 6},
        {"question": "r?", "solution": "2+3=5\n#### 10/2", "answer": "5"},
    ]
    loaded = load(spec(tmp_path, rows))
    assert [problem.question for problem in loaded.problems] == ["r?"]
    assert loaded.skipped == {"rationale ends in another answer": 1}


def test_rows_without_answers_where_they_are_allowed(tmp_path: Path) -> None:
    rows = [{"question": "q?", "answer": 5}, {"question": "r?"}, {"question": "s?", "answer": " ", "solution": "1+1=2"}]
    found = load(spec(tmp_path, rows, params={"unanswered": True})).problems
    assert found == [Problem("my/1", "q?", "5"), Problem("my/2", "r?"), Problem("my/3", "s?")]
    alone = load(spec(tmp_path, [{"prompt": "q?"}], params={"unanswered": True})).problems
    assert alone == [Problem("my/1", "q?")]
    with pytest.raises(DataError, match="no column for 'answer'"):
        load(spec(tmp_path, [{"prompt": "q?"}], params={"unanswered": False}))
    with pytest.raises(DataError, match=r"params.unanswered: expected true or false, got 1"):
        load(spec(tmp_path, rows, params={"unanswered": 1}))


def test_answers_that_are_letters(tmp_path: Path) -> None:
    rows = [
        {"question": "q?", "answer": "(b)", "solution": "It is larger."},
        {"question": "r?", "answer": "C) seven"},
        {"question": "s?", "solution": "Hence\n#### A."},
        {"question": "t?", "answer": "A", "solution": "Hence\n#### B"},
        {"question": "u?", "answer": "7"},
    ]
    loaded = load(spec(tmp_path, rows, verify="choice"))
    assert [(problem.answer, problem.rationale) for problem in loaded.problems] == [
        ("B", "It is larger.\n#### B"),
        ("C", None),
        ("A", "Hence\n#### A"),
        ("7", None),
    ]
    assert {problem.verify for problem in loaded.problems} == {"choice"}
    assert loaded.skipped == {"rationale ends in another answer": 1}
    assert loaded.formats == {"letter": 3, "####": 1, "number": 1}
    assert [failure.split(":")[0] for failure in prove_gold(loaded.problems)] == ["my/5"]


def test_mathematical_answers_keep_their_writing(tmp_path: Path) -> None:
    rows = [
        {"problem": "q?", "answer": "1,2", "solution": "Both solve it."},
        {"problem": "r?", "answer": "$\\boxed{x+1}$"},
        {"problem": "s?", "solution": "So $\\boxed{\\frac{1}{2}}$."},
        {"problem": "t?", "answer": "0.5", "solution": "So \\boxed{1/2}."},
        {"problem": "u?", "answer": "2+3=5\n#### 5"},
    ]
    found = load(spec(tmp_path, rows, verify="symbolic")).problems
    assert [(problem.answer, problem.rationale) for problem in found] == [
        ("1,2", "Both solve it.\n#### 1,2"),
        ("x+1", None),
        ("\\frac{1}{2}", "So $\\boxed{\\frac{1}{2}}$.\n#### \\frac{1}{2}"),
        ("0.5", "So \\boxed{1/2}.\n#### 1/2"),
        ("5", "2+3=<<2+3=5>>5\n#### 5"),
    ]


def test_a_verifier_of_one_s_own_gets_answers_as_they_stand(tmp_path: Path) -> None:
    rows = [{"question": "q?", "answer": " 1,000 pens "}, {"question": "r?", "answer": "So\n#### yes, no"}]
    found = load(spec(tmp_path, rows, verify="any_module:any_function")).problems
    assert [(problem.answer, problem.rationale) for problem in found] == [
        ("1,000 pens", None),
        ("yes, no", "So\n#### yes, no"),
    ]


def test_csv_and_json_list(tmp_path: Path) -> None:
    expected = [Problem("my/2", "a, b?", "3"), Problem("my/3", "c?", "4")]
    assert load(spec(tmp_path, 'question,answer\n"a, b?",3\nc?,4\n', "my.csv")).problems == expected
    listed = load(spec(tmp_path, '[{"question": "a, b?", "answer": 3}, {"question": "c?", "answer": "4"}]', "my.json"))
    assert [problem.id for problem in listed.problems] == ["my/1", "my/2"]
    assert [problem.answer for problem in listed.problems] == ["3", "4"]


def test_the_last_number_of_a_worked_text(tmp_path: Path) -> None:
    rows = [
        {"question": "q?", "output": "2 + 3 = 5. So it is 5 pens.", "label": "x"},
        {"question": "r?", "output": "1,000 pens"},
        {"question": "s?", "output": "1,000 pens", "solution": "500 twice"},
        {"question": "t?", "output": "Hence\n#### 7"},
    ]
    found = load(spec(tmp_path, rows, fields={"worked": "output"})).problems
    assert [(problem.answer, problem.rationale) for problem in found] == [
        ("5", "2 + 3 = <<2+3=5>>5. So it is 5 pens.\n#### 5"),
        ("1000", None),
        ("1000", "500 twice\n#### 1000"),
        ("7", None),
    ]
    assert prove_gold(found) == []
    with pytest.raises(DataError, match="line 1: expected an answer in 'output', got none"):
        load(spec(tmp_path, [{"question": "q?", "output": "none"}], fields={"worked": "output"}))
    with pytest.raises(DataError, match="is for verify: numeric, got choice"):
        load(spec(tmp_path, rows, fields={"worked": "output"}, verify="choice"))


@pytest.mark.parametrize(
    ("rows", "fields", "said"),
    [
        ([{"q": "x", "answer": 1}], {}, "no column for 'question' was found; columns found: q, answer"),
        ([{"question": "x", "a": 1}], {}, "no column for 'answer' was found; columns found: question, a"),
        ([{"question": "x", "answer": 1}], {"answer": "anwser"}, "columns found: question, answer"),
        ([{"question": "x", "answer": 1}], {"anser": "answer"}, "Did you mean 'answer'?"),
        (
            [{"question": "x", "answer": 1}, {"question": "y", "answer": ""}],
            {},
            "line 2: expected an answer in 'answer', got none",
        ),
        ([{"question": "x", "answer": 1}, {"question": "y"}], {}, "line 2: expected an answer"),
        ([{"question": "x", "answer": "2+2\n####  "}], {}, "line 1: expected an answer"),
        ([{"question": "x", "answer": [1]}], {}, "line 1: expected text or a number in 'answer', got list"),
        ([{"question": "x", "answer": True}], {}, "got bool"),
        ([{"question": 5, "answer": 1}], {}, "line 1: expected a text in 'question', got int"),
        (
            [{"question": "x", "answer": 1, "id": "a"}, {"question": "y", "answer": 1, "id": "a"}],
            {},
            "was used before, at",
        ),
        (
            [{"question": "x", **{"x" * 300_000 + str(i): 1 for i in range(3)}}],
            {},
            f"found: question, {', '.join(['x' * 80] * 3)}.",
        ),
    ],
)
def test_broken_files(tmp_path: Path, rows: list[Any], fields: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(spec(tmp_path, rows, fields=fields))
    assert said in str(caught.value)


def test_a_path_is_needed() -> None:
    with pytest.raises(DataError, match="source file needs a path"):
        load(DataSpec(source="file"))


def test_digest_is_the_file_s(tmp_path: Path) -> None:
    first = load(spec(tmp_path, [{"question": "q?", "answer": 1}])).digest
    assert first == load(spec(tmp_path, [{"question": "q?", "answer": 1}])).digest
    assert first != load(spec(tmp_path, [{"question": "q?", "answer": 2}])).digest
