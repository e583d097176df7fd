"""vLLM's sampler without vLLM: the child process, and the worker under a stub of the vllm package."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import ConfigError
from selftrain.sampling.base import Generated, Request, SamplingParams
from selftrain.sampling.segments import Segment
from selftrain.sampling.vllm_child import Child
from selftrain.sampling.vllm_sampler import VllmSampler, child_environment
from selftrain.sampling.vllm_support import VllmError
from selftrain.sampling.vllm_worker import Setup, drawing, engine_arguments
from selftrain.toy import make_toy

SOURCE = Path(__file__).parents[2] / "src"
PARAMS = SamplingParams(temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=20, calculator=True)

STUB = """
import json, os
from types import SimpleNamespace
print("chatter on standard output", flush=True)
__version__ = "0.32.0"
SCRIPT = json.loads(os.environ["STUB_SCRIPT"])


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    def __init__(self, **arguments):
        self.waiting, self.count, self.llm_engine = {}, 0, self
        scheduler = SimpleNamespace(max_num_seqs=arguments.get("max_num_seqs", 256))
        self.vllm_config = SimpleNamespace(scheduler_config=scheduler, cache_config=SimpleNamespace(block_size=4))
        self.note(arguments=arguments, pid=os.getpid(), space=os.environ["VLLM_CPU_KVCACHE_SPACE"])

    def note(self, **what):
        with open(os.environ["STUB_NOTES"], "a") as notes:
            print(json.dumps(what), file=notes)

    def enqueue(self, prompts, params, use_tqdm):
        names = []
        for prompt, given in zip(prompts, params):
            self.note(prompt=prompt["prompt_token_ids"], params=vars(given))
            self.waiting[str(self.count)] = (prompt["prompt_token_ids"], given)
            names.append(f"{self.count}-ab12cd34")
            self.count += 1
        return names

    def step(self):  # the newest first; a prompt begins with its own length
        name, (ids, given) = self.waiting.popitem()
        place = len(ids) - ids[0]
        out = []
        while len(out) < given.max_tokens and not (out and out[-1] in given.stop_token_ids):
            out.append(SCRIPT[place + len(out)])
        running = SimpleNamespace(request_id="-", finished=False)
        ended = SimpleNamespace(request_id=name, finished=True, num_cached_tokens=(len(ids) - 1) // 4 * 4,
                                outputs=[SimpleNamespace(token_ids=out)])
        return [running, ended]
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    make_toy("random-llama", folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def tokenizer(toy: Path) -> Any:
    from selftrain.models import load_tokenizer

    return load_tokenizer(toy)


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Path:
    """The stub on the child's path; what it is given comes into the returned file."""
    package = tmp_path / "stub" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STUB)
    (package / "platforms.py").write_text("class current_platform:\n    is_cpu = staticmethod(lambda: True)\n")
    script = [*tokenizer.encode("<<7*6=41>>41 and more"), tokenizer.eos_token_id]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "stub"), str(SOURCE)]))
    monkeypatch.setenv("STUB_SCRIPT", json.dumps(script))
    monkeypatch.setenv("STUB_NOTES", str(tmp_path / "notes.jsonl"))
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    return tmp_path / "notes.jsonl"


def sampler_for(folder: Path, **more: Any) -> VllmSampler:
    command = [sys.executable, "-m", "selftrain.sampling.vllm_worker"]
    settings: dict[str, Any] = {"style": "angle", "precision": "fp32", "slots": 4, "max_model_len": 64}
    return VllmSampler(folder, command=command, **{**settings, **more})


def requests(count: int) -> list[Request]:
    return [Request(f"q{index}", 0, (3 + index % 5, *[1] * (2 + index % 5)), 1000 + index) for index in range(count)]


def is_gone(pid: int) -> bool:
    """Whether a process has ended (one that nobody has waited for yet has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_until_gone(pid: int) -> bool:
    for _ in range(200):
        if is_gone(pid):
            return True
        time.sleep(0.05)
    return False


def test_the_worker_answers_with_a_right_annotation(toy: Path, stub: Path, tokenizer: Any) -> None:
    heard: list[Generated] = []
    with sampler_for(toy) as sampler:
        outputs = sampler.generate(requests(11), PARAMS, heard.append)
        again = sampler.generate(requests(2), SamplingParams(0.0, 5, 0.9, 6, calculator=False))
    assert len(outputs) == len(heard) == 11
    assert sorted(map(repr, outputs)) == sorted(map(repr, heard))
    for output in outputs:
        assert tokenizer.decode(output.token_ids).startswith("<<7*6=42>>")
        assert (output.calls, output.uncalculated) == (1, 0)
        ((start, end),) = output.forced
        assert tokenizer.decode(output.token_ids[start:end]) == "42>>"
        assert output.token_ids[-1] == tokenizer.eos_token_id or len(output.token_ids) == 20
    assert [(len(output.token_ids), output.stop, output.calls) for output in again] == [(6, "length", 0)] * 2
    assert (sampler.version, sampler.figures["dropped"]) == ("0.32.0", 0)
    assert sampler.figures["segments"] >= 2 * 11 + 2
    assert 0 < sampler.figures["reusable"] <= sampler.figures["cached"]
    notes = [json.loads(line) for line in stub.read_text().splitlines()]
    assert (notes[0]["arguments"]["block_size"], notes[0]["arguments"]["generation_config"]) == (32, "vllm")
    assert notes[0]["space"] == "4"
    drawn = [note["params"] for note in notes[1:]]
    assert len({params["seed"] for params in drawn}) == len(drawn) - 2  # requests 0 and 1 came twice
    assert {(p["n"], p["temperature"], p["top_k"], p["top_p"]) for p in drawn} == {(1, 0.7, 0, 1.0), (1, 0.0, 5, 0.9)}
    assert wait_until_gone(notes[0]["pid"])


def test_an_engine_that_does_not_open(toy: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STUB_NOTES", str(tmp_path / "no" / "such" / "folder"))
    sampler = sampler_for(toy, log=tmp_path / "vllm.log")
    with pytest.raises(VllmError, match="vLLM failed: FileNotFoundError") as caught:
        sampler.generate(requests(1), PARAMS)
    assert str(tmp_path / "vllm.log") in (caught.value.hint or "")
    assert "Traceback" in (tmp_path / "vllm.log").read_text()
    assert "chatter on standard output" in (tmp_path / "vllm.log").read_text()


def fake(body: str) -> list[str]:
    """A child that reads the set-up, says that it is ready, reads the requests, and then does `body`."""
    start = "import json, os, sys, time\nsays = lambda m: print(json.dumps(m), flush=True)\n"
    return [sys.executable, "-c", f"{start}input()\nsays({{'ready': '0'}})\ninput()\n{body}"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('out of luck', file=sys.stderr); sys.exit(3)", "ended with code 3"),
        ("os.kill(os.getpid(), 9)", "killed by signal 9"),
        ("print('{\"index\"', end='', flush=True)", "ended with code 0"),
        ("says({'error': 'RuntimeError: no'}); sys.stdin.read()", "vLLM failed: RuntimeError: no"),
    ],
)
def test_a_child_that_fails(body: str, message: str, tmp_path: Path) -> None:
    sampler = VllmSampler(
        tmp_path, style="angle", precision="fp32", slots=4, max_model_len=64, command=fake(body)
    )  # fmt: skip
    with pytest.raises(VllmError, match=message) as caught:
        sampler.generate(requests(2), PARAMS)
    if "luck" in body:
        assert "out of luck" in (caught.value.hint or "")


def test_a_failed_sampler_can_be_asked_again(tmp_path: Path) -> None:
    once = tmp_path / "once"
    body = f"""
from pathlib import Path
if not Path({str(once)!r}).exists():
    Path({str(once)!r}).touch()
    sys.exit(1)
done = dict(token_ids=[1], stop='length', forced=[], calls=0, uncalculated=0)
for index in (1, 0):
    says(dict(index=index, **done) | dict(token_ids=[index]))
says(dict(end=dict(segments=4, reusable=100, cached=10, dropped=0)))
sys.stdin.read()
"""
    said: list[str] = []
    with VllmSampler(
        tmp_path, style="angle", precision="fp32", slots=4, max_model_len=64, command=fake(body), say=said.append
    ) as sampler:
        with pytest.raises(VllmError):
            sampler.generate(requests(2), PARAMS)
        assert [output.token_ids for output in sampler.generate(requests(2), PARAMS)] == [(0,), (1,)]
    assert len(said) == 1
    assert "10%" in said[0]


@pytest.mark.parametrize("way", ["close", "collect"])
def test_the_child_ends_when_it_is_let_go(way: str) -> None:
    command = [sys.executable, "-c", "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"]
    child = Child(command, os.environ, None)
    process = child._process
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert not is_gone(pid)
    if way == "close":
        child.close()
    del child
    gc.collect()
    assert process.poll() is not None


WORKER = """
import os, queue, threading, time
from selftrain.sampling.vllm_worker import end_with_parent, own_pipes, read_until_end
end_with_parent()
requests, answers = own_pipes()
print("not for the protocol")
threading.Thread(target=read_until_end, args=(requests, queue.Queue()), daemon=True).start()
answers.write(f'{os.getpid()}\\n')
answers.flush()
time.sleep(300)
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def test_the_worker_ends_with_its_input_even_when_busy() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline().strip() == str(worker.pid)
        os.kill(worker.pid, signal.SIGINT)  # Ctrl-C is the parent's affair
        time.sleep(0.3)
        assert worker.poll() is None
        worker.stdin.close()
        try:
            assert worker.wait(10) == 0
        finally:
            worker.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_ends_when_its_parent_is_killed() -> None:
    parent = f"""
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(worker.stdout.readline(), flush=True)
worker.wait()
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        assert wait_until_gone(pid)


@pytest.mark.parametrize(
    ("params", "prompt", "message"),
    [
        (PARAMS, 45, "got a prompt of 45 tokens and 20 new ones"),
        (SamplingParams(0.005, 0, 1.0, 20, True), 5, "temperature"),
    ],
)
def test_requests_that_are_refused(params: SamplingParams, prompt: int, message: str, tmp_path: Path) -> None:
    sampler = sampler_for(tmp_path)
    with pytest.raises(ConfigError, match=message):
        sampler.generate([Request("q", 0, (1,) * prompt, 1)], params)
    assert sampler._child is None
    assert sampler.generate([], params) == []


def test_nothing_is_left_to_a_default() -> None:
    given = drawing(PARAMS, Segment((1, 2), 9, 77, 0), (0, 5))
    assert given["top_k"] == 0
    assert given["top_p"] == 1.0
    assert given["temperature"] == 0.7
    assert (given["n"], given["seed"], given["max_tokens"], given["stop_token_ids"]) == (1, 77, 9, [0, 5])
    assert given["ignore_eos"] is True  # else the end tokens of the model's generation_config are added
    setup = Setup("m", "float32", "angle", 8, 300, False, {"gpu_memory_utilization": 0.5})
    on_gpu, on_cpu = engine_arguments(setup, is_cpu=False), engine_arguments(setup, is_cpu=True)
    assert on_cpu == {**on_gpu, "block_size": 32, "enforce_eager": True}
    assert (on_gpu["generation_config"], on_gpu["gpu_memory_utilization"], on_gpu["max_num_seqs"]) == ("vllm", 0.5, 8)
    assert "max_num_seqs" not in engine_arguments(dataclasses.replace(setup, slots="auto"), is_cpu=False)


def test_the_childs_environment() -> None:
    given = child_environment({"VLLM_CPU_KVCACHE_SPACE": "8", "HOME": "/h", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, 2)
    assert (given["VLLM_CPU_KVCACHE_SPACE"], given["HOME"], given["OMP_NUM_THREADS"]) == ("8", "/h", "2")
    assert given["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "OMP_NUM_THREADS" not in child_environment({}, None)
