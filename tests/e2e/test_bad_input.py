"""Bad input is refused with exit code 2, one message and no traceback, before anything is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.toy import make_toy

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
ROWS = [
    {"question": f"{n} pens and 1 more?", "answer": f"{n}+1=<<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"} for n in range(9)
]


def refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for part in expected:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "quikstart"], ["Did you mean 'quickstart'"]),
        (["run", "smoke", "training.sft.lr=1"], ["Unknown field 'training.sft.lr'", "learning_rate"]),
        (["run", "smoke", "sampling.temperature=-1"], ["sampling.temperature", "got -1"]),
        (["run", "smoke", "data.train=none.jsonl"], ["none.jsonl"]),
        (["run", "smoke", "model=no/such/model"], ["no/such/model"]),
        (["run", "smoke", "compute.min_free_disk_gb=1e9"], ["GB of disk are free", "Free some space"]),
        (["run", "smoke", "prompt.template=Q: {question} A:"], ["prompt.template", "into quotes of its own"]),
        (["run", "smoke", "prompt.template=Solve it"], ["prompt.template must contain {question}"]),
        (["ask", "/no/such/folder", "?"], ["/no/such/folder"]),
        (["evaluate", "smollm2-135m", "--data", "nothing.jsonl"], ["nothing.jsonl"]),
        (["report", "/no/such/run"], ["/no/such/run"]),
        (["compare", "/no/such/run", "/no/such/run"], ["/no/such/run"]),
        (["recipes", "show", "smoky"], ["Did you mean 'smoke'"]),
        (["recipes", "cp", "smoky"], ["Did you mean 'smoke'"]),
        (["recipes", "cp", "smoke", "smoke.txt"], ["smoke.txt", ".yaml"]),
    ],
)
def test_refused_by_name(arguments: list[str], expected: list[str], tmp_path: Path, cli: Cli) -> None:
    refused(cli(*arguments, cwd=tmp_path), *expected)


def test_a_column_that_is_not_there_lists_those_that_are_and_the_next_try_may_use_the_folder(
    tmp_path: Path, cli: Cli
) -> None:
    file = rows_file(tmp_path)
    start = f"source: file, path: {file}"
    columns = "columns found: question, answer"
    done = cli("run", "smoke", f"data.train={{{start}, fields: {{question: prompt}}}}", cwd=tmp_path)
    refused(done, "fields.question names column 'prompt'", columns)
    refused(cli("data", "check", file, "--field", "question=prompt", cwd=tmp_path), columns)
    done = cli("run", "smoke", f"data.train={{{start}}}", "--until", "data", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_run_folder_in_place_of_its_model(smoke: Path, cli: Cli) -> None:
    refused(cli("ask", str(smoke), "?"), "got a run folder", str(smoke / "model"))


def test_a_model_whose_layers_cannot_be_sampled_is_refused_before_any_weights_are_read(
    tmp_path: Path, cli: Cli
) -> None:
    """Layers of convolutions by its config; the weights are another model's."""
    make_toy("random-llama", tmp_path / "odd")
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {"model_type": "lfm2", "layer_types": ["conv", "full_attention"], **sizes}
    (tmp_path / "odd/config.json").write_text(json.dumps(config))
    refused(cli("run", "smoke", "model=./odd", "--out", "run", cwd=tmp_path), "lfm2 cannot be sampled", "kind conv")
    assert not (tmp_path / "run/data").exists()
    asked = ["--data", rows_file(tmp_path), "--out", "out.jsonl"]
    refused(cli("sample", "./odd", *asked, cwd=tmp_path), "lfm2 cannot be sampled", "kind conv")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["evaluation.max_new_tokens=250"], ["the model's 256 positions", "250 new ones", "max_new_tokens"]),
        (["sampling.slots=10000000", "sampling.shard_questions=10000000", "sampling.samples_for_pairs=1000000000"],
         ["GB of key/value storage", "GB are free", "Lower sampling.slots"]),
        (["prompt.max_prompt_tokens=5"], ["rows over a limit on tokens", "prompts of train have over 5"]),
    ],
)  # fmt: skip
def test_sampling_that_cannot_fit_is_refused_before_anything_is_sampled_or_trained(
    overrides: list[str], expected: list[str], tmp_path: Path, cli: Cli
) -> None:
    refused(cli("run", "smoke", *overrides, "--out", "run", cwd=tmp_path), *expected)
    assert not (tmp_path / "run/0-base").exists() and not (tmp_path / "run/0-warmup").exists()


def rows_file(folder: Path, *lines: str) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join([*map(json.dumps, ROWS), *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("line", "expected"), [("{", "line 10"), ('{"question": "no answer here?"}', "line 10"), ("[1, 2]", "line 10")]
)
def test_a_broken_data_line_is_named(tmp_path: Path, cli: Cli, line: str, expected: str) -> None:
    file = rows_file(tmp_path, line)
    refused(cli("run", "smoke", f"data.train={file}", cwd=tmp_path), "rows.jsonl", expected)


def test_two_answer_formats_in_one_file_are_counted(tmp_path: Path, cli: Cli) -> None:
    letters = ('{"question": "which one?", "answer": "It is B.\\n#### B"}',)
    file = rows_file(tmp_path, *letters)
    done = cli("run", "smoke", f"data.train={file}", cwd=tmp_path)
    refused(done, "1 of 10 gold answers do not pass", "rows/10", "they are 9 number, 1 letter", "selftrain data check")


def test_a_verifier_that_raises_is_told_with_its_traceback_and_the_row(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "checks.py").write_text("def f(text, answer):\n    return 1 / (int(answer) - 5) < 1\n")
    spec = f"{{source: file, path: {rows_file(tmp_path)}, verify: 'checks:f'}}"
    done = cli("run", "smoke", f"data.train={spec}", cwd=tmp_path)
    refused(done, "The verifier checks:f raised ZeroDivisionError for row rows/5", "checks.py", "line 2, in f")


def test_an_empty_data_file_is_named(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    refused(cli("run", "smoke", "data.train=empty.jsonl", cwd=tmp_path), "empty.jsonl")


def test_a_folder_of_another_run_is_refused_and_left_alone(smoke: Path, cli: Cli) -> None:
    before = (smoke / "config.yaml").read_text()
    refused(cli("run", "smoke", "seed=99", "--out", str(smoke)), "holds a different run", "seed (1 there, 99 asked)")
    assert (smoke / "config.yaml").read_text() == before


def test_help_teaches_and_is_quick_to_import(tmp_path: Path, cli: Cli) -> None:
    done = cli("--help", cwd=tmp_path)
    assert done.returncode == 0 and "selftrain run quickstart" in done.stdout
    for verb in ("run", "ask", "evaluate", "push", "report", "compare", "doctor", "recipes"):
        assert cli(verb, "--help", cwd=tmp_path).returncode == 0


def test_a_recipe_is_copied_once(tmp_path: Path, cli: Cli) -> None:
    assert cli("recipes", "cp", "gsm8k-qwen3-0.6b", cwd=tmp_path).stdout == "gsm8k-qwen3-0.6b.yaml\n"
    assert cli("recipes", "cp", "smoke", "mine.yaml", cwd=tmp_path).stdout == "mine.yaml\n"
    shown = cli("recipes", "show", "smoke", cwd=tmp_path).stdout
    assert (tmp_path / "mine.yaml").read_text() == shown.replace("name: smoke\n", 'name: "mine"\n', 1) != shown
    refused(cli("recipes", "cp", "smoke", "mine.yaml", cwd=tmp_path), "mine.yaml is there already")
