"""Exported rows say what the run trained on, and TRL reads them back as the same tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain import cli
from selftrain.errors import ConfigError, RunError, UserError
from selftrain.export import _Writer, codec_of, export
from selftrain.judged import COMPLETIONS
from selftrain.models import load_tokenizer
from selftrain.progress import Silent
from selftrain.prompts import Codec
from selftrain.recipe import load_config
from selftrain.records import Completion, Example, Pair, Problem, read_jsonl, write_jsonl
from selftrain.report.files import RunFiles
from selftrain.rundir import Figures, RunDir
from selftrain.stages.data import load_sets, run_data
from selftrain.stages.pair import run_pair
from selftrain.stages.select import run_select
from selftrain.toy import make_toy
from selftrain.verify import judge

CONFIG = load_config("smoke", ["data.train.params.size=12", "data.unlabelled.params.size=6", "data.validation=null"])
MODEL = "a" * 64
CHAT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Question: {{ m['content'] }}\nAnswer:"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def samples_of(problem: Problem, codec: Codec) -> Iterator[Completion]:
    """A right one, a wrong one, and a wrong one that was cut."""
    texts = (f"That makes {problem.answer}.\n#### {problem.answer}", "2*3=<<2*3=6>>6 and so on\n#### 1234")
    cut = codec.target("I add and subtract, then add")[:-1]
    for k, ids in enumerate((*map(codec.target, texts), cut)):
        stop: Any = "eos" if k < 2 else "length"
        yield Completion(problem.id, k, ids, codec.text(ids), stop, model=MODEL, stage="1-iteration/sample-for-pairs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped after its first pairs."""
    path = tmp_path_factory.mktemp("export") / "run"
    with RunDir.open(path, CONFIG) as run:
        make_toy("random-llama", path / "base", CONFIG.seed)
        codec = Codec.build(load_tokenizer(path / "base"), CONFIG.prompt, encoder_decoder=False)
        more: Any = {"config": CONFIG, "codec": codec, "progress": Silent()}
        sets = load_sets(stage(run, "data", lambda out: run_data(out, CONFIG, codec, Silent())))
        stage(run, "0-warmup/select", lambda out: run_select(out, "", sets.train, sets.questions, [], **more))

        def sample(out: Path) -> Figures:
            rows = [judged for p in sets.questions for judged in judge(p, list(samples_of(p, codec)))]
            write_jsonl(out / COMPLETIONS, rows)
            return {}

        pool = [stage(run, "1-iteration/sample-for-pairs", sample, model=MODEL) / COMPLETIONS]
        stage(run, "1-iteration/pair", lambda out: run_pair(out, "", sets.questions, pool, **more))
    return path


def stage(run: RunDir, name: str, work: Any, **inputs: str) -> Path:
    return run.stage(name, inputs=inputs, settings={}, work=work).folder


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_pairs_as_texts_and_as_messages(folder: Path, tmp_path: Path) -> None:
    pairs = read_jsonl(folder / "1-iteration/pair/pairs.jsonl", Pair)
    for form in ("trl", "messages"):
        done = export(folder, "pairs", form, out=tmp_path / f"{form}.jsonl")
        assert done.stage == "1-iteration/pair" and len(done.rows) == len(pairs) > 20 and done.read_otherwise == 0
    codec, problems = codec_of(RunFiles(folder), print), {p.id: p for p in RunFiles(folder).problems("unlabelled")}
    first = next(number for number, pair in enumerate(pairs) if pair.problem_id in problems)
    problem, pair = problems[pairs[first].problem_id], pairs[first]
    told = {
        "problem_id": problem.id, "chosen_from": "1-iteration/sample-for-pairs#0", "chosen_model": MODEL,
        "rejected_from": pair.rejected_from, "rejected_model": MODEL,
    }  # fmt: skip
    right = f"That makes {problem.answer}.\n#### {problem.answer}"
    assert rows_of(tmp_path / "trl.jsonl")[first] == {
        "prompt": f"Question: {problem.question}\nAnswer:", "chosen": f" {right}",
        "rejected": f" {codec.text(pair.rejected_ids)}", **told,
    }  # fmt: skip
    assert rows_of(tmp_path / "messages.jsonl")[first] == {
        "prompt": [{"role": "user", "content": problem.question}],
        "chosen": [{"role": "assistant", "content": right}],
        "rejected": [{"role": "assistant", "content": codec.text(pair.rejected_ids)}],
        **told,
    }
    gold = next(row for row in rows_of(tmp_path / "trl.jsonl") if row["chosen_from"] == "gold")
    assert gold["chosen_model"] == ""


def test_examples_as_texts_and_as_messages(folder: Path, tmp_path: Path) -> None:
    problem = RunFiles(folder).problems("train")[0]
    export(folder, "sft", out=tmp_path / "trl.jsonl")
    export(folder, "sft", "messages", iteration=0, out=tmp_path / "messages.jsonl")
    told = {"problem_id": problem.id, "origin": "gold", "model": ""}
    assert rows_of(tmp_path / "trl.jsonl")[0] == {
        "prompt": f"Question: {problem.question}\nAnswer:", "completion": f" {problem.rationale}", **told
    }  # fmt: skip
    turns = [{"role": "user", "content": problem.question}, {"role": "assistant", "content": problem.rationale}]
    assert rows_of(tmp_path / "messages.jsonl")[0] == {"messages": turns, **told}
    assert len(rows_of(tmp_path / "messages.jsonl")) == len(RunFiles(folder).problems("train"))


def without_end(ids: Any, tokenizer: Any) -> list[int]:
    return list(ids[:-1]) if ids[-1] == tokenizer.eos_token_id else list(ids)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["trl", "messages"])
def test_trl_reads_the_ids_that_the_run_trained_on(folder: Path, tmp_path: Path, form: str) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[dev]'")
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(folder / "base")
    tokenizer.chat_template = CHAT  # renders what the run's prompt is
    codec = codec_of(RunFiles(folder), print)
    questions = {p.id: p for name in ("train", "unlabelled") for p in RunFiles(folder).problems(name)}

    def prepared(kind: str, what: str) -> Any:
        """What TRL's trainer makes of the exported file."""
        done = export(folder, what, form, out=tmp_path / f"{what}.jsonl")
        rows = load_dataset("json", data_files=str(done.path), split="train", cache_dir=str(tmp_path / "cache"))
        arguments = getattr(trl, f"{kind}Config")(
            output_dir=str(tmp_path), max_length=None, use_cpu=True, bf16=False, report_to=[], save_strategy="no"
        )
        model = AutoModelForCausalLM.from_pretrained(folder / "base")
        trainer = getattr(trl, f"{kind}Trainer")
        return trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer).train_dataset

    pairs = read_jsonl(folder / "1-iteration/pair/pairs.jsonl", Pair)
    read = prepared("DPO", "pairs")
    assert len(read) == len(pairs)
    for row, pair in zip(read, pairs, strict=True):
        assert tuple(row["prompt_ids"]) == codec.prompt(questions[pair.problem_id].question)
        assert row["chosen_ids"] == list(pair.chosen_ids), "its end token is TRL's"
        assert row["rejected_ids"] == [*without_end(pair.rejected_ids, tokenizer), tokenizer.eos_token_id]
    examples = read_jsonl(folder / "0-warmup/select/examples.jsonl", Example)
    for row, example in zip(prepared("SFT", "sft"), examples, strict=True):
        assert row["input_ids"] == [*example.prompt_ids, *example.target_ids]
        if form == "trl":
            assert [label for label in row["labels"] if label != -100] == list(example.target_ids)


def test_rows_that_read_as_other_tokens_are_counted(folder: Path) -> None:
    codec, problem = codec_of(RunFiles(folder), print), RunFiles(folder).problems("train")[0]
    text = f" {problem.question}"
    letters = tuple(i for letter in text for i in codec.tables.encode(letter))
    writer = _Writer(codec, {problem.id: problem}, {}, as_messages=False)
    for ids in (codec.target("5+4=<<5+4=9>>9\n#### 9"), (*letters, codec.eos_id)):
        writer.example(Example(problem.id, codec.prompt(problem.question), ids, "gold"))
    assert letters != codec.tables.encode(text) and writer.read_otherwise == 1


def test_a_file_is_made_once_and_not_over_another(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    export(folder, "pairs", out=file)
    manifest = json.loads((tmp_path / "pairs.jsonl.manifest.json").read_text())
    assert manifest["identity"]["stage"] == "1-iteration/pair" and manifest["rows"] == len(rows_of(file))
    assert manifest["licences"] == {"arithmetic": "none needed: made up by selftrain"}
    before = file.stat().st_mtime_ns
    told: list[str] = []
    export(folder, "pairs", out=file, say=told.append)
    assert file.stat().st_mtime_ns == before and told == [f"{file} is finished already: nothing to do."]
    with pytest.raises(RunError, match=r"otherwise: format \('trl' there, 'messages' asked\)"):
        export(folder, "pairs", "messages", out=file)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["pairs.jsonl", "pairs.jsonl.manifest.json"]


def test_without_a_file_rows_go_to_stdout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.export("sft", folder)
    told = capsys.readouterr()
    assert json.loads(told.out.splitlines()[0])["origin"] == "gold"
    assert f"{len(told.out.splitlines())} rows of 0-warmup/select" in told.err


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"what": "pear"}, ConfigError, "what to export: expected pairs or sft, got 'pear'"),
        ({"what": "pairs", "form": "sharegpt"}, ConfigError, "--format: expected trl or messages, got 'sharegpt'"),
        ({"what": "pairs", "iteration": 0}, RunError, "expected an iteration of 1, got 0"),
        ({"what": "sft", "iteration": 1}, RunError, "1-iteration/select is not finished.\nFinished: iteration 0."),
    ],
)
def test_what_is_not_there_is_named(folder: Path, asked: dict[str, Any], error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message):
        export(folder, **asked)


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [("st", ConfigError, "method st makes no pairs"), ("dpo-st", RunError, "1-iteration/pair is not finished")],
)
def test_a_run_without_pairs_is_told_apart(tmp_path: Path, method: str, error: type[UserError], message: str) -> None:
    RunDir.open(tmp_path / "run", load_config("smoke", [f"method={method}"])).close()
    with pytest.raises(error, match=message):
        export(tmp_path / "run", "pairs")
