"""The process that may be killed, with small programs in place of math-verify."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from selftrain.errors import ConfigError
from selftrain.verify.killable import BrokeOff, Killable

ECHO = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if "sleep" in asked: time.sleep(asked["sleep"])
    if "exit" in asked: os._exit(asked["exit"])
    print(json.dumps({"pid": os.getpid(), "said": asked.get("say"), "seed": os.environ["PYTHONHASHSEED"]}), flush=True)
"""
Make = Callable[..., Killable]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Killable] = []

    def start(program: str = ECHO, limit_s: float = 60.0) -> Killable:
        made.append(Killable([sys.executable, "-c", program], limit_s))
        return made[-1]

    yield start
    for worker in made:
        worker.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_answers_many_questions(make: Make) -> None:
    worker = make()
    answers = [worker.ask({"say": text}) for text in ("a", "\x00\ud800\u2028\n", "9" * 40_000)]
    assert [answer["said"] for answer in answers if answer] == ["a", "\x00\ud800\u2028\n", "9" * 40_000]
    assert len({answer["pid"] for answer in answers if answer}) == 1
    assert answers[0] is not None and answers[0]["seed"] == "0"


def test_one_that_gives_no_answer_is_killed_and_another_takes_over(make: Make) -> None:
    worker = make()
    first = worker.ask({})
    assert first is not None
    worker._limit_s = 0.2
    started = time.monotonic()
    assert worker.ask({"sleep": 300}) is None
    assert time.monotonic() - started < 60
    assert not alive(first["pid"])
    worker._limit_s = 60.0
    second = worker.ask({"say": "b"})
    assert second is not None and second["said"] == "b" and second["pid"] != first["pid"]


def test_one_that_breaks_off_is_told_apart_and_replaced(make: Make) -> None:
    worker = make()
    with pytest.raises(BrokeOff):
        worker.ask({"exit": 3})
    assert worker.ask({"say": "c"}) is not None


def test_one_that_died_between_questions_is_replaced(make: Make) -> None:
    worker = make()
    first = worker.ask({})
    assert first is not None and worker._process is not None
    os.kill(first["pid"], signal.SIGKILL)
    worker._process.wait()
    assert worker.ask({"say": "d"}) is not None, "it was not this question that killed it"


def test_an_interrupt_leaves_no_answer_behind(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = make()
    assert worker.ask({}) is not None

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("selftrain.verify.killable._receive", interrupt)
        worker.ask({"say": "old"})
    answer = worker.ask({"say": "new"})
    assert answer is not None and answer["said"] == "new"


def test_one_that_cannot_start_says_why(make: Make) -> None:
    with pytest.raises(ConfigError, match="no such luck"):
        make("raise SystemExit('no such luck')").ask({})


def test_closing_ends_the_process(make: Make) -> None:
    worker = make()
    answer = worker.ask({})
    assert answer is not None and alive(answer["pid"])
    worker.close()
    assert not alive(answer["pid"])
    worker.close()
