"""Stages bound to their folder: where a run stops, and which pools samples made elsewhere join."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selftrain import __version__, api
from selftrain.bench import Bench, Stopped
from selftrain.errors import ConfigError, RunError
from selftrain.progress import Silent
from selftrain.recipe import load_config
from selftrain.records import Completion, Problem, Verdict, write_jsonl
from selftrain.rundir import RunDir
from selftrain.samplebench import SampleBench
from selftrain.sampling.engine import Engine, _Loop
from selftrain.training.sft import SFTObjective
from selftrain.workbench import Workbench


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


STAGE: dict[str, Any] = {"inputs": {}, "settings": {}, "work": lambda folder: {"done": 1}}


def test_no_stage_beyond_the_end_is_begun_and_finished_ones_are_passed(tmp_path: Path) -> None:
    config = load_config("smoke")
    with RunDir.open(tmp_path / "run", config) as rundir:
        bench = Bench(config, rundir, Silent(), {"1-iteration/dpo"})
        assert bench.stage("1-iteration/pair", **STAGE).figures == {"done": 1}
        with pytest.raises(Stopped, match="1-iteration/dpo"):
            bench.stage("1-iteration/dpo", **STAGE)
        assert not (rundir.path / "1-iteration/dpo").exists()
        Bench(config, rundir, Silent()).stage("1-iteration/dpo", **STAGE)
        assert bench.stage("1-iteration/dpo", **STAGE).skipped


def test_rows_that_are_too_long_are_told_with_the_first_problems(tmp_path: Path) -> None:
    config = load_config("smoke", ["training.max_target_tokens=77"])
    left_out = {"over_limit": 9, "over_limit_first": ["q1", "q4"]}
    with RunDir.open(tmp_path / "run", config) as rundir:
        bench = Workbench(config, rundir, Silent())
        bench._told("1-iteration/pair", inputs={}, settings={}, work=lambda folder: left_out)
        bench._told("1-iteration/select", inputs={}, settings={}, work=lambda folder: {"over_limit": 0})
        events = [json.loads(line) for line in (rundir.path / "journal.jsonl").read_text().splitlines()]
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert warning["stage"] == "1-iteration/pair"
    assert "9 rows" in warning["message"] and "77 tokens" in warning["message"] and "q1, q4" in warning["message"]


@pytest.mark.parametrize(
    ("use", "joined"), [("both", ["pairs", "labels"]), ("pairs", ["pairs"]), ("labels", ["labels"])]
)
def test_samples_join_the_pools_that_use_names(tmp_path: Path, use: str, joined: list[str]) -> None:
    config = load_config("smoke", [f"data.samples={{path: s.jsonl, use: {use}}}"])
    with RunDir.open(tmp_path / "run", config) as rundir:
        bench = Bench(config, rundir, Silent())
        bench._brought = bench.stage("samples", **STAGE)
        assert [pool for pool in ("pairs", "labels") if bench.brought_for(pool)] == joined


def test_storage_is_said_once_as_a_run_begins(tmp_path: Path) -> None:
    """The largest stage's: 32 slots, the longest prompt, 40 new tokens."""
    heard = Heard()
    for _ in range(2):
        api.run("smoke", until="data", out=tmp_path / "run", progress=heard)
        (tmp_path / "run/0-base").mkdir(exist_ok=True)
    (line,) = [line for line in heard.lines if "key/value storage" in line]
    assert re.fullmatch(r"sampling: at most 0\.\d+ GB of key/value storage \(32 rows of \d+ \+ 40 tokens\)", line)


def test_what_cannot_be_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'nonsense'"):
        api.run("smoke", until="nonsense", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="warmup_model: .*method: sft trains the warm-up"):
        api.run("smoke", ["method=sft", "warmup_model=mine"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_samples_and_an_own_warm_up_model_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain = load_config("smoke")
    with RunDir.open(tmp_path / "run", plain) as run:
        run.stage("0-warmup/select", **STAGE)
    for override in ("warmup_model=mine", "data.samples=s.jsonl"):
        with pytest.raises(RunError, match="holds a different run"):
            RunDir.open(tmp_path / "run", load_config("smoke", [override]))


def test_changed_code_another_version_and_a_damaged_shard_are_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "run", "0-base/evaluate/made-up"
    generate = Engine.generate

    def cut_off(engine: Engine, *arguments: Any) -> Any:
        if list(out.rglob("shard-*.jsonl")):
            raise KeyboardInterrupt
        return generate(engine, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "generate", cut_off)
        patch.setattr("selftrain.claim.__version__", "0.0")
        patch.setattr("selftrain.claim.code_digests", lambda: {"old.py": "0"})
        api.run("smoke", ["sampling.shard_questions=2"], out=out, until=made)
    (out / made / "shards/shard-00000.jsonl").write_bytes(b"{")
    results = api.run("smoke", ["sampling.shard_questions=2"], out=out, until=made)
    code, shard = results["warnings"]
    assert code["stage"] == "start" and shard["stage"] == made
    start = f"the code has changed since the last start: selftrain 0.0 there, {__version__} now: "
    assert code["message"].startswith(start) and "is new" in code["message"]
    assert shard["message"] == "not what was written, and sampled again: shard 0"


def test_what_was_halved_for_want_of_memory_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample, loss = _Loop.run, SFTObjective.loss

    def sample_little(loop: _Loop) -> None:
        if len(loop.slots) > 16:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        sample(loop)

    def train_little(objective: SFTObjective, module: Any, micro_batch: Any) -> Any:
        if len(micro_batch.items) > 4:
            raise torch.OutOfMemoryError
        return loss(objective, module, micro_batch)

    monkeypatch.setattr(_Loop, "run", sample_little)
    monkeypatch.setattr(SFTObjective, "loss", train_little)
    out = tmp_path / "run"
    results = api.run("smoke", ["method=sft", "training.sft.max_steps=1"], out=out, until="0-warmup/sft")
    told = [(warning["stage"], warning["message"]) for warning in results["warnings"]]
    sampled = [message for stage, message in told if stage == "0-base/evaluate/made-up"]
    assert sampled == ["out of memory; going on with 16 slots (set sampling.slots to start there)"]
    trained = [message for stage, message in told if stage == "0-warmup/sft"]
    assert "out of memory in step 1; went on with training.micro_batch_tokens=" in trained[-1]
    with RunDir.open(out, load_config("smoke", ["method=sft", "training.sft.max_steps=1"])) as rundir:
        assert rundir.figures("0-warmup/sft")["notes"] == trained


def test_a_run_warns_of_rationales_that_never_come_to_their_answer(tmp_path: Path) -> None:
    rows = [
        {"question": f"{n} nuts and 9 more?", "answer": n + 9 + (n == 12), "rationale": f"{n} + 9 = {n + 9} nuts"}
        for n in range(10, 40)
    ]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    own = f"data.train={{source: file, path: '{path}', take: 30}}"
    results = api.run("smoke", [own], out=tmp_path / "run", until="data")
    assert [(warning["stage"], warning["message"][:74]) for warning in results["warnings"]] == [
        ("data", "1 of 30 rationales never come to their row's answer (my/3); a model learns")
    ]


def warned_of(folder: Path, after_k: int, after_model: str, right_after: int) -> tuple[list[str], list[str]]:
    """Said and warned of an iteration: 40 questions, two draws each, all right before DPO, some right after it."""
    for kind, first, model, right in (("pairs", 0, "sft", 40), ("labels", after_k, after_model, right_after)):
        verdicts = [Verdict("right" if n < right else "wrong") for n in range(40)]
        rows = [
            Completion(f"q{n}", first + k, (k, right), "", "eos", model=model, strict=verdicts[n])
            for n in range(40)
            for k in range(2)
        ]  # fmt: skip
        (folder / f"1-iteration/sample-for-{kind}").mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / f"1-iteration/sample-for-{kind}" / "completions.jsonl", rows)
    heard, warnings = Heard(), list[str]()
    bench = SimpleNamespace(
        rundir=SimpleNamespace(path=folder), config=load_config("smoke"), progress=heard,
        sets=SimpleNamespace(questions=[Problem(f"q{n}", "?") for n in range(40)]),
        warn=lambda message, stage: warnings.append(message) if message else None,
    )  # fmt: skip
    SampleBench.warn_of_samples(bench, "1-iteration")  # type: ignore[arg-type]
    return heard.lines, warnings


def test_what_dpo_did_to_the_sampler_is_told(tmp_path: Path) -> None:
    """Fewer right after DPO is warned of, more not; what differs is said of equal draws; nothing where f' drew both."""
    said, warnings = warned_of(tmp_path, 0, "dpo", 25)
    assert said == ["  1-iteration: 100% of the samples differ from the SFT model's at equal seeds"]
    assert [message.split(" (")[0] for message in warnings] == [
        "DPO made a worse sampler: 100.0% of the samples were right before it and 62.5% after it"
    ]
    assert warned_of(tmp_path, 0, "dpo", 40)[1] == ["only 0.0% of the samples differ after DPO at equal seeds: "
                                                    "it did next to nothing."]  # fmt: skip
    assert warned_of(tmp_path, 2, "dpo", 25) == ([], warnings), "further draws are at other seeds"
    assert warned_of(tmp_path, 2, "sft", 25) == ([], [])
