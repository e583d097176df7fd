"""What torture.py counts and remembers, with runs that are made up: no process is killed here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain.records import Completion
from selftrain.sampling.units import write_shard
from tests.e2e import torture
from tests.e2e.chain import REPORT, START, Aim, Attempt, Chain, Unbroken, read_heard

STAGES = ["data", "0-warmup/sft", "1-iteration/pair"]
POINTS = [f"{stage}: {what} manifest.json" for stage in STAGES for what in ("fsync", "rename")]
WHOLE = Unbroken({"samples": "good"}, POINTS, {"data": 8}, {"data": 4}, {START: 0.5, **dict.fromkeys(STAGES, 1.0)})


class MadeUp:
    """A chain whose attempts die where they are asked to, in order; every fourth aim meets the run's end instead."""

    result = WHOLE.fingerprint
    stop_after: int | None = None  # then whoever counts is interrupted

    def __init__(self, recipe: str, settings: Any, folder: Path, whole: Unbroken, account: dict[str, Any]) -> None:
        self.folder, self.account = folder, account
        account.setdefault("attempts", 0)
        folder.mkdir(parents=True, exist_ok=True)

    def attempt(self, *, wanted: set[str] | None = None, aim: Aim | None = None) -> Attempt:
        if MadeUp.stop_after is not None:
            MadeUp.stop_after -= 1
            if MadeUp.stop_after < 0:
                raise KeyboardInterrupt
        self.account["attempts"] += 1
        point = next((point for point in POINTS if point in (wanted or ())), "")
        if point:
            return Attempt(False, point.partition(":")[0], point, 1, 2, 0.1, "")
        if aim is None:
            return Attempt(True, REPORT, "", 0, 0, 0.1, "")
        place = REPORT if self.account["attempts"] % 4 == 0 else aim[0]
        if place in STAGES:
            (self.folder / place.replace("/", "-")).touch()
        return Attempt(False, place, "", 0, 0, aim[1], "")

    def is_finished(self, place: str) -> bool:
        return (self.folder / place.replace("/", "-")).exists()


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are made up; gives the recipes whose unbroken run was carried out."""
    carried_out: list[str] = []
    monkeypatch.setattr(torture, "Chain", MadeUp)
    monkeypatch.setattr(torture, "unbroken", lambda recipe, *_: carried_out.append(recipe) or WHOLE)
    monkeypatch.setattr(torture, "fingerprint", lambda folder: MadeUp.result)
    monkeypatch.setattr(MadeUp, "stop_after", None)
    return carried_out


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[], torture.Torture]:
    """As a start of `make torture` would, in the same folder."""
    return lambda: torture.Torture(tmp_path, ["seed=1"], 7)


def kills(begun: torture.Torture) -> list[dict[str, Any]]:
    return begun.state.of("kills")


def test_every_fault_point_once_in_each_recipe(begin: Callable[[], torture.Torture]) -> None:
    begun = begin()
    wanted = dict.fromkeys(torture.RECIPES, POINTS)
    begun.at_points(wanted)
    for recipe in torture.RECIPES:
        assert [kill["point"] for kill in kills(begun) if kill["recipe"] == recipe] == POINTS
    assert torture.failures(begun, wanted) == []
    assert not list(begun.folder.glob("run-*")), "what was survived is removed"
    table = torture.tables(begun.state.content)
    assert "| smoke | fsync | 3 | 3 | 3 | 6 | 0 |" in table and "| both | all | 12 | 12 | 12 | 24 | 1 |" in table


def test_stopped_at_any_moment_it_goes_on_and_counts_nothing_twice(
    begin: Callable[[], torture.Torture], made_up: list[str]
) -> None:
    wanted = dict.fromkeys(torture.RECIPES, POINTS)
    stops = 0
    for _ in range(50):
        MadeUp.stop_after = 1
        try:
            begin().at_points(wanted)
        except KeyboardInterrupt:
            stops += 1
            continue
        break
    assert stops > 5 and made_up == list(torture.RECIPES), "the unbroken runs are carried out once"
    content = json.loads((begin().folder / "state.json").read_text())
    assert Counter(kill["point"] for kill in content["kills"]) == dict.fromkeys(POINTS, 2)
    assert [run["number"] for run in content["runs"]] == [1, 2] and content["now"] is None


def test_a_run_at_hand_is_finished_first(begin: Callable[[], torture.Torture], tmp_path: Path) -> None:
    MadeUp.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        begin().at_points(dict.fromkeys(torture.RECIPES, POINTS))
    MadeUp.stop_after = None
    with pytest.raises(SystemExit, match="a run of smoke is to be finished first"):
        begin()._chain("smoke-t5", "points")
    with pytest.raises(SystemExit, match="choose another --folder"):
        torture.Torture(tmp_path, ["seed=2"], 7)


def test_random_instants_fall_into_every_stage_and_those_after_the_end_do_not_count(
    begin: Callable[[], torture.Torture],
) -> None:
    begun = begin()
    begun.at_instants(40, 5)
    counted = kills(begun)
    assert len(counted) >= 40 and all(kill["place"] != REPORT and not kill["finished"] for kill in counted)
    for recipe in torture.RECIPES:
        places = Counter(kill["place"] for kill in counted if kill["recipe"] == recipe)
        assert places.keys() == WHOLE.seconds.keys() and min(places.values()) >= 5
    assert begun.state.content["now"] is None, "the last run is finished and compared"
    here = Counter((kill["run"], kill["place"]) for kill in counted)
    assert max(here.values()) <= torture.IN_A_RUN


def test_another_result_a_file_left_and_work_lost_beyond_the_bound_are_failures(
    begin: Callable[[], torture.Torture], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: dict[str, list[str]] = {"smoke": POINTS[:1], "smoke-t5": []}
    monkeypatch.setattr(MadeUp, "result", {"samples": "bad"})
    begun = begin()
    begun.at_points(wanted)
    assert torture.survived(begun.state.content) == set() and (begun.folder / "run-1").is_dir(), "kept to be looked at"
    monkeypatch.setattr(MadeUp, "result", WHOLE.fingerprint)
    (begun.folder / "run-2").mkdir()
    (begun.folder / "run-2/.a.1.tmp").touch()
    begun.at_points({"smoke": POINTS[:2], "smoke-t5": []})
    begun.state.of("kills")[0]["over"] = "5 steps were lost"
    found = torture.failures(begun, {"smoke": POINTS[:3], "smoke-t5": []})
    assert found == [
        "smoke, run 1: other than the unbroken run: ['samples'], left: []",
        "smoke, run 2: other than the unbroken run: [], left: ['.a.1.tmp']",
        f"smoke, {POINTS[0]}: 5 steps were lost",
        f"smoke: {POINTS[2]} was not reached",
    ]


def test_the_short_way_takes_every_kind_of_point_and_of_stage() -> None:
    points = {
        "smoke": ["start: rename run.json", "1-iteration/sft: fsync model/a", "1-iteration/sft: fsync model/b"],
        "smoke-t5": ["start: rename run.json", "data: fsync data.jsonl", "1-iteration/pair: fsync data.jsonl"],
    }
    chosen = torture.spread(points)
    taken = [point for some in chosen.values() for point in some]
    assert {torture.kind_of_point(point) for point in taken} == {"rename run.json", "fsync model/*", "fsync data.jsonl"}
    stages = {torture.kind_of_stage(point.partition(":")[0]) for point in taken}
    assert stages == {torture.BETWEEN, "sft", "data", "pair"}


def test_lost_work_is_what_was_made_without_what_lies_there(tmp_path: Path) -> None:
    """Two shards of four completions were made whole and a third in part, and six steps, four of them since step 2."""
    stage, training, folder = "0-base/evaluate/made-up", "0-warmup/sft", tmp_path / "run"
    whole = Unbroken({}, [], {stage: 40, training: 9}, {stage: 4}, {})
    chain = Chain("smoke", ["training.checkpoint_every_s=10"], folder, whole, {})
    for number in range(2):
        rows = [Completion(str(k), 0, (1,), "text", "eos") for k in range(4)]
        write_shard(folder / stage / "shards", number, rows)
    (folder / training / "checkpoint/step-00000002").mkdir(parents=True)
    log = [{"step": step, "seconds": 3.0} for step in range(1, 7)]
    (folder / training / "train-log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log))
    heard = tmp_path / "run.heard-1"
    heard.write_text(f"{stage}\tcompletions\n" + "+\n" * 10 + f"{training}\tsteps\n" + "+\n" * 6)
    assert read_heard(heard) == {stage: 10, training: 6}
    assert chain._count(1) == (1, 4, ""), "three of four steps lie within the ten seconds"
    (tmp_path / "run.heard-2").write_text("")
    assert chain._count(2) == (0, 0, ""), "what was counted once is not lost again"
    log = [{"step": step, "seconds": 4.0} for step in range(1, 7)]
    (folder / training / "train-log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log))
    chain = Chain("smoke", ["training.checkpoint_every_s=10"], folder, whole, {"attempts": 2})
    shards, steps, over = chain._count(1)
    assert (shards, steps) == (
        1,
        4,
    ) and over == f"{training}: 4 steps were lost, 4 of 12.000 s lie behind the last checkpoint"


def test_where_an_attempt_was_is_read_from_its_own_events(tmp_path: Path) -> None:
    chain = Chain("smoke", [], tmp_path / "run", None, {})
    assert chain.place(0) == START
    (tmp_path / "run/data").mkdir(parents=True)
    told = [("start", ""), ("stage-start", "data"), ("stage-end", "data"), ("stage-start", "0-warmup/sft"), ("end", "")]
    events = [json.dumps({"event": event, "stage": stage}) for event, stage in told]
    journal = tmp_path / "run/journal.jsonl"
    places = []
    for number in range(1, 6):
        journal.write_text("\n".join(events[:number]) + '\n{"torn')
        if number == 3:
            (tmp_path / "run/data/manifest.json").touch()
        places.append(chain.place(0))
    assert places == ["after start", "data", "after data", "0-warmup/sft", "0-warmup/sft"]
    journal.write_text("\n".join([*events[:3], events[4]]))
    assert chain.place(0) == REPORT and chain.place(3) == REPORT
