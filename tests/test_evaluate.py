"""`selftrain evaluate`: sets are named, read and checked before any model is loaded; the table is counted right."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from selftrain import evaluate
from selftrain.config import PromptConfig
from selftrain.errors import DataError, RunError
from selftrain.records import Completion, Problem, Verdict, read_jsonl, write_jsonl


@dataclasses.dataclass
class StubCodec:
    """A prompt of one token a word."""

    config: PromptConfig

    def prompt(self, question: str) -> tuple[int, ...]:
        return tuple(range(len(question.split())))


class StubTutor:
    """Right strictly on every other problem, flexibly on all; one call each."""

    def __init__(self) -> None:
        self.codec = StubCodec(PromptConfig(max_prompt_tokens=5))
        self.asked: list[tuple[str, bool]] = []

    def evaluate(self, problems: Sequence[Problem], *, calculator: bool, progress: Any) -> list[Completion]:
        self.asked += [(problem.id, calculator) for problem in problems]
        right, wrong = Verdict("right", "1"), Verdict("wrong", "2")
        return [
            Completion(p.id, 0, (1, 2), "t", "eos", ((0, 1),), 1, 0, "m", "use", wrong if i % 2 else right, right)
            for i, p in enumerate(problems)
        ]


@pytest.fixture
def tutor(monkeypatch: pytest.MonkeyPatch) -> StubTutor:
    made = StubTutor()
    monkeypatch.setattr("selftrain.use.open_model", lambda name, say: made)
    return made


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_rows(*rows: dict[str, Any], name: str = "my") -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write_rows


ROWS = [{"question": "one two three", "answer": str(i)} for i in range(4)]


@pytest.mark.parametrize(
    ("text", "source", "path", "label"),
    [
        ("svamp", "svamp", None, "svamp"),
        ("svamp=some/SVAMP.json", "svamp", "some/SVAMP.json", "svamp"),
        ("my.jsonl", "file", "my.jsonl", "my"),
        ("a=b/my.jsonl", "file", "a=b/my.jsonl", "my"),
        ("folder/rows.csv", "file", "folder/rows.csv", "rows"),
        ("reasoning_gym:gsm_symbolic", "reasoning_gym:gsm_symbolic", None, "gsm_symbolic"),
        ("my.parquet", "file", "my.parquet", "my"),
        ("hub:owner/sums:train:main", "hub:owner/sums:train:main", None, "sums"),
        ("nonsense", "nonsense", None, "nonsense"),
    ],
)
def test_what_a_set_is_called(text: str, source: str, path: str | None, label: str) -> None:
    spec = evaluate.parse_spec(text)
    assert (spec.source, spec.path, spec.label) == (source, path, label)


def test_the_table(tutor: StubTutor, write: Callable[..., str]) -> None:
    text = evaluate.evaluate_sets("m", [write(*ROWS)])
    header, row = text.split("\n")
    assert header.split()[:3] == ["rows", "strict", "%"]
    # 2 of 4: Wilson's 95 % interval 15.0 to 85.0; 4 of 4: 51.0 to 100
    assert row.split() == [
        "my",
        "4",
        "50.0",
        "15.0",
        "to",
        "85.0",
        "100.0",
        "51.0",
        "to",
        "100.0",
        "1.00",
        "0",
        "0",
        "0",
    ]
    assert tutor.asked[0][1] is True


def test_long_prompts_are_left_out_and_counted(tutor: StubTutor, write: Callable[..., str]) -> None:
    long = {"question": "one two three four five six", "answer": "1"}
    row = evaluate.evaluate_sets("m", [write(*ROWS, long)], calculator=False).split("\n")[1].split()
    assert (row[1], row[-1]) == ("4", "1")
    assert tutor.asked[0][1] is False
    with pytest.raises(DataError, match="all 1 prompts are longer than 5 tokens"):
        evaluate.evaluate_sets("m", [write(long, name="long")])


def test_questions_that_the_model_s_run_trained_on_are_named(
    tutor: StubTutor, write: Callable[..., str], tmp_path: Path
) -> None:
    data = tmp_path / "run/data"
    data.mkdir(parents=True)
    (tmp_path / "run/run.json").touch()
    write_jsonl(data / "train.jsonl", [Problem("t/1", "Two and  two?", "4", None)])
    write_jsonl(data / "unlabelled.jsonl", [Problem("t/2", "One and one?", "2", None)])
    old = write({"question": "two and two?", "answer": 4}, {"question": "One and one?", "answer": 2}, name="old")
    new = write({"question": "Six and one?", "answer": 7}, name="new")
    mixed = write({"question": "Six and one?", "answer": 7}, {"question": "One and one?", "answer": 2}, name="mixed")
    sets = [old, new, mixed]
    assert evaluate.evaluate_sets(str(tmp_path / "run/model"), sets).splitlines()[-1:] == [
        "warning: 1 of 2 questions of old were trained on: this is no test on new ones",
    ]  # plain SFT: the second question was not sampled
    (tmp_path / "run/1-iteration").mkdir()
    assert evaluate.evaluate_sets(str(tmp_path / "run/model"), sets).splitlines()[-2:] == [
        "warning: 2 of 2 questions of old were trained on: this is no test on new ones",
        "warning: 1 of 2 questions of mixed were trained on: this is no test on new ones",
    ]
    (tmp_path / "run/run.json").unlink()  # whatever else lies in a folder called data is not looked at
    assert "trained" not in evaluate.evaluate_sets(str(tmp_path / "run/model"), sets)


def test_completions_are_written_with_the_name_of_their_set(
    tutor: StubTutor, write: Callable[..., str], tmp_path: Path
) -> None:
    path = write(*ROWS)
    evaluate.evaluate_sets("m", [path, path], take=2, out=tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl", Completion)
    assert [row.stage for row in rows] == ["evaluate/my"] * 2 + ["evaluate/my-2"] * 2
    assert [row.strict.outcome for row in rows if row.strict] == ["right", "wrong"] * 2


@pytest.mark.parametrize(("name", "message"), [("there.jsonl", "is there already"), ("no/x.jsonl", "no folder")])
def test_completions_are_written_over_nothing_and_that_is_said_before_anybody_is_asked(
    tutor: StubTutor, write: Callable[..., str], tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "there.jsonl").write_text("precious")
    with pytest.raises(RunError, match=message):
        evaluate.evaluate_sets("m", [write(*ROWS)], out=tmp_path / name)
    assert tutor.asked == [] and (tmp_path / "there.jsonl").read_text() == "precious"


@pytest.mark.parametrize(
    ("data", "take", "message"),
    [
        (["nonsense"], None, "No data source is called 'nonsense'"),
        (["absent.jsonl"], None, "absent.jsonl"),
        ([], None, "Expected a set"),
        (["arithmetic"], 0, "expected at least 1 problem, got 0"),
    ],
)
def test_bad_sets_are_refused_before_a_model_is_opened(
    monkeypatch: pytest.MonkeyPatch, data: list[str], take: int | None, message: str
) -> None:
    monkeypatch.setattr("selftrain.use.open_model", lambda *_, **__: pytest.fail("opened a model"))
    with pytest.raises(DataError, match=message):
        evaluate.evaluate_sets("m", data, take=take)


def test_answers_that_cannot_be_judged_are_refused(write: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="1 of 2 answers cannot be judged"):
        evaluate.load_named([write(ROWS[0], {"question": "which?", "answer": "(C)"})])


def test_two_formats_in_one_file_are_counted(write: Callable[..., str]) -> None:
    rows = [*ROWS[:2], {"question": "which?", "answer": "(C)"}, {"question": "what?", "answer": "\\boxed{7}"}]
    with pytest.raises(DataError, match=r"2 of 4 answers cannot be judged.*they are 2 number, 1 letter, 1 \\boxed"):
        evaluate.load_named([write(*rows)])


def test_the_verifier_is_the_call_s(write: Callable[..., str]) -> None:
    path = write({"question": "which?", "answer": "(C)"}, {"question": "and now?", "answer": "b"})
    problems = evaluate.load_named([path], verify="choice")["my"]
    assert [(problem.answer, problem.verify) for problem in problems] == [("C", "choice"), ("B", "choice")]


def test_columns_of_other_names(write: Callable[..., str]) -> None:
    path = write({"text": "6 times 7?", "gold_value": "42"})
    found = evaluate.load_named([path], fields=["question=text", "answer=gold_value"])["my"]
    assert [(problem.question, problem.answer) for problem in found] == [("6 times 7?", "42")]
    with pytest.raises(DataError, match="no column for 'question' was found; columns found: text, gold_value"):
        evaluate.load_named([path])
    with pytest.raises(DataError, match="expected OURS=THEIRS, got 'question'"):
        evaluate.load_named([path], fields=["question"])


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, selftrain.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
