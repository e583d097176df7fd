"""The run folder: skip what is finished, redo what is not, refuse what is somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import selftrain
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.identity import identity
from selftrain.provenance import code_digests
from selftrain.recipe import load_config
from selftrain.rundir import RunDir, StageResult
from selftrain.stagefolder import write_json


@pytest.fixture
def config() -> RunConfig:
    return load_config("smoke")


def write_hello(folder: Path) -> dict[str, int]:
    (folder / "hello.txt").write_text("hello")
    return {"rows": 1}


def test_a_finished_stage_is_skipped_and_changed_inputs_redo_it(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config) as run:
        first = run.stage("a", inputs={"x": "1"}, settings={}, work=write_hello)
        again = run.stage("a", inputs={"x": "1"}, settings={}, work=lambda _: pytest.fail("ran again"))
        other = run.stage("a", inputs={"x": "2"}, settings={}, work=write_hello)
    assert (first.skipped, again.skipped, other.skipped) == (False, True, False)
    assert again.digest == first.digest and again.figures == {"rows": 1}


def test_a_broken_stage_leaves_no_manifest_and_goes_on_in_its_folder(tmp_path: Path, config: RunConfig) -> None:
    def breaks(folder: Path) -> dict[str, int]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    def goes_on(folder: Path) -> dict[str, int]:
        assert (folder / "half.txt").read_text() == "half"
        return {}

    with RunDir.open(tmp_path / "run", config) as run:
        with pytest.raises(RuntimeError, match="power cut"):
            run.stage("a", inputs={}, settings={}, work=breaks)
        assert not (run.path / "a" / "manifest.json").exists()
        assert not run.stage("a", inputs={}, settings={}, work=goes_on).skipped


def test_a_missing_output_makes_a_stage_unfinished(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config) as run:
        run.stage("a", inputs={}, settings={}, work=write_hello)
        (run.path / "a" / "hello.txt").unlink()
        assert not run.stage("a", inputs={}, settings={}, work=write_hello).skipped


def warnings_of(run: RunDir) -> list[str]:
    events = [json.loads(line) for line in (run.path / "journal.jsonl").read_text().splitlines()]
    return [event["message"] for event in events if event["event"] == "warning"]


def test_a_damaged_output_is_named_and_its_stage_redone(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config) as run:
        first = run.stage("a", inputs={}, settings={}, work=write_hello)
        (run.path / "a" / "hello.txt").write_text("hellp")
        again = run.stage("a", inputs={}, settings={}, work=write_hello)
        assert not again.skipped and again.digest == first.digest
        assert warnings_of(run) == ["hello.txt is gone or is not what was written; a is redone"]


def test_a_damaged_config_of_a_model_is_found_and_its_weights_are_not_looked_at(
    tmp_path: Path, config: RunConfig
) -> None:
    def train(folder: Path) -> dict[str, int]:
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model/config.json").write_text("config")
        (folder / "model/model.safetensors").write_text("weights")
        return {}

    with RunDir.open(tmp_path / "run", config) as run:
        model = run.stage("a/sft", inputs={}, settings={}, work=train).folder / "model"
        (model / "model.safetensors").write_text("changed")
        assert run.stage("a/sft", inputs={}, settings={}, work=train).skipped, "compared where they are loaded"
        (model / "config.json").write_text("changed")
        assert not run.stage("a/sft", inputs={}, settings={}, work=train).skipped
        assert warnings_of(run) == ["model/config.json is gone or is not what was written; a/sft is redone"]


@pytest.mark.parametrize("damage", ["{}", "[]", "", '{"digest": "0"}'])
def test_a_damaged_manifest_is_named_and_not_believed(tmp_path: Path, config: RunConfig, damage: str) -> None:
    said: list[str] = []
    with RunDir.open(tmp_path / "run", config) as run:
        run.say = said.append
        run.stage("a", inputs={}, settings={}, work=write_hello)
        manifest = run.path / "a" / "manifest.json"
        known = json.loads(manifest.read_text())
        changed = {**known, **json.loads(damage)} if damage.startswith('{"') else None
        manifest.write_text(damage if changed is None else json.dumps(changed))
        assert not run.stage("a", inputs={}, settings={}, work=write_hello).skipped
        assert warnings_of(run) == ["manifest.json is not what was written; a is redone"]
        assert said == [f"warning: {message}" for message in warnings_of(run)]
        assert run.stage("a", inputs={}, settings={}, work=write_hello).skipped


def test_finished_work_that_was_made_otherwise_is_put_aside(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config) as run:
        for rows in (1, 2, 3):
            run.stage("0/a", inputs={"x": "1"}, settings={"rows": rows, "k": 4}, work=write_hello)
        assert sorted(path.name for path in (run.path / "0").iterdir()) == ["a", "a.before-1", "a.before-2"]
        assert (run.path / "0/a.before-1/hello.txt").read_text() == "hello"
        assert warnings_of(run)[0] == "what was finished there was made otherwise (rows); it is in a.before-1 now"
        assert len(list(run.path.rglob("manifest.json"))) == 1


def test_what_only_a_resume_needs_goes_once_the_manifest_is_there(tmp_path: Path, config: RunConfig) -> None:
    def work(folder: Path) -> dict[str, int]:
        write_json(folder / "shards" / "0.json", {})
        return write_hello(folder)

    def stage(run: RunDir) -> StageResult:
        return run.stage("a", inputs={}, settings={}, work=work, scratch=["shards"])

    with RunDir.open(tmp_path / "run", config) as run:
        first = stage(run)
        assert not (run.path / "a" / "shards").exists()
        write_json(run.path / "a" / "shards" / "0.json", {})  # as a kill between the two would leave it
        assert stage(run).skipped and not (run.path / "a" / "shards").exists()
        outputs = json.loads((run.path / "a" / "manifest.json").read_text())["outputs"]
        assert list(outputs) == ["hello.txt"] and first.figures == {"rows": 1}


def test_what_a_killed_process_left_is_no_output_and_no_obstacle(tmp_path: Path, config: RunConfig) -> None:
    dead = int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".run.json.{dead}.tmp").write_text("{")

    def work(folder: Path) -> dict[str, int]:
        write_json(folder / f".model.{dead}.tmp" / "model.safetensors", {})
        return write_hello(folder)

    with RunDir.open(tmp_path / "run", config) as run:
        run.stage("a", inputs={}, settings={}, work=work)
        assert list(json.loads((run.path / "a" / "manifest.json").read_text())["outputs"]) == ["hello.txt"]
    RunDir.open(tmp_path / "run", config).close()
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_released_weights_do_not_make_a_stage_unfinished(tmp_path: Path, config: RunConfig) -> None:
    def train(folder: Path) -> dict[str, int]:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("w")
        return {}

    with RunDir.open(tmp_path / "run", config) as run:
        run.stage("a/sft", inputs={}, settings={}, work=train)
        run.release("a/sft")
        assert not (run.path / "a/sft/model").exists()
        assert run.stage("a/sft", inputs={}, settings={}, work=train).skipped


def test_another_run_in_the_folder_is_refused_by_its_differing_keys(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config) as run:
        run.stage("0-warmup/select", inputs={}, settings={}, work=write_hello)
    other = load_config("smoke", ["training.dpo.beta=0.9", "seed=5"])
    with pytest.raises(RunError, match=r"seed \(1 there, 5 asked\), training\.dpo\.beta"):
        RunDir.open(tmp_path / "run", other)
    RunDir.open(tmp_path / "run", load_config("smoke", ["baselines=[st]", "training.micro_batch_tokens=512"])).close()


def test_a_run_that_did_no_work_leaves_the_folder_to_another(tmp_path: Path, config: RunConfig) -> None:
    other = load_config("smoke", ["seed=5"])

    def breaks(folder: Path) -> dict[str, int]:
        raise RunError("the prompt is too long")

    with RunDir.open(tmp_path / "run", config) as run:
        run.stage("data", inputs={}, settings={}, work=write_hello)
        (run.path / "base").mkdir()
        with pytest.raises(RunError, match="too long"):
            run.stage("0-base/evaluate/made-up", inputs={}, settings={}, work=breaks)
    (tmp_path / "run/notes.txt").write_text("mine")
    with RunDir.open(tmp_path / "run", other) as run:
        left = {entry.name for entry in run.path.iterdir()}
        assert left >= {"run.json", "config.yaml", "notes.txt"} and not left & {"data", "base"}
        assert (run.path / "journal.jsonl").read_text().count('"start"') == 1
        run.stage("data", inputs={}, settings={}, work=write_hello)
    RunDir.open(tmp_path / "run", config).close()


@pytest.mark.parametrize("left", ["shards/0.jsonl", "checkpoint/state.json"])
def test_half_a_stage_is_work_and_is_not_thrown_away(tmp_path: Path, config: RunConfig, left: str) -> None:
    def cut_off(folder: Path) -> dict[str, int]:
        write_json(folder / left, {})
        raise KeyboardInterrupt

    with RunDir.open(tmp_path / "run", config) as run, pytest.raises(KeyboardInterrupt):
        run.stage("0-base/evaluate/made-up", inputs={}, settings={}, work=cut_off)
    with pytest.raises(RunError, match="holds a different run: seed"):
        RunDir.open(tmp_path / "run", load_config("smoke", ["seed=5"]))
    assert (tmp_path / "run/0-base/evaluate/made-up" / left).is_file()


def test_a_setting_that_an_older_version_did_not_have_counts_as_its_default(tmp_path: Path, config: RunConfig) -> None:
    run = tmp_path / "run"
    RunDir.open(run, config).close()
    write_json(run / "0-warmup/sft/started.json", {"key": "k"})  # work that is not to be thrown away
    write_json(run / "0-warmup/sft/checkpoint/seal.json", {})
    known = json.loads((run / "run.json").read_text())
    del known["identity"]["pairs.per_question"], known["seal"], known["config"]
    write_json(run / "run.json", known)
    text = "".join(line for line in (run / "config.yaml").read_text().splitlines(True) if "per_question" not in line)
    (run / "config.yaml").write_text(text)
    RunDir.open(run, config).close()
    write_json(run / "run.json", known)
    with pytest.raises(RunError, match="pairs.per_question"):
        RunDir.open(run, load_config("smoke", ["pairs.per_question=9"]))


def test_changed_code_is_named(tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with RunDir.open(tmp_path / "run", config) as run:
            assert not run.noticed
    other = {**code_digests(), "pairing.py": "0", "study/new.py": "1"}
    monkeypatch.setattr("selftrain.claim.code_digests", lambda: other)
    with RunDir.open(tmp_path / "run", config) as run:
        assert run.noticed == ["the code has changed since the last start: pairing.py differs, study/new.py is new"]
    monkeypatch.setattr("selftrain.claim.__version__", "99.0")
    with RunDir.open(tmp_path / "run", config) as run:
        expected = f"the code has changed since the last start: selftrain {selftrain.__version__} there, 99.0 now"
        assert run.noticed == [expected]
    with RunDir.open(tmp_path / "run", config) as run:
        assert not run.noticed


def test_what_an_older_version_noted_without_digests_is_believed(tmp_path: Path, config: RunConfig) -> None:
    run = tmp_path / "run"
    with RunDir.open(run, config) as opened:
        opened.stage("0-warmup/select", inputs={}, settings={}, work=write_hello)
    known = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", {key: value for key, value in known.items() if key not in ("seal", "config")})
    with RunDir.open(run, config) as opened:
        assert opened.stage("0-warmup/select", inputs={}, settings={}, work=write_hello).skipped and not opened.noticed
    assert json.loads((run / "run.json").read_text()) == known


def test_a_damaged_config_is_named_and_written_again(tmp_path: Path, config: RunConfig) -> None:
    file = tmp_path / "run/config.yaml"
    RunDir.open(tmp_path / "run", config).close()
    whole = file.read_bytes()
    for damage in (whole.replace(b"seed: 1", b"seed: 2"), b"", None):
        file.unlink() if damage is None else file.write_bytes(damage)
        with RunDir.open(tmp_path / "run", config) as run:
            assert run.noticed == ["config.yaml is gone or is not what was written; it is written again"]
        assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"{}", b"seed"])
def test_a_damaged_run_json_is_refused(tmp_path: Path, config: RunConfig, damage: bytes) -> None:
    file = tmp_path / "run/run.json"
    RunDir.open(tmp_path / "run", config).close()
    file.write_bytes(file.read_bytes().replace(b'"seed": 1', b'"seed": 7') if damage == b"seed" else damage)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        RunDir.open(tmp_path / "run", config)


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        RunDir.open(tmp_path, config)


def test_two_processes_do_not_share_a_folder(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config), pytest.raises(RunError, match="in use by process"):
        RunDir.open(tmp_path / "run", config)


HOLDER = """
import sys
from pathlib import Path
from selftrain.recipe import load_config
from selftrain.rundir import RunDir
with RunDir.open(Path(sys.argv[1]), load_config("smoke")):
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_the_second_of_two_processes_is_told_of_the_first_and_takes_over_once_it_is_dead(
    tmp_path: Path, config: RunConfig
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as first:
        assert first.stdout is not None and first.stdout.readline() == b"open\n"
        with pytest.raises(RunError, match=rf"is in use by process {first.pid}\."):
            RunDir.open(tmp_path / "run", config)
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 1 and f"is in use by process {first.pid}." in second.stderr
        first.kill()
    assert (tmp_path / "run/.lock").read_text() == str(first.pid), "the lock of a dead process lies there"
    with RunDir.open(tmp_path / "run", config) as run:
        assert (run.path / ".lock").read_text() == str(os.getpid())


def test_run_control_is_no_part_of_the_identity(config: RunConfig) -> None:
    keys = identity(config)
    assert "training.dpo.beta" in keys and "data.test.0.source" in keys
    assert not {"baselines", "compute.threads", "training.micro_batch_tokens"} & keys.keys()


def test_the_journal_is_lines_of_json(tmp_path: Path, config: RunConfig) -> None:
    with RunDir.open(tmp_path / "run", config) as run:
        run.journal("warning", message="<b>")
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "warning"]
