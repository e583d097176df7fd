"""`selftrain sample`: what the file holds, that a cut-off call is gone on with bitwise, and what is refused first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import selftrain
from selftrain import cli, samplefile
from selftrain.errors import ConfigError, DataError, RunError
from selftrain.models import load_tokenizer
from selftrain.progress import Silent
from selftrain.records import Completion, Verdict, read_jsonl, write_jsonl
from selftrain.samplefile import SampleResult, sample
from selftrain.sampling.base import Generated, OnFinished, Request, Sampler, SamplingParams
from selftrain.toy import make_toy
from selftrain.weights import weights_digest

SOURCE = Path(__file__).resolve().parents[1] / "src"
NAMES = ("random-llama", "random-t5")
PATIENCE_S = 120.0


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.totals: list[int | None] = []

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        self.totals.append(total)

    def say(self, message: str) -> None:
        self.lines.append(message)


class CutOff:
    """A sampler that is interrupted when it is asked for its second shard."""

    def __init__(self, inner: Sampler) -> None:
        self.inner, self.asked = inner, 0

    def generate(
        self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
    ) -> list[Generated]:
        self.asked += 1
        if self.asked == 2:
            raise KeyboardInterrupt
        return self.inner.generate(requests, params, on_finished)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, as in the killed process, so that results can be compared bitwise; a cache of its own."""
    monkeypatch.setenv("SELFTRAIN_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both random models."""
    folder = tmp_path_factory.mktemp("toys")
    for name in NAMES:
        make_toy(name, folder / name, seed=3)
    return folder


@pytest.fixture
def llama(toys: Path) -> str:
    return str(toys / "random-llama")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_rows(name: str, *rows: dict[str, Any]) -> str:
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write_rows


def small(model: str, data: str | Sequence[str], out: Path, **changed: Any) -> SampleResult:
    """A call of two shards a set of eight problems: 4 questions x 2 samples each."""
    settings: dict[str, Any] = {"samples": 2, "slots": 1, "max_new_tokens": 12, "take": 8}
    return sample(model, data, out, **{**settings, **changed})


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplefile, "open_sampler", lambda *_: pytest.fail("read the weights"))


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_two_sets_with_and_without_answers(
    toys: Path, name: str, write: Callable[..., str], tmp_path: Path
) -> None:
    mine = write(
        "mine",
        {"question": "6 boxes of 7 pens each?", "answer": "42"},
        {"question": "Why?"},
        {"question": "pens " * 300, "answer": "1"},
        {"question": "Which?", "answer": "(B)"},
    )
    out, heard = tmp_path / "out.jsonl", Heard()
    hot: dict[str, Any] = {"temperature": 5.0, "max_new_tokens": 20}  # the random T5 is next to sure of one token
    done = sample(str(toys / name), ["arithmetic", mine], out, samples=3, take=5, slots=4, progress=heard, **hot)
    rows = read_jsonl(out, Completion)
    asked = [f"arithmetic/0-{n}" for n in range(5)] + ["mine/1", "mine/2", "mine/4"]
    assert [(row.problem_id, row.k) for row in rows] == [(identity, k) for identity in asked for k in range(3)]
    assert {row.stage for row in rows} == {"sample"}
    assert {row.model for row in rows} == {weights_digest(toys / name)}
    assert all(isinstance(row.strict, Verdict) and isinstance(row.flexible, Verdict) for row in rows[:18])
    assert all(row.strict is None and row.flexible is None for row in rows[18:]), "no gold number, no verdict"
    assert len({row.token_ids for row in rows}) > 20, "they are draws"
    tokenizer = load_tokenizer(toys / name)
    for row in rows:
        assert len(row.token_ids) == 20 if row.stop == "length" else row.token_ids[-1] == tokenizer.eos_token_id
        kept = [token for token in row.token_ids if token != tokenizer.eos_token_id]
        assert row.text.strip() == tokenizer.decode(kept, clean_up_tokenization_spaces=False).strip()
    assert [(row.name, row.problems, row.too_long, row.unjudged) for row in done.sets] == [
        ("arithmetic", 5, 0, 0),
        ("mine", 3, 1, 2),
    ]
    assert (done.drawn["arithmetic"].completions, done.drawn["mine"].completions) == (15, 9)
    assert done.drawn["mine"].tokens == sum(len(row.token_ids) for row in rows[15:])
    assert "  1 prompts are over 256 tokens and are left out" in heard.lines
    assert sorted(entry.name for entry in tmp_path.glob("out*")) == ["out.jsonl", "out.jsonl.manifest.json"]


def test_columns_of_other_names(llama: str, write: Callable[..., str], tmp_path: Path) -> None:
    mine = write("mine", {"text": "6 boxes of 7 pens each?", "gold_value": "42"})
    out = tmp_path / "out.jsonl"
    small(llama, mine, out, fields=["question=text", "answer=gold_value"])
    assert {(row.problem_id, row.strict is None) for row in read_jsonl(out, Completion)} == {("mine/1", False)}


def test_a_finished_file_is_left_alone(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    first = small(llama, "arithmetic", out)
    before = (out.stat().st_mtime_ns, out.stat().st_ino, out.read_bytes())
    no_model(monkeypatch)
    heard = Heard()
    again = small(llama, ["arithmetic"], out, progress=heard)
    assert (out.stat().st_mtime_ns, out.stat().st_ino, out.read_bytes()) == before
    assert again.sets == first.sets and again.drawn == {}
    assert heard.lines == [f"{out} is finished already: nothing to do."]
    assert "-" in again.table().split("\n")[1].split()[-1]


def test_cut_off_it_goes_on_and_ends_equal(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    unbroken = small(llama, "arithmetic", whole)
    cut_off(monkeypatch, llama, "arithmetic", out)
    heard = Heard()
    resumed = small(llama, "arithmetic", out, progress=heard)
    assert out.read_bytes() == whole.read_bytes()
    assert resumed.sets == unbroken.sets
    assert (unbroken.drawn["arithmetic"].completions, resumed.drawn["arithmetic"].completions) == (16, 8)
    assert heard.totals == [8], "the rate and the time left are of what is left to do"
    assert "  8 completions are there from an earlier start" in heard.lines


def test_a_damaged_shard_is_named_and_sampled_again(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    small(llama, "arithmetic", whole)
    cut_off(monkeypatch, llama, "arithmetic", out)
    shard = next(Path(f"{out}.parts").rglob("shard-*.jsonl"))
    shard.write_bytes(shard.read_bytes().replace(b'"k":0', b'"k":1', 1))
    heard = Heard()
    resumed = small(llama, "arithmetic", out, progress=heard)
    assert "warning: not what was written, and sampled again: shard 0" in heard.lines
    assert out.read_bytes() == whole.read_bytes() and resumed.drawn["arithmetic"].completions == 16


def test_cut_off_in_the_second_set_the_first_is_kept(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., str]
) -> None:
    sets = [write(name, *({"question": f"{n} {name}?"} for n in range(4))) for name in ("pens", "cups")]
    small(llama, sets, tmp_path / "whole.jsonl")
    out = tmp_path / "out.jsonl"
    cut_off(monkeypatch, llama, sets, out)
    resumed = small(llama, sets, out)
    assert {name: drawn.completions for name, drawn in resumed.drawn.items()} == {"pens": 0, "cups": 8}
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def cut_off(monkeypatch: pytest.MonkeyPatch, model: str, data: str | Sequence[str], out: Path) -> None:
    """Leave one finished shard of two."""
    opening = samplefile.open_sampler
    with monkeypatch.context() as patch:
        patch.setattr(samplefile, "open_sampler", lambda *asked: CutOff(opening(*asked)))
        with pytest.raises(KeyboardInterrupt):
            small(model, data, out)
    assert not out.exists()
    assert len(list(Path(f"{out}.parts").rglob("shard-*.jsonl"))) == 1


CHANGED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 1.0}, "temperature (0.7 there, 1.0 asked)"),
    ({"seed": 5}, "seed (0 there, 5 asked)"),
    ({"samples": 1}, "samples (2 there, 1 asked)"),
    ({"max_new_tokens": 13}, "max_new_tokens (12 there, 13 asked)"),
    ({"calculator": False}, "calculator (True there, False asked)"),
    ({"slots": 2}, "slots (1 there, 2 asked)"),
    ({"take": 7}, "data.arithmetic.problems (8 there, 7 asked)"),
]


def test_other_settings_on_the_file_are_refused(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half, whole = tmp_path / "half.jsonl", tmp_path / "whole.jsonl"
    cut_off(monkeypatch, llama, "arithmetic", half)
    small(llama, "arithmetic", whole)
    no_model(monkeypatch)
    for changed, named in CHANGED:
        for out, state in ((half, "half done"), (whole, "finished")):
            with pytest.raises(RunError) as caught:
                small(llama, "arithmetic", out, **changed)
            assert named in caught.value.message and state in caught.value.message


def test_another_model_or_other_data_are_refused(
    toys: Path, llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., str]
) -> None:
    out = tmp_path / "out.jsonl"
    rows = [{"question": f"{n} pens and 1 more?", "answer": n + 1} for n in range(8)]
    mine = write("mine", *rows)
    cut_off(monkeypatch, llama, mine, out)
    make_toy("random-llama", tmp_path / "other", seed=4)
    no_model(monkeypatch)
    digest = weights_digest(tmp_path / "other")[:12]
    with pytest.raises(RunError, match=rf"otherwise: model \(\w{{12}} there, {digest} asked\)\."):
        small(str(tmp_path / "other"), mine, out)
    write("mine", *rows[:-1], {**rows[-1], "answer": 0})
    with pytest.raises(RunError, match=r"otherwise: data.mine \(\w{12} there, \w{12} asked\)\."):
        small(llama, mine, out)


def test_killed_it_goes_on_and_ends_bitwise_equal(llama: str, tmp_path: Path, write: Callable[..., str]) -> None:
    """SIGKILL as the second of five shards is there; the next start is in this process."""
    data = write("mine", *({"question": f"{n} pens and {n % 7} more?", "answer": n + n % 7} for n in range(160)))
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    settings: dict[str, Any] = {"samples": 2, "slots": 8, "max_new_tokens": 40}
    sample(llama, data, whole, **settings)
    options = ["--data", data, "-k", "2", "--slots", "8", "--max-new-tokens", "40", "--out", str(out)]
    shards = tmp_path / "out.jsonl.parts/mine/shards"
    kill_at(shards / "shard-00001.jsonl", ["sample", llama, *options])
    assert not out.exists()
    resumed = sample(llama, data, out, **settings)
    assert 0 < resumed.drawn["mine"].completions <= 3 * 64, "finished shards are kept"
    assert out.read_bytes() == whole.read_bytes()
    assert not shards.exists()


def kill_at(sign: Path, arguments: list[str]) -> None:
    """Start the command and kill it as soon as a file is there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "selftrain", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + PATIENCE_S
    while not sign.exists():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert process.returncode == -9


def test_the_verifier_judges_and_what_it_cannot_do_in_time_is_counted(
    llama: str, tmp_path: Path, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("checks_sample.py").write_text(
        "from selftrain.records import Verdict\n"
        "def f(text, answer):\n    return Verdict('timeout') if answer == 'late' else answer == 'yes'\n"
    )
    rows = [{"question": f"{answer}?", "answer": answer} for answer in ("yes", "no", "late")]
    path, heard = write("mine", *rows, {"question": "unknown?"}), Heard()
    done = small(llama, path, tmp_path / "out.jsonl", verify="checks_sample:f", slots=8, progress=heard)
    found = [row.strict.outcome if row.strict else None for row in read_jsonl(tmp_path / "out.jsonl", Completion)]
    assert found == ["right"] * 2 + ["wrong"] * 2 + ["timeout"] * 2 + [None] * 2
    assert [(row.timeouts, row.unjudged, row.strict) for row in done.sets] == [(2, 1, 2 / 6)]
    assert "mine: 2 completions were not judged in time." in done.table()
    with pytest.raises(RunError, match=r"data\.mine"):
        small(llama, path, tmp_path / "out.jsonl", slots=8)
    with pytest.raises(ConfigError, match="No verifier is called 'numbers'"):
        small(llama, path, tmp_path / "new.jsonl", verify="numbers")


def test_greedy_needs_no_seed(llama: str, tmp_path: Path) -> None:
    greedy: dict[str, Any] = {"samples": 1, "temperature": 0.0}
    for seed in (0, 1):
        small(llama, "arithmetic", tmp_path / f"{seed}.jsonl", seed=seed, **greedy)
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_settings_reach_the_sampler(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[SamplingParams, list[Request]]] = []

    class Notes:
        def generate(
            self, requests: Sequence[Request], params: SamplingParams, on_finished: OnFinished | None = None
        ) -> list[Generated]:
            asked.append((params, list(requests)))
            return [Generated((5, 0), "eos", ((0, 1),), 2, 1) for _ in requests]

    monkeypatch.setattr(samplefile, "open_sampler", lambda *_: Notes())
    out = tmp_path / "out.jsonl"
    small(llama, "arithmetic", out, temperature=0.9, top_k=7, top_p=0.5, calculator=False, take=2, seed=9)
    (params, requests), *more = asked
    assert not more and params == SamplingParams(0.9, 7, 0.5, 12, False)
    assert len({request.seed for request in requests}) == 4
    rows = read_jsonl(out, Completion)
    assert {(row.forced, row.calls, row.uncalculated) for row in rows} == {(((0, 1),), 2, 1)}


def test_a_delivered_model_s_own_settings(toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "delivered"
    shutil.copytree(toys / "random-llama", model)
    settings = {"prompt": {"template": "{question} =>", "max_prompt_tokens": 40}, "max_new_tokens": 9}
    (model / "selftrain.json").write_text(json.dumps(settings))
    out = tmp_path / "out.jsonl"
    sample(str(model), "arithmetic", out, samples=1, take=4)
    assert max(len(row.token_ids) for row in read_jsonl(out, Completion)) == 9
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["identity"]
    assert (manifest["max_new_tokens"], manifest["prompt.template"]) == (9, "{question} =>")


def test_nothing_that_fits(llama: str, tmp_path: Path, write: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="All 1 prompts are longer than 256 tokens"):
        small(llama, write("long", {"question": "pens " * 300}), tmp_path / "out.jsonl")


def test_two_sets_with_the_same_ids_are_refused(llama: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got 2 problems with id 'arithmetic/0-0'"):
        small(llama, ["arithmetic", "arithmetic"], tmp_path / "out.jsonl")


ARITHMETIC = ["--data", "arithmetic"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*ARITHMETIC, "-k", "0"], "--samples: expected at least 1 completion a problem, got 0"),
        ([*ARITHMETIC, "--temperature", "-1"], "--temperature: expected 0 (greedy) to 5, got -1.0"),
        ([*ARITHMETIC, "--temperature", "nan"], "--temperature: expected"),
        ([*ARITHMETIC, "--temperature", "0"], "all 8 completions of a problem would be the same"),
        ([*ARITHMETIC, "--top-k", "-1"], "--top-k: expected 0 (off) or more"),
        ([*ARITHMETIC, "--top-p", "0"], "--top-p: expected above 0"),
        ([*ARITHMETIC, "--max-new-tokens", "0"], "--max-new-tokens: expected at least 1"),
        ([*ARITHMETIC, "--slots", "0"], "--slots: expected at least 1"),
        ([*ARITHMETIC, "--seed", "-1"], "--seed: expected 0 or more"),
        ([*ARITHMETIC, "--take", "0"], "--take: expected at least 1 problem"),
        ([*ARITHMETIC, "--backend", "nonsense"], "--backend: expected engine"),
        ([*ARITHMETIC, "--max-new-tokens", "300"], "do not fit the model's 256 positions"),
        (["--data", "absent.jsonl"], "absent.jsonl: expected a file of rows"),
        (["--data", "nonsense"], "No data source is called 'nonsense'"),
        (["--data", "my file.jsonl"], "my file.jsonl: expected a file of rows"),
        ([*ARITHMETIC, "--out", "absent/out.jsonl"], "there is no folder absent"),
        ([*ARITHMETIC, "--out", "."], "Expected a file to write"),
        ([*ARITHMETIC, "--out", "theirs.jsonl"], "theirs.jsonl is there already and has no manifest"),
    ],
)
def test_bad_input_is_refused_before_weights_are_read(
    llama: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "theirs.jsonl", [])
    no_model(monkeypatch)
    assert command(monkeypatch, "sample", llama, "--out", "out.jsonl", *arguments) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.out == ""
    assert not list(tmp_path.glob("out.jsonl*"))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["selftrain", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_room_is_named(llama: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        small(llama, "arithmetic", tmp_path / "out.jsonl", max_new_tokens=256)
    assert caught.value.hint is not None
    room = int(caught.value.hint.removeprefix("Use --max-new-tokens ").removesuffix(" or less."))
    small(llama, "arithmetic", tmp_path / "out.jsonl", max_new_tokens=room, take=1, samples=1)


def test_storage_is_said_or_refused_before_weights_are_read(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()
    small(llama, "arithmetic", tmp_path / "out.jsonl", progress=heard)
    assert len([line for line in heard.lines if "GB of key/value storage (" in line]) == 1
    no_model(monkeypatch)
    monkeypatch.setattr("selftrain.sampling.paths.available_memory_bytes", lambda: 1)
    with pytest.raises(ConfigError, match="Sampling needs .* of key/value storage .* are free"):
        small(llama, "arithmetic", tmp_path / "other.jsonl")


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.jsonl")
    assert command(monkeypatch, "sample", str(tmp_path / "no model"), *ARITHMETIC, "--out", out) == 2
    assert "no model: expected a model folder" in capsys.readouterr().err


def test_the_command_prints_the_table(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    options = ["-k", "2", "--take", "3", "--max-new-tokens", "8", "--no-calculator", "--out", str(out)]
    assert command(monkeypatch, "sample", llama, *ARITHMETIC, *options) == 0
    captured = capsys.readouterr()
    header, row = captured.out.splitlines()
    assert header.split()[:2] == ["problems", "completions"] and row.split()[:3] == ["arithmetic", "3", "6"]
    assert float(row.split()[-2]) > 0
    assert "arithmetic: 6 completions" in captured.err
    assert len(read_jsonl(out, Completion)) == 6


def test_it_is_public_and_light() -> None:
    assert selftrain.sample is sample
    code = "import sys, selftrain.samplefile; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


def test_a_backend_that_is_not_installed_is_refused_with_what_to_install(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("selftrain.sampling.vllm_support.installed", lambda: None)
    no_model(monkeypatch)
    out = str(tmp_path / "out.jsonl")
    assert command(monkeypatch, "sample", llama, "--out", out, *ARITHMETIC, "--backend", "vllm") == 2
    assert "pip install 'selftrain[vllm]'" in capsys.readouterr().err
