"""`selftrain init`: what is found in a file, the YAML that comes of it, and a run of that YAML."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain import cli
from selftrain.data import load
from selftrain.data.arithmetic import problems
from selftrain.data.assemble import assemble
from selftrain.errors import ConfigError, DataError, ModelError
from selftrain.init import MIN_ROWS, init
from selftrain.inityaml import quoted
from selftrain.proposal import propose, writing
from selftrain.recipe import load_config
from selftrain.verify import open_verifier

Rows = list[dict[str, Any]]
TOY = "random-llama"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFTRAIN_CACHE", str(tmp_path / "no-weights"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def made_up(count: int, explained: int | None = None) -> Rows:
    """Problems as a person would write them: steps without annotations, answers as numbers."""
    rows: Rows = []
    for number, problem in enumerate(problems(seed=5, size=count)):
        row: dict[str, Any] = {"question": f"{problem.question} (Case {number}.)", "answer": int(problem.answer or 0)}
        if explained is None or number < explained:
            steps = (problem.rationale or "").split("\n")[0]
            row["rationale"] = steps.replace("<<", "(").replace(">>", ") ")
        rows.append(row)
    return rows


def write(rows: Rows, name: str = "my.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | None:
    monkeypatch.setattr(sys, "argv", ["selftrain", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code is None or isinstance(stopped.value.code, int)
    return stopped.value.code


def test_sets_are_apart_and_as_large_as_the_file_allows() -> None:
    started = init(write(made_up(50, explained=30)), model="some/model")
    assert started.config == load_config("mine.yaml")
    found = assemble(started.config.data, 0)
    (test,) = found.tests.values()
    assert len(test) == 10 and len(found.train) + len(found.unlabelled) == 40
    assert all(problem.rationale for problem in found.train) and found.unlabelled
    ids = [problem.id for problem in (*test, *found.train, *found.unlabelled)]
    assert len(set(ids)) == 50
    assert list(found.tests) == ["my-held-out"]


@pytest.mark.parametrize("rows", [60, 400])
def test_the_rate_of_dpo_follows_steps_and_size(rows: int) -> None:
    dpo = init(write(made_up(rows)), model="some/model").config.training.dpo
    assert (dpo.learning_rate, dpo.beta) == ("auto", 0.3)


@pytest.mark.parametrize(("rows", "as_asdiv"), [(60, False), (400, True)])
def test_rules_for_pairs_and_labels_are_those_of_the_recipe_it_takes_after(rows: int, as_asdiv: bool) -> None:
    config = init(write(made_up(rows)), model="some/model").config
    like = load_config("asdiv-smollm2" if as_asdiv else "quickstart")
    assert (config.pairs.gold_winner, config.labels) == (like.pairs.gold_winner, like.labels)
    assert (config.training.sft.batch_size, config.training.dpo.max_steps) == (
        like.training.sft.batch_size, like.training.dpo.max_steps,
    )  # fmt: skip


def test_equal_questions_are_counted_once() -> None:
    rows = made_up(20)
    started = init(write([*rows, *({**row, "question": row["question"].upper()} for row in rows[:10])]), model="a/b")
    found = assemble(started.config.data, 0)
    (test,) = found.tests.values()
    texts = [p.question.lower() for p in (*found.train, *found.unlabelled)] + sorted({p.question.lower() for p in test})
    assert len(texts) == len(set(texts)) and len(texts) <= 20
    more = 30 - sum(map(len, (found.train, found.unlabelled, test)))
    assert more > 0 and f"left out: {more} rows with the question of another row" in started.text
    assert "left out" not in init(write(rows), Path("once.yaml"), model="a/b").text


def test_fewer_rows_for_a_first_try() -> None:
    started = init(write(made_up(50)), rows=20, model="a/b")
    found = assemble(started.config.data, 0)
    assert (len(found.train), len(found.unlabelled), [len(t) for t in found.tests.values()]) == (16, 0, [4])
    with pytest.raises(DataError, match=f"--rows: expected at least {MIN_ROWS}, got 3"):
        init("my.jsonl", Path("other.yaml"), rows=3)


@pytest.mark.parametrize(
    ("answers", "verify"),
    [
        (["12", "$1,200", 7, 2.5, "1/2"], "numeric"),
        (["So 2+2=4\n#### 4"], "numeric"),
        (["Since it is larger.\n#### (b)"], "choice"),
        (["A", "(b)", "C) 42 pens"], "choice"),
    ],
)
def test_the_verifier_comes_from_how_answers_are_written(answers: list[Any], verify: str) -> None:
    rows = [
        {"question": f"What of {number}?", "answer": answers[number % len(answers)], "solution": "It is so."}
        for number in range(20)
    ]
    config = init(write(rows), model="a/b").config
    assert {spec.verify for spec in (config.data.train, *config.data.test)} == {verify}


def test_formulas_are_for_symbolic() -> None:
    pytest.importorskip("math_verify", reason="needs the extra `math`")
    answers = ["\\frac{1}{2}", "7", "x+1", "(1, 2)"]
    rows = [{"problem": f"{n}?", "answer": answers[n % 4], "solution": "It is so."} for n in range(12)]
    assert init(write(rows), model="a/b").config.data.train.verify == "symbolic"
    boxed = [{"problem": f"{n}?", "solution": f"It is \\boxed{{{n}}}."} for n in range(12)]
    assert init(write(boxed), Path("boxed.yaml"), model="a/b").config.data.train.verify == "symbolic"


def test_the_last_number_of_a_text_is_its_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"{n} and 2?", "target": f"First {n} + 2 = {n + 2}. That makes {n + 2} pens."} for n in range(12)
    ]
    started = init(write(rows), model="a/b")
    assert dict(started.config.data.train.fields) == {"question": "prompt", "worked": "target"}
    problem = assemble(started.config.data, 0).train[0]
    assert problem.answer and problem.rationale and problem.rationale.endswith(f"pens.\n#### {problem.answer}")
    assert "<<" in problem.rationale and "+ 2 = " in problem.rationale
    check = started.text.splitlines()[-2].split()[1:]
    assert check == ["data", "check", "my.jsonl", "--verify", "numeric", "--field", "worked=target"]
    assert command(monkeypatch, *check) in (0, None)
    assert "gold answers that pass: 12 of 12" in capsys.readouterr().out


def test_two_writings_in_one_file_are_refused_with_counts() -> None:
    rows = made_up(20)
    rows[12]["answer"] = "B"
    with pytest.raises(DataError, match="in one file: 19 number, 1 letter; the first letter stands at .*line 13") as no:
        init(write(rows), model="a/b")
    assert "--verify MODULE:FUNCTION" in str(no.value.hint) and not Path("mine.yaml").exists()
    rows[12]["answer"] = "2+2=4\n#### 4"
    with pytest.raises(DataError, match="19 number, 1 number after ####") as no:
        init(write(rows), model="a/b")
    assert "--verify numeric" in str(no.value.hint)
    assert init(write(rows), verify="numeric", model="a/b").config.data.train.verify == "numeric"


def test_numbers_with_and_without_a_unit_are_read_as_the_hint_says() -> None:
    rows = made_up(20)
    rows[12]["answer"] = f"{rows[12]['answer']} km/h"
    with pytest.raises(DataError, match=r"19 number, 1 text with a number; .* line 13 \('[0-9]+ km/h'\)") as no:
        init(write(rows), model="a/b")
    hint = str(no.value.hint)
    assert "without units" in hint and "--verify" not in hint and "--field worked=COLUMN" in hint
    data = init(write(rows), model="a/b", fields=["worked=answer"]).config.data
    answers = {problem.id: problem.answer for problem in load(data.train).problems}
    assert answers["my/13"] == rows[12]["answer"].split()[0] and len(answers) == 20


def test_without_math_verify_the_row_that_asks_for_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.verify.symbolic.PACKAGE", "no_such_package")
    open_verifier.cache_clear()
    rows = made_up(20)
    rows[3]["answer"] = "1.234,50"
    with pytest.raises(ConfigError, match=r"19 number, 1 formula; the first formula .* line 4 \('1\.234,50'\)\.") as no:
        init(write(rows), model="a/b")
    assert "needs the package `math-verify`" in no.value.message and "write these alone" in str(no.value.hint)
    with pytest.raises(ConfigError, match="^verify: symbolic needs") as no:
        init("my.jsonl", model="a/b", verify="symbolic")
    assert "alone" not in str(no.value.hint)


def test_a_row_without_an_answer_is_named_where_it_has_a_rationale() -> None:
    rows = made_up(20)
    rows[4]["answer"] = None
    with pytest.raises(DataError, match=r"my\.jsonl, line 5: expected an answer in 'answer', got none"):
        init(write(rows), model="a/b")
    rows[4]["rationale"] += f"\n#### {made_up(20)[4]['answer']}"
    with pytest.raises(DataError, match="19 number, 1 number after ####; the first number after .* line 5"):
        init(write(rows), model="a/b")


def test_gold_answers_are_proved_before_anything_is_written() -> None:
    rows = made_up(20)
    rows[3]["answer"] = "a few"
    with pytest.raises(DataError, match="gold answers do not pass their own verifier: my/4"):
        init(write(rows), verify="numeric", model="a/b", rows=None)
    assert not Path("mine.yaml").exists()


def numbered(count: int, answer: Any = 1, **more: Any) -> Rows:
    return [{"question": f"{number}?", "answer": answer, **more} for number in range(count)]


@pytest.mark.parametrize(
    ("rows", "fields", "said"),
    [
        ([{"q": "x?", "answer": 1}] * 9, (), "no column for 'question' was found; columns found: q, answer"),
        ([{"question": "x?", "gold": [1]}] * 9, (), "line 1: expected text or a number in 'gold', got list"),
        ([{"question": "x?", "a value": 1}] * 9, (), "no column for 'answer' was found; columns found: question, a v"),
        (numbered(9), ("answer=anser",), "names column 'anser'; columns found: question, answer"),
        (numbered(9), ("anwser=answer",), "unknown field 'anwser'"),
        (numbered(1) * 30, (), f"at least {MIN_ROWS} usable rows with questions of their own, got 1"),
        (numbered(30), (), "rows with a worked rationale beside the test's, got 0 of 24"),
        (numbered(9, "by bus"), (), "answers that no verifier reads: 9 text"),
        (numbered(9, None), (), "line 1: expected an answer in 'answer'"),
    ],
)
def test_files_of_no_use(rows: Rows, fields: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError) as caught:
        init(write(rows), fields=fields, model="a/b")
    assert said in caught.value.message and not Path("mine.yaml").exists()


def test_a_file_that_is_there_is_kept() -> None:
    data = write(made_up(12))
    Path("mine.yaml").write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml is there already") as caught:
        init(data, model="a/b")
    assert "--force" in str(caught.value.hint)
    assert Path("mine.yaml").read_text(encoding="utf-8") == "precious"
    init(data, model="a/b", force=True)
    assert load_config("mine.yaml").model == "a/b"
    for out, said in (("mine.yml/x.yaml", "no folder"), ("mine.txt", "ends in .yaml")):
        with pytest.raises(ConfigError, match=said):
            init(data, Path(out), model="a/b")


def test_the_problems_are_looked_for_before_the_file_to_make() -> None:
    Path("mine.yaml").write_text("precious", encoding="utf-8")
    with pytest.raises(DataError, match=r"nowhere\.jsonl: expected a file of rows"):
        init("nowhere.jsonl", model="a/b")


@pytest.mark.parametrize(
    ("model", "hint"),
    [("random-lama", "Did you mean random-llama?"), ("no/such/folder", "Name a folder")],
)
def test_a_name_that_no_model_can_have_is_refused(model: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f"{model}: expected a model folder, a hub name") as caught:
        init(write(made_up(12)), model=model)
    assert str(caught.value.hint).startswith(hint) and not Path("mine.yaml").exists()


def test_rationales_that_never_come_to_their_answer_are_named() -> None:
    rows = made_up(20)
    rows[0] = {**rows[0], "answer": "1234567"}
    assert "never come to their row's answer (my/1)" in init(write(rows), model="a/b", rows=None).text


def test_csv_json_and_parquet_give_the_same_sets() -> None:
    rows = [{key: str(value) for key, value in row.items()} for row in made_up(20)]
    write(rows)
    Path("my.json").write_text(json.dumps(rows), encoding="utf-8")
    with Path("my.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, rows[0])
        table.writeheader()
        table.writerows(rows)
    names = ["my.jsonl", "my.json", "my.csv"]
    try:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), "my.parquet")
        names.append("my.parquet")
    except ImportError:
        pass
    found = []
    for name in names:
        data = init(name, model="a/b", force=True).config.data
        found.append(sorted(problem.question for problem in assemble(data, 0).train))
    assert all(len(questions) == 16 for questions in found)
    assert found[0] == found[1]  # ids are line numbers: equal but in CSV, which counts its header


def test_hub_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> Rows:
        calls.append((name, config, split))
        if name == "some/gated-403":
            raise RuntimeError("Couldn't reach 'some/gated-403' on the Hub")
        if name == "closed/set":
            raise RuntimeError("Dataset 'closed/set' is a gated dataset on the Hub. You must be authenticated.")
        return [
            {"instruction": row["question"], "output": f"{row['rationale']}\n#### {row['answer']}"}
            for row in made_up(20)
        ]

    module = types.SimpleNamespace(
        load_dataset=load_dataset,
        config=types.SimpleNamespace(HF_HUB_OFFLINE=True),
        exceptions=types.SimpleNamespace(DatasetsError=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    fields = ["question=instruction", "answer=output"]
    started = init("hub:some/sums:train:main", fields=fields, model="a/b")
    assert set(calls) == {("some/sums", "main", "train")}
    found = assemble(load_config("mine.yaml").data, 0)
    assert len(found.train) == 16 and found.train[0].id.startswith("sums/train-")
    assert started.config.data.test[0].name == "sums-held-out"
    with pytest.raises(DataError, match="could not be loaded from the hub") as caught:
        init("hub:closed/set", Path("other.yaml"), model="a/b")
    assert "hf auth login" in str(caught.value.hint)
    with pytest.raises(DataError, match="could not be loaded from the hub") as caught:
        init("hub:some/gated-403", Path("other.yaml"), model="a/b")
    assert "hf auth login" not in str(caught.value.hint), "the name says nothing of a login"
    with pytest.raises(DataError, match="expected hub:NAME"):
        init("hub:../passwd", Path("other.yaml"), model="a/b")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(deadline=None, max_examples=40)
@given(file=NAMES, question=NAMES, answer=NAMES)
def test_no_name_breaks_the_yaml(file: str, question: str, answer: str) -> None:
    """Hostile names of files and columns come back as they were, or are refused in words."""
    names = {"id": "id"}
    keys = [name for name in (question, answer) if name.lower() not in ("rationale", "id")]
    if len(set(keys)) < 2 or "=" in question + answer:
        return
    with tempfile.TemporaryDirectory() as folder:
        safe = file.replace("/", "-").replace("\0", "-")
        path = str(Path(folder) / f"{safe}.jsonl")
        rows = [{question: f"{n} what?", answer: n, "rationale": f"{n}"} for n in range(MIN_ROWS)]
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        out = Path(folder) / "out.yaml"
        started = init(path, out, fields=[f"question={question}", f"answer={answer}"], model="a/b")
        config = load_config(str(out))
        assert config == started.config
        assert config.data.train.path == path == config.data.test[0].path
        assert {**config.data.train.fields, **names} == {
            "question": question, "answer": answer, "rationale": "rationale", **names,
        }  # fmt: skip
        assert len(assemble(config.data, 0).train) == MIN_ROWS - 2


@given(st.text(max_size=30))
def test_quoted_texts_come_back(text: str) -> None:
    written = quoted(text)
    assert "\n" not in written and written.isascii()
    assert yaml.safe_load(f"{{a: {written}}}") == {"a": text}


def test_how_one_answer_is_written() -> None:
    assert writing("x") == ("", "letter") and writing("2x") == ("", "formula")
    assert writing("7 pens") == ("", "text with a number") and writing("#### 7 pens") == ("####", "text with a number")
    assert writing("24 km/h") == writing("1 1/2 cm") == ("", "text with a number")
    assert writing("2 pi") == writing("24 m/s") == writing("1 or 2") == ("", "formula")
    assert writing("\\text{even}") == ("", "formula") and writing("yes") == ("", "text")
    with pytest.raises(DataError, match="no verifier reads: 1 text with a number after ####"):
        propose([("here", "#### 7 pens")])


def test_rows_are_shown_as_the_model_will_see_them() -> None:
    started = init(write(made_up(50)), model=TOY)
    lines = started.text.splitlines()
    assert sum(line.startswith("--- my/") for line in lines) == 3
    assert sum(line.startswith("  prompt | Question: ") for line in lines) == 3
    assert any("<<" in line and line.startswith("  target | ") for line in lines), "annotated, as in training"
    assert sum(line.endswith("<|end|>") for line in lines) == 3
    assert "counted by the tokenizer" in started.text
    assert lines[-2:] == ["selftrain data check my.jsonl --verify numeric", "selftrain run mine.yaml"]
    unknown = init(write(made_up(50)), Path("other.yaml"), model="some/model").text
    assert "some/model is not on this machine yet" in unknown and "<|end|>" not in unknown


def test_limits_let_rows_in_as_far_as_the_model_can() -> None:
    rows = made_up(50)
    config = init(write(rows), model=TOY).config
    assert config.data.over_limit == "refuse"
    assert config.prompt.max_prompt_tokens + config.sampling.max_new_tokens == 256, "the positions of the toy"
    assert config.sampling.max_new_tokens == config.training.max_target_tokens
    rows[7]["question"] += " Think" * 400
    started = init(write(rows), Path("long.yaml"), model=TOY)
    assert started.config.data.over_limit == "drop"
    assert "1 of these rows are longer, and are left out: my/8" in started.text.splitlines()
    assert "1 rows are longer than the limits" in Path("long.yaml").read_text(encoding="ascii")
    unseen = init(write(rows), Path("unseen.yaml"), model="some/model").config
    assert unseen.data.over_limit == "drop" and unseen.prompt.max_prompt_tokens == 1024


def test_an_encoder_decoder_gets_the_bare_question() -> None:
    started = init(write(made_up(50)), model="random-t5")
    assert started.config.prompt.template == "{question}"
    assert "  target | " in started.text and "[ " in started.text


def test_from_fifty_problems_to_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], write_nothing_else: Callable[[], set[str]]
) -> None:
    write(made_up(50))
    assert command(monkeypatch, "init", "--data", "my.jsonl", "--model", TOY) in (0, None)
    told = capsys.readouterr()
    assert told.err == "" and write_nothing_else() == {"my.jsonl", "mine.yaml"}
    check, run = (line.split()[1:] for line in told.out.splitlines()[-2:])
    assert command(monkeypatch, *check) in (0, None)
    tiny = ["training.sft.epochs=1", "training.dpo.max_steps=1", "sampling.max_new_tokens=8", "compute.device=cpu"]
    assert command(monkeypatch, *run, *tiny) in (0, None)
    assert Path("runs/mine/report.html").is_file() and Path("runs/mine/model").is_dir()
    results = json.loads(Path("runs/mine/results.json").read_text(encoding="utf-8"))
    assert [(row["name"], row["rows"]) for row in results["test_sets"]] == [("my-held-out", 10)]
    assert command(monkeypatch, "init", "--data", "my.jsonl") == 2
    assert "mine.yaml is there already" in capsys.readouterr().err


@pytest.fixture
def write_nothing_else(tmp_path: Path) -> Callable[[], set[str]]:
    return lambda: {entry.name for entry in tmp_path.iterdir()}
