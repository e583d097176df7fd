"""GSM8K, SVAMP, ASDiv and MultiArith from small made-up files, from a stand-in hub, and from the real files."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import DataSpec
from selftrain.data import gsm8k, load, prove_gold
from selftrain.data.asdiv import NOT_ONE_NUMBER, single_number
from selftrain.data.formula import NOT_ARITHMETIC, NOT_EQUAL
from selftrain.data.hub import hub_rows
from selftrain.errors import DataError
from selftrain.records import Problem

GSM8K_ROW = {"question": " 6 boxes of 7? ", "answer": "There are 6*7=<<6*7=42.0>>42.\n#### 1,042"}
SVAMP_ROW = {
    "ID": "chal-1",
    "Body": "Ann had 9 pens and lost 4",
    "Question": "How many are left?",
    "Equation": "( 9.0 - 4.0 )",
    "Answer": 5.0,
}
ASDIV = """<?xml version="1.0" encoding="UTF-8" ?>
<Machine-Reading-Corpus-File><ProblemSet>
  <Problem ID="n-1"><Body>Two &amp; three pens.</Body><Question>How many?</Question>
    <Answer>5 (pens)</Answer><Formula>2+3=5</Formula></Problem>
  <Problem ID="n-2"><Body>Ann,</Body><Question>who wins?</Question>
    <Answer>Ann</Answer><Formula>2&gt;1</Formula></Problem>
  <Problem ID="n-3"><Body>45 in 12s.</Body><Question>Cases?</Question>
    <Answer>4 (cases)</Answer><Formula>45/12=3 r9</Formula></Problem>
  <Problem ID="n-4"><Body>Both.</Body><Question>When?</Question>
    <Answer>33 (days)</Answer><Formula>LCM[11,3]=33</Formula></Problem>
  <Problem ID="n-5"><Body>Sides.</Body><Question>Which?</Question>
    <Answer>6 (cm); 15 (cm)</Answer><Formula>6+0=6</Formula></Problem>
</ProblemSet></Machine-Reading-Corpus-File>
"""


def spec(folder: Path, source: str, name: str, content: object, **fields: Any) -> DataSpec:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return DataSpec(source=source, path=str(path), **fields)


def test_gsm8k_row(tmp_path: Path) -> None:
    text = json.dumps(GSM8K_ROW) + "\n" + json.dumps({**GSM8K_ROW, "answer": "#### -3"})
    assert load(spec(tmp_path, "gsm8k", "train.jsonl", text)).problems == [
        Problem("gsm8k/train-1", "6 boxes of 7?", "1042", "There are 6*7=<<6*7=42>>42.\n#### 1042"),
        Problem("gsm8k/train-2", "6 boxes of 7?", "-3"),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q?", "answer": "no mark"}, "line 1: expected an answer that ends in '#### NUMBER', got no ####"),
        ({"question": "q?", "answer": "x\n#### many"}, "got #### 'many'"),
        ({"question": "q?"}, "line 1: expected a text in 'answer', got nothing"),
        ({"question": "", "answer": "#### 3"}, "expected a text in 'question', got an empty text"),
    ],
)
def test_gsm8k_broken_rows(tmp_path: Path, row: dict[str, str], said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(spec(tmp_path, "gsm8k", "train.jsonl", json.dumps(row)))
    assert said in caught.value.message


def test_svamp_row(tmp_path: Path) -> None:
    other = {**SVAMP_ROW, "ID": "chal-2", "Equation": "( 9.0 / 4.0 )", "Answer": "2"}
    loaded = load(spec(tmp_path, "svamp", "SVAMP.json", [SVAMP_ROW, other]))
    question = "Ann had 9 pens and lost 4. How many are left?"
    assert loaded.problems == [
        Problem("svamp/chal-1", question, "5", "9-4=<<9-4=5>>5\n#### 5"),
        Problem("svamp/chal-2", question, "2"),
    ]
    assert loaded.notes == ["1 rows have no rationale: their equation does not give the answer exactly"]


def test_svamp_broken_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2: expected a number in 'Answer', got 'five'"):
        load(spec(tmp_path, "svamp", "a.json", [SVAMP_ROW, {**SVAMP_ROW, "ID": "x", "Answer": "five"}]))
    with pytest.raises(DataError, match=r"row 2: id 'svamp/chal-1' was used before, at .*b\.json, row 1\."):
        load(spec(tmp_path, "svamp", "b.json", [SVAMP_ROW, SVAMP_ROW]))


def test_asdiv_by_formula_and_by_answer(tmp_path: Path) -> None:
    by_formula = load(spec(tmp_path, "asdiv", "a.xml", ASDIV))
    first = Problem("asdiv/n-1", "Two & three pens. How many?", "5", "2+3=<<2+3=5>>5\n#### 5")
    assert by_formula.problems == [first]
    assert by_formula.skipped == {NOT_ONE_NUMBER: 2, NOT_EQUAL: 1, NOT_ARITHMETIC: 1}
    by_answer = load(spec(tmp_path, "asdiv", "a.xml", ASDIV, params={"usable": "answer"}))
    assert [(problem.id, problem.answer) for problem in by_answer.problems] == [
        ("asdiv/n-1", "5"),
        ("asdiv/n-3", "4"),
        ("asdiv/n-4", "33"),
    ]
    assert [problem.rationale for problem in by_answer.problems] == [first.rationale, None, None]


@pytest.mark.parametrize(
    ("answer", "number"),
    [("9 (apples)", "9"), ("9.80 (dollars)", "9.8"), ("81", "81"), ("1,200 (m)", "1200"), ("5/2", None), ("3:4", None)]
    + [("5 (a); 6 (b)", None), ("-(1/3)", None), ("11:45 p.m.", None), ("9 (apples", None), ("", None)],
)
def test_asdiv_single_number(answer: str, number: str | None) -> None:
    assert single_number(answer) == number


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ASDIV.replace("</ProblemSet>", ""), "line 13: not XML (mismatched tag, column 2)"),
        (ASDIV.replace('ID="n-2"', ""), "Problem 2 has no ID"),
        (ASDIV.replace("<Answer>Ann</Answer>", ""), "Problem 2 (n-2): expected a text in 'answer', got nothing"),
        (ASDIV.replace('ID="n-3"', 'ID="n-1"'), "Problem 3 (n-1): id 'asdiv/n-1' was used before, at"),
        ("<a></a>", "with <Problem> elements, got none"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "declares a document type"),
        ("not xml", "line 1: not XML"),
    ],
)
def test_asdiv_broken_files(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        load(spec(tmp_path, "asdiv", "a.xml", content, params={"usable": "answer"}))
    assert said in caught.value.message


def test_asdiv_unknown_filter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 'formula' or 'answer', got 'all'"):
        load(spec(tmp_path, "asdiv", "a.xml", ASDIV, params={"usable": "all"}))


def test_multiarith_in_both_forms(tmp_path: Path) -> None:
    first = load(spec(tmp_path, "multiarith", "M.json", [{"sQuestion": " How many? ", "lSolutions": [8.0]}]))
    assert first.problems == [Problem("multiarith/M-1", "How many?", "8")]
    hub_form = load(spec(tmp_path, "multiarith", "M.jsonl", json.dumps({"question": "How many?", "final_ans": "8"})))
    assert hub_form.problems == first.problems
    with pytest.raises(DataError, match=r"expected one number in 'lSolutions', got '\[8, 9\]'"):
        load(spec(tmp_path, "multiarith", "M.json", [{"sQuestion": "How many?", "lSolutions": [8, 9]}]))


@pytest.mark.parametrize(
    ("equations", "steps"),
    [
        (["X=((9.0-4.0)*2.0)"], "9-4=<<9-4=5>>5\n5*2=<<5*2=10>>10\n#### 10"),
        (["(9.0-4.0)*2.0 = x"], "9-4=<<9-4=5>>5\n5*2=<<5*2=10>>10\n#### 10"),
        (["x = 7 + 3"], "7+3=<<7+3=10>>10\n#### 10"),
        (["X=(9.0-4.0)*3.0"], None),  # another answer
        (["X=10"], None),  # no step
        (["X=9-4", "Y=5*2"], None),
        ([], None),
        (None, None),
        (10, None),
    ],
)
def test_multiarith_with_equations(tmp_path: Path, equations: object, steps: str | None) -> None:
    row = {"sQuestion": "How many?", "lEquations": equations, "lSolutions": [10.0]}
    loaded = load(spec(tmp_path, "multiarith", "M.json", [row]))
    assert loaded.problems == [Problem("multiarith/M-1", "How many?", "10", steps)]
    assert prove_gold(loaded.problems) == []
    said = "1 rows have no rationale: no equation gives their answer exactly"
    assert loaded.notes == ([said] if steps is None else [])
    without = load(spec(tmp_path, "multiarith", "M.json", [row], rationales=False))
    assert without.problems == [Problem("multiarith/M-1", "How many?", "10")]


def stand_in_hub(
    monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[dict[str, Any]]], offline: bool = False
) -> list[Any]:
    """A module `datasets` that serves these rows by split; returns the list of calls made to it."""
    calls: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> list[dict[str, Any]]:
        calls.append((name, config, split, revision))
        if split not in rows:
            raise ConnectionError("Couldn't reach the hub")
        return rows[split]

    module = types.SimpleNamespace(
        load_dataset=load_dataset,
        config=types.SimpleNamespace(HF_HUB_OFFLINE=offline),
        exceptions=types.SimpleNamespace(DatasetsError=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_hub_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_hub(monkeypatch, {"train": [GSM8K_ROW], "test": [GSM8K_ROW]})
    assert [problem.id for problem in load(DataSpec(source="gsm8k")).problems] == ["gsm8k/train-1"]
    both = load(DataSpec(source="gsm8k", split="train+test"))
    assert [problem.id for problem in both.problems] == ["gsm8k/train-1", "gsm8k/test-1"]
    calls = stand_in_hub(monkeypatch, {"train": [{"question": "How many?", "final_ans": "8"}], "test": []})
    loaded = load(DataSpec(source="multiarith"))
    assert loaded.problems == [Problem("multiarith/train-1", "How many?", "8")] and len(calls) == 2
    assert loaded.notes[1:] == ["1 rows have no rationale: no equation gives their answer exactly"]
    stand_in_hub(monkeypatch, {"validation": [HUB_ROWS["asdiv"]]})
    assert load(DataSpec(source="asdiv")).problems[0].rationale == "2+3=<<2+3=5>>5\n#### 5"


HUB_ROWS = {
    "gsm8k": GSM8K_ROW,
    "svamp": SVAMP_ROW,
    "asdiv": {"body": "2 and 3.", "question": "Sum?", "answer": "5", "formula": "2+3=5"},
    "multiarith": {"question": "How many?", "final_ans": "8"},
}


@pytest.mark.parametrize(
    ("source", "split", "calls"),
    [
        ("gsm8k", None, [("openai/gsm8k", "main", "train", None)]),
        ("gsm8k", "paper-train", [("openai/gsm8k", "main", "train", None)]),
        ("gsm8k", "test", [("openai/gsm8k", "main", "test", None)]),
        ("svamp", None, [("ChilleD/SVAMP", None, split, None) for split in ("train", "test")]),
        ("svamp", "test", [("ChilleD/SVAMP", None, "test", None)]),
        ("asdiv", None, [("EleutherAI/asdiv", None, "validation", "refs/convert/parquet")]),
        ("multiarith", None, [("ChilleD/MultiArith", None, split, None) for split in ("train", "test")]),
        ("multiarith", "train", [("ChilleD/MultiArith", None, "train", None)]),
    ],
)
def test_what_the_hub_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, source: str, split: str | None, calls: list[tuple[str | None, ...]]
) -> None:
    """Name, configuration, splits and revision, each asked for once, and their rows taken."""
    row = HUB_ROWS[source]
    served = {part: [{**row, "ID": part} if "ID" in row else row] for *_, part, _ in calls if part}
    asked = stand_in_hub(monkeypatch, served)
    loaded = load(DataSpec(source=source, split=split))
    assert asked == calls
    assert len(loaded.problems) == len(calls) and loaded.notes[0] == f"hub data set {calls[0][0]}"


def test_the_package_that_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one, with a folder in place of a data set of the hub."""
    datasets = pytest.importorskip("datasets", reason="needs the extra `hub`")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.jsonl").write_text('{"question": "a?", "answer": "1"}\n{"question": "b?", "answer": "2"}\n')
    rows = hub_rows(str(tmp_path / "set"), ["train"], offline=False)
    assert [(row.key, row.values["question"]) for row in rows] == [("train-1", "a?"), ("train-2", "b?")]
    with pytest.raises(DataError, match="split 'test': could not be loaded"):
        hub_rows(str(tmp_path / "set"), ["test"], offline=False)


def test_hub_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_hub(monkeypatch, {})
    with pytest.raises(DataError, match="could not be loaded from the hub") as caught:
        load(DataSpec(source="svamp"))
    assert "local file" in str(caught.value.hint)
    with pytest.raises(DataError, match="this run is offline"):
        load(DataSpec(source="svamp"), offline=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"selftrain\[hub\]"):
        load(DataSpec(source="svamp"))


def test_cached_hub_data_is_used_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_hub(monkeypatch, {"train": [GSM8K_ROW]}, offline=True)
    assert len(load(DataSpec(source="gsm8k"), offline=True).problems) == 1


def test_real_asdiv_counts(data_dir: Path) -> None:
    path = str(data_dir / "asdiv" / "ASDiv.xml")
    by_formula = load(DataSpec(source="asdiv", path=path))
    assert len(by_formula.problems) == 1530
    assert by_formula.skipped == {NOT_ONE_NUMBER: 221, NOT_ARITHMETIC: 399, NOT_EQUAL: 155}
    by_answer = load(DataSpec(source="asdiv", path=path, params={"usable": "answer"}))
    assert len(by_answer.problems) == 2084
    assert len(load(DataSpec(source="asdiv", path=path, rationales=False)).problems) == 2084
    assert {problem.id for problem in by_formula.problems} < {problem.id for problem in by_answer.problems}
    assert prove_gold([*by_formula.problems, *by_answer.problems]) == []


def test_real_svamp(data_dir: Path) -> None:
    loaded = load(DataSpec(source="svamp", path=str(data_dir / "svamp" / "SVAMP.json")))
    assert len(loaded.problems) == 1000
    assert sum(problem.rationale is not None for problem in loaded.problems) == 998
    assert prove_gold(loaded.problems) == []


def test_real_gsm8k(data_dir: Path) -> None:
    for name, count in (("train", 6705), ("dev", 768)):
        path = data_dir / "gsm8k" / f"{name}.jsonl"
        loaded = load(DataSpec(source="gsm8k", path=str(path)))
        assert len(loaded.problems) == count
        assert prove_gold(loaded.problems) == []
        stated = [json.loads(line)["ans"] for line in path.read_text(encoding="utf-8").splitlines()]
        assert [float(problem.answer or "") for problem in loaded.problems] == stated


def test_the_papers_split_of_gsm8k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose question is in the list are the validation part, of a file as of the hub; nothing is in both."""
    rows = [{**GSM8K_ROW, "question": f"{number} boxes?"} for number in range(3)]
    monkeypatch.setattr(gsm8k, "_held_out", lambda: frozenset({gsm8k.question_key("1  BOXES")}))
    text = "\n".join(map(json.dumps, rows))
    parts = {
        split: [problem.id for problem in load(spec(tmp_path, "gsm8k", "train.jsonl", text, split=split)).problems]
        for split in ("paper-train", "paper-validation")
    }
    assert parts == {"paper-train": ["gsm8k/train-1", "gsm8k/train-3"], "paper-validation": ["gsm8k/train-2"]}
    with pytest.raises(DataError, match="not from the hub"):
        load(spec(tmp_path, "gsm8k", "train.jsonl", text, split="test"))
    one_side = json.dumps(rows[0])
    with pytest.raises(DataError, match=r"got none \(1 not in the split paper-validation\)"):
        load(spec(tmp_path, "gsm8k", "train.jsonl", one_side, split="paper-validation"))


def test_the_list_of_the_papers_split_is_that_of_the_real_files(data_dir: Path) -> None:
    for name, split, count in (("train", "paper-train", 6705), ("dev", "paper-validation", 768)):
        path = str(data_dir / "gsm8k" / f"{name}.jsonl")
        assert len(load(DataSpec(source="gsm8k", path=path, split=split)).problems) == count
