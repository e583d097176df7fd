"""A run may stop after any stage, begin with the user's own SFT model, and learn from samples made elsewhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.push import files_of
from selftrain.records import Example, Pair, Problem, read_jsonl

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Fingerprint = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Path:
    """A run that was to go no further than its warm-up."""
    out = tmp_path_factory.mktemp("leave") / "warmed"
    done = cli("run", "smoke", "--until", "0-warmup", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        "Stopped before 1-iteration/sample-for-pairs, as asked. The same command without --until goes on."
        in done.stderr
    )
    assert "not there yet" in done.stdout
    return out


def test_a_run_stops_where_it_is_told_and_goes_on(
    warmed: Path, smoke: Path, cli: Cli, fingerprint: Fingerprint
) -> None:
    assert (warmed / "0-warmup/sft/model/model.safetensors").is_file()
    assert not (warmed / "1-iteration").exists() and not (warmed / "model").exists()
    before = fingerprint(warmed)
    assert before.items() <= fingerprint(smoke).items()
    again = cli("run", "smoke", "--until", "1-iteration/pair", "--out", str(warmed))
    assert again.returncode == 0, again.stderr[-3000:]
    assert (warmed / "1-iteration/pair/pairs.jsonl").is_file() and not (warmed / "1-iteration/dpo").exists()
    assert fingerprint(warmed).items() <= fingerprint(smoke).items()
    for what, stage in (("pairs", "1-iteration/pair"), ("sft", "0-warmup/select")):
        done = cli("export", what, str(warmed), "--format", "messages")
        assert done.returncode == 0 and f"rows of {stage}" in done.stderr
        assert len(done.stdout.splitlines()) == len(
            (warmed / stage).glob("*s.jsonl").__next__().read_text().splitlines()
        )


def test_passing_finished_stages_is_not_going_on(smoke: Path, cli: Cli) -> None:
    done = cli("run", "smoke", "baselines=[st, sft-matched]", "--until", "0-warmup", "--out", str(smoke))
    assert done.returncode == 0 and "Stopped" not in done.stderr
    assert json.loads((smoke / "results.json").read_text())["run"]["finished"]


def test_an_own_sft_model_gives_what_the_same_warm_up_gave(
    warmed: Path, smoke: Path, tmp_path: Path, cli: Cli, fingerprint: Fingerprint
) -> None:
    own = warmed / "0-warmup/sft/model"
    done = cli("run", "smoke", f"warmup_model={own}", "--out", str(tmp_path / "own"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "own/0-warmup/sft").exists() and own.is_dir()
    theirs = {name: digest for name, digest in fingerprint(smoke).items() if not name.startswith("baseline-")}
    del theirs["0-warmup/sft"]
    assert fingerprint(tmp_path / "own") == theirs
    results = json.loads((tmp_path / "own/results.json").read_text())
    assert results["run"]["finished"] and results["headline"]["warm_up"] is not None
    rows = {row["stage"]: row["from"] for row in results["lineage"]["models"]}
    assert rows == {"base": None, "warmup_model": None, "1-iteration/dpo": "warmup_model", "1-iteration/sft": "base"}


def test_samples_made_elsewhere_are_learned_from(smoke: Path, tmp_path: Path, cli: Cli) -> None:
    questions = read_jsonl(smoke / "data/unlabelled.jsonl", Problem)
    rows = [{"id": p.id, "text": f"It comes to {p.answer}.\n#### {p.answer}"} for p in questions]
    rows += [
        {"question": p.question, "text": f"Not {p.answer}, whatever they say\n#### {k}0000"}
        for k, p in enumerate(questions)
    ]
    rows.append({"question": "Who asked this?", "text": "#### 1"})
    (tmp_path / "teacher.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("run", "smoke", "method=dpo-st", "data.samples=teacher.jsonl", "--out", "run")
    done = cli(*arguments, "--until", "1-iteration/select", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{2 * len(questions)} of {len(rows)} rows match a question, {len(questions)} are right" in done.stderr
    labels = [e for e in read_jsonl(tmp_path / "run/1-iteration/select/examples.jsonl", Example) if e.origin != "gold"]
    pairs = read_jsonl(tmp_path / "run/1-iteration/pair/pairs.jsonl", Pair)
    ours = [
        sum(e.origin.startswith("samples#") for e in labels),
        sum("samples#" in p.chosen_from + p.rejected_from for p in pairs),
    ]
    assert 0 < ours[0] <= len(labels) and 0 < ours[1] <= len(pairs)
    told = f"1-iteration/pair: {ours[1]} of {len(pairs)} pairs; 1-iteration/select: {ours[0]} of {len(labels)} labels"
    assert f"samples from teacher.jsonl: {2 * len(questions)} of {len(rows)} rows answer" in done.stdout
    assert told in done.stdout


def test_push_would_upload_all_of_a_delivered_model_and_no_path_of_this_machine(smoke: Path, cli: Cli) -> None:
    files, left_out = files_of(smoke / "model")
    assert {"README.md", "config.json", "model.safetensors", "selftrain.json", "tokenizer.json"} <= files.keys()
    assert left_out == ()
    for name in files:
        assert str(smoke.parent).encode() not in (smoke / "model" / name).read_bytes(), name
    done = cli("push", str(smoke), "ann/tutor", "--yes")
    assert done.returncode == 2 and "HF_HUB_OFFLINE is set" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["run", "smoke", "--until", "1-iteration/par"],
            ["no stage '1-iteration/par'", "Did you mean '1-iteration/pair'"],
        ),
        (["run", "smoke", "data.samples=none.jsonl"], ["none.jsonl: expected a file of samples"]),
        (["run", "smoke", "warmup_model=no/such/folder"], ["no/such/folder"]),
        (["export", "pairs", "no-run"], ["no-run: expected a run folder"]),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], expected: list[str], tmp_path: Path, cli: Cli) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for part in expected:
        assert part in done.stderr
