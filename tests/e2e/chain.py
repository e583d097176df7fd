"""One run folder, killed and started again: attempts, where each was cut off, and what work that cost.

    whole = unbroken(recipe, settings, folder)           # what it comes to, its fault points, its stages' seconds
    chain = Chain(recipe, settings, folder, whole, account)      # `account`: a dict to keep between calls
    chain.attempt(wanted={"1-iteration/pair: rename manifest.json"})      # the power is cut at the first of these
    chain.attempt(aim=("1-iteration/dpo", 0.3))                 # SIGKILL 0.3 s after that stage has begun

A place is a stage, "start", "after STAGE" or "report"; a fault point is named PLACE: WHAT NAME. Work is lost where a
completion or an optimiser step has to be made again: what all attempts made, without what lies on the disk.

Attempts are forked, so that what is imported once is there for all of them: for a script without threads (torture.py).
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from selftrain import durable
from selftrain.api import run
from selftrain.config import RunConfig
from selftrain.recipe import load_config
from selftrain.report.expected import expected_stages
from selftrain.sampling.units import read_shard
from selftrain.training.steplog import read_steps
from selftrain.weights import weights_digest
from tests.e2e.conftest import fingerprint_of

POLL_S = 0.001
DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
START, REPORT = "start", "report"
COUNTED = ("completions", "steps")
Aim = tuple[str, float]


@dataclasses.dataclass(frozen=True)
class Unbroken:
    """A run that nothing stopped: digests of its results, fault points in order, completions or steps of its stages,
    completions of their shards, and how long each place took."""

    fingerprint: dict[str, str]
    points: list[str]
    units: dict[str, int]
    shard_rows: dict[str, int]
    seconds: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How it ended: finished, or killed at a place, perhaps at a fault point. `over`: a bound that lost work broke."""

    finished: bool
    place: str
    point: str
    lost_shards: int
    lost_steps: int
    seconds: float
    over: str


class Heard:
    """Progress, as lines in a file that outlives the process: "STAGE<tab>UNIT", and "+" for each unit done."""

    def __init__(self, path: Path) -> None:
        self.out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        os.write(self.out, f"{stage}\t{unit}\n".encode())

    def advance(self, amount: int = 1, detail: str = "") -> None:
        os.write(self.out, b"+\n")

    def end(self, figure: str = "", skipped: bool = False) -> None:
        pass

    def say(self, message: str) -> None:
        pass


def read_heard(path: Path) -> Counter[str]:
    """Completions or steps that were made in each stage."""
    made: Counter[str] = Counter()
    stage, counts = "", False
    for line in path.read_text().splitlines() if path.exists() else ():
        if line == "+":
            made[stage] += counts
        else:
            stage, _, unit = line.partition("\t")
            counts = unit in COUNTED
    return made


def unbroken(recipe: str, settings: Sequence[str], folder: Path) -> Unbroken:
    """Carry a run out; what later ones are compared with."""
    account: dict[str, Any] = {}
    chain = Chain(recipe, settings, folder, None, account)
    points = folder.with_name(f"{folder.name}.points")
    points.unlink(missing_ok=True)
    started = time.time()
    chain.attempt(record=points)
    shard_rows = {}
    for stage in account["made"]:
        figures = json.loads((folder / stage / "manifest.json").read_text())["figures"]
        if "completions" in figures:
            shard_rows[stage] = chain.config.sampling.shard_questions * figures["completions"] // figures["problems"]
    events = chain.events()
    ends = {event["stage"]: event["seconds"] for event in events if event["event"] == "stage-end"}
    first = next(event["time"] for event in events if event["event"] == "stage-start")
    seconds = {START: first - started, **ends}
    passed = list(dict.fromkeys(points.read_text().splitlines()))
    return Unbroken(fingerprint(folder), passed, account["made"], shard_rows, seconds)


def fingerprint(folder: Path) -> dict[str, str]:
    """Digests of samples, pairs, examples and weights, the delivered model's too."""
    return {**fingerprint_of(folder), "model": weights_digest(folder / "model")}


class Chain:
    """A run folder and the attempts at it; what they made is counted in `account`."""

    def __init__(
        self, recipe: str, settings: Sequence[str], folder: Path, whole: Unbroken | None, account: dict[str, Any]
    ) -> None:
        self.config: RunConfig = load_config(recipe, settings)
        self.stages = list(expected_stages(self.config))
        self.folder, self.whole, self.account = folder, whole, account
        for name, nothing in (("attempts", 0), ("made", {}), ("lost", {})):
            account.setdefault(name, nothing)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if self._beside(account["attempts"] + 1).exists():  # whoever counts was stopped before it had counted that one
            self._count(account["attempts"] + 1)

    def attempt(self, *, wanted: Collection[str] = (), aim: Aim | None = None, record: Path | None = None) -> Attempt:
        """Go on with the run until it is finished or killed.

        Raises:
            RuntimeError: it ended in another way.
        """
        before, number = len(self.events()), self.account["attempts"] + 1
        self._beside(number - 1).unlink(missing_ok=True)
        hit = self.folder.with_name(f"{self.folder.name}.hit")
        hit.unlink(missing_ok=True)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            self._carry_out(number, lambda at: self._passed(at, wanted, hit, record), before)
        code = self._wait(child, aim, before)
        seconds = time.monotonic() - started
        place = self.place(before)
        point = hit.read_text() if hit.exists() else ""
        if code not in (0, -signal.SIGKILL) or (code and not point and not aim):
            raise RuntimeError(f"{self.folder}, {place}: an attempt ended with exit code {code}")
        shards, steps, over = self._count(number)
        if over == "" and ((not code and shards + steps) or shards > 1):
            over = f"{shards} shards and {steps} steps were made again"
        return Attempt(code == 0, place, point, shards, steps, seconds, over)

    def events(self) -> list[dict[str, Any]]:
        """The journal's whole lines."""
        journal = self.folder / "journal.jsonl"
        found = []
        for line in journal.read_bytes().splitlines() if journal.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def place(self, before: int) -> str:
        """Where an attempt is, by the journal behind its first `before` events and the manifests."""
        events = self.events()[before:]
        stage = ""
        for event in events:
            if event["event"] in ("stage-start", "stage-end"):
                stage = event["stage"] if event["event"] == "stage-start" else ""
        if stage or not events:
            return stage or START
        if any(event["event"] == "end" for event in events):
            return REPORT
        finished = [stage for stage in self.stages if self.is_finished(stage)]
        return f"after {finished[-1]}" if finished else f"after {START}"

    def _begun(self, before: int) -> set[str]:
        return {event["stage"] for event in self.events()[before:] if event["event"] == "stage-start"}

    def is_finished(self, stage: str) -> bool:
        """Whether a stage has its manifest."""
        return (self.folder / stage / "manifest.json").exists()

    def _carry_out(self, number: int, passed: Callable[[str], bool], before: int) -> None:
        """In the child."""
        code = 1
        try:
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
            act = durable._point

            def point(kind: str, name: str) -> None:
                what = f"{kind} {re.sub('[0-9]+', 'N', name)}"
                if passed(f"{self.place(before)}: {what}"):
                    os.environ[durable.FAULTS] = f"power:{what}:1"
                    act(kind, name)

            durable._point = point  # what all fault points pass; it does nothing where nothing is asked for
            run(self.config, out=self.folder, progress=Heard(self._beside(number)))
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)

    @staticmethod
    def _passed(at: str, wanted: Collection[str], hit: Path, record: Path | None) -> bool:
        """Note a fault point; whether the power is to be cut there."""
        if record is not None:
            with record.open("a") as out:
                out.write(f"{at}\n")
        if at in wanted:
            hit.write_text(at)
        return at in wanted

    def _wait(self, child: int, aim: Aim | None, before: int) -> int:
        """The exit code of the child, which is killed where the aim says."""
        if aim is not None:
            journal, size = self.folder / "journal.jsonl", -1
            while aim[0] != START:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
                now = journal.stat().st_size if journal.exists() else 0
                if now != size and aim[0] in self._begun(before):
                    break
                size = now
                time.sleep(POLL_S)
            time.sleep(aim[1])
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _count(self, number: int) -> tuple[int, int, str]:
        """Add what an attempt made; shards and steps that were lost since the last count, and which bound is broken."""
        whole, made, before = self.whole, self.account["made"], self.account["lost"]
        for stage, units in read_heard(self._beside(number)).items():
            made[stage] = made.get(stage, 0) + units
        self.account["attempts"] = number
        shards, steps, over = 0, 0, ""
        if whole is None:
            return shards, steps, over
        for stage in made:
            lost = made[stage] - self._kept(stage)
            more, before[stage] = lost - before.get(stage, 0), lost
            if stage in whole.shard_rows:
                shards += -(-more // whole.shard_rows[stage])
            else:
                steps += more
                over = over or self._too_many_steps(stage, more)
            if more < 0:
                over = f"{stage}: more lies on the disk than was made"
        return shards, steps, over

    def _kept(self, stage: str) -> int:
        """Completions or steps of a stage that are on the disk for good."""
        if self.is_finished(stage):
            return self.whole.units[stage] if self.whole is not None else 0
        folder = self.folder / stage
        numbers = [int(path.stem.split("-")[1]) for path in (folder / "shards").glob("shard-*.jsonl")]
        rows = sum(len(read_shard(folder / "shards", number) or ()) for number in numbers)
        return rows + max((int(path.name[5:]) for path in (folder / "checkpoint").glob("step-*")), default=0)

    def _too_many_steps(self, stage: str, lost: int) -> str:
        """A training loses the steps since its last checkpoint: all but the last of them within the interval."""
        rows = [row for row in read_steps(self.folder / stage / "train-log.jsonl") if row["step"] > self._kept(stage)]
        seconds = sum(row["seconds"] for row in rows[:-1])
        if lost > len(rows) or (lost and seconds >= self.config.training.checkpoint_every_s):
            return f"{stage}: {lost} steps were lost, {len(rows)} of {seconds:.3f} s lie behind the last checkpoint"
        return ""

    def _beside(self, number: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}.heard-{number}")
