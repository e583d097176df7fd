"""Runs that are killed again and again, each compared with one that nothing stopped. `make torture`.

    python -m tests.e2e.torture                        # every fault point of both recipes, then 500 random instants
    python -m tests.e2e.torture --short                # what CI does: one fault point of each kind, each kind of stage
    python -m tests.e2e.torture --instants 40 --each 0 --markdown torture.md

Started again, it goes on where it was stopped: FOLDER/state.json has every kill so far. A kill counts as survived once
its run was finished and had the digests of the unbroken one, left no temporary behind, and lost no more work than is
promised. stdout gets the tables. Exit code 1: something was not survived; what is left of that run stays in FOLDER.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.stagefolder import write_json
from tests.e2e.chain import REPORT, START, Aim, Attempt, Chain, Unbroken, fingerprint, unbroken

RECIPES = ("smoke", "smoke-t5")
SETTINGS = (
    "compute.device=cpu",
    "compute.precision=fp32",
    "evaluation.without_calculator_rows=8",
    "sampling.shard_questions=16",
    "training.checkpoint_every_s=0.01",
)
KINDS = (
    "data", "select", "sft", "pair", "dpo", "evaluate", "evaluate-without-calculator", "validate", "sample-for-pairs",
    "sample-for-labels",
)  # fmt: skip
BETWEEN, INSTANT = "between", "random instant"
ROUNDS = 4  # runs in which the fault points of a recipe are looked for: some depend on when a checkpoint is due
AGAIN = 0.25  # chance that a random instant lies in the first stage ahead, however many it had
UNEVEN = 2  # else in the first that has at most so many more than another
IN_A_RUN = 3  # kills at random instants in one stage of one run, at most: else a short one would never end
HEAVY = (
    "accelerate", "torch", "transformers.models.llama.modeling_llama", "transformers.models.t5.modeling_t5",
    "selftrain.report.write", "selftrain.runner", "selftrain.sharing",
)  # fmt: skip


class State:
    """What was done so far, in a file: the unbroken runs, every kill, every finished run, and the run at hand."""

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self.path = folder / "state.json"
        self.content: dict[str, Any] = {"asked": dict(asked), "unbroken": {}, "kills": [], "runs": [], "now": None}
        if self.path.exists():
            self.content = json.loads(self.path.read_text())
            if self.content["asked"] != dict(asked):
                raise SystemExit(f"{self.path} is of {self.content['asked']}; choose another --folder.")

    def save(self) -> None:
        write_json(self.path, self.content)

    def of(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.content[name]
        return found


class Torture:
    """The two recipes, under torture."""

    def __init__(self, folder: Path, settings: Sequence[str], seed: int) -> None:
        self.folder, self.settings, self.seed = folder, settings, seed
        self.state = State(folder, {"settings": list(settings), "seed": seed})
        self.whole = {recipe: self._unbroken(recipe) for recipe in RECIPES}

    def at_points(self, wanted: Mapping[str, Sequence[str]]) -> None:
        """Cut the power at each of these fault points, one after the other on one run of each recipe."""
        for recipe in RECIPES:
            rounds = sum((run["recipe"], run["way"]) == (recipe, "points") for run in self.state.of("runs"))
            for _ in range(rounds, ROUNDS):
                left = set(wanted[recipe]) - self.hit(recipe)
                if not left and not self._is_open(recipe, "points"):
                    break
                chain = self._chain(recipe, "points")
                while not self._one(chain, wanted=left).finished:
                    left -= self.hit(recipe)
                self._compare(chain)

    def at_instants(self, number: int, each: int) -> None:
        """Kill at random instants until there are so many, so many of them in every stage of both recipes."""
        while self._missing(number, each) or self._is_open(None, "instants"):
            now = self.state.content["now"]
            recipe = now["recipe"] if now else min(RECIPES, key=lambda name: sum(self._instants(name).values()))
            chain = self._chain(recipe, "instants")
            finished = False
            while not finished:
                aim = self._aim(chain) if self._missing(number, each) else None
                finished = self._one(chain, aim=aim).finished
            self._compare(chain)

    def hit(self, recipe: str) -> set[str]:
        """The fault points of a recipe at which it was killed."""
        return {kill["point"] for kill in self.state.of("kills") if kill["recipe"] == recipe and kill["point"]}

    def _unbroken(self, recipe: str) -> Unbroken:
        known = self.state.content["unbroken"]
        if recipe not in known:
            folder = self.folder / f"{recipe}-unbroken"
            shutil.rmtree(folder, ignore_errors=True)
            say(f"{recipe}: the unbroken run")
            known[recipe] = dataclasses.asdict(unbroken(recipe, self.settings, folder))
            self.state.save()
        return Unbroken(**known[recipe])

    def _is_open(self, recipe: str | None, way: str) -> bool:
        now = self.state.content["now"]
        return now is not None and now["way"] == way and recipe in (None, now["recipe"])

    def _chain(self, recipe: str, way: str) -> Chain:
        """The run at hand, or a new one."""
        if self.state.content["now"] is None:
            number = len(self.state.of("runs")) + 1
            self.state.content["now"] = {"recipe": recipe, "way": way, "number": number, "account": {}}
            self.state.save()
        now = self.state.content["now"]
        if (now["recipe"], now["way"]) != (recipe, way):
            raise SystemExit(f"{self.state.path}: a run of {now['recipe']} is to be finished first; ask for the same.")
        folder = self.folder / f"run-{now['number']}"
        return Chain(recipe, self.settings, folder, self.whole[recipe], now["account"])

    def _one(self, chain: Chain, **how: Any) -> Attempt:
        """An attempt, counted."""
        done = chain.attempt(**how)
        now = self.state.content["now"]
        if done.over or not (done.finished or (done.place == REPORT and not done.point)):  # not after the end
            kill = {"recipe": now["recipe"], "run": now["number"], **dataclasses.asdict(done)}
            self.state.of("kills").append(kill)
            say(f"{now['recipe']}, run {now['number']}: {done.point or done.place} ({done.seconds:.1f} s) {done.over}")
        self.state.save()
        return done

    def _compare(self, chain: Chain) -> None:
        """Whether a finished run is the unbroken one; then its folder goes."""
        now, whole = self.state.content["now"], self.whole[self.state.content["now"]["recipe"]]
        found = fingerprint(chain.folder)
        differing = sorted({name for name, _ in found.items() ^ whole.fingerprint.items()})
        left = [path.name for path in chain.folder.rglob("*.tmp")]
        names = ("recipe", "way", "number")
        run = {**{name: now[name] for name in names}, "differing": differing, "left": left}
        self.state.of("runs").append(run)
        say(f"{now['recipe']}, run {now['number']}: {'NOT ' if differing or left else ''}as the unbroken one")
        if not differing and not left:
            shutil.rmtree(chain.folder)
        for beside in self.folder.glob(f"run-{now['number']}.*"):
            beside.unlink()
        self.state.content["now"] = None
        self.state.save()

    def _instants(self, recipe: str, run: int | None = None) -> Counter[str]:
        """Kills at random instants by stage, in one run or all; those between stages under `START`."""
        kills = [k for k in self.state.of("kills") if k["recipe"] == recipe and not k["point"] and not k["finished"]]
        kills = [kill for kill in kills if run in (None, kill["run"])]
        return Counter(START if kind_of_stage(kill["place"]) == BETWEEN else kill["place"] for kill in kills)

    def _missing(self, number: int, each: int) -> bool:
        counts = {recipe: self._instants(recipe) for recipe in RECIPES}
        few = any(counts[recipe][place] < each for recipe in RECIPES for place in self.whole[recipe].seconds)
        return few or sum(sum(count.values()) for count in counts.values()) < number

    def _aim(self, chain: Chain) -> Aim | None:
        """A random instant in a stage that is still to come; None where all are finished."""
        now = self.state.content["now"]
        seconds, counts = self.whole[now["recipe"]].seconds, self._instants(now["recipe"])
        here = self._instants(now["recipe"], now["number"])
        ahead = [place for place in seconds if not chain.is_finished(place) and here[place] < IN_A_RUN]
        if not set(ahead) - {START}:
            return None
        chance = random.Random(f"{self.seed} {now['number']} {now['account']['attempts']}")
        first = next(place for place in ahead if place != START)
        even = min(counts[place] for place in ahead) + UNEVEN
        place = first if chance.random() < AGAIN else next(place for place in ahead if counts[place] <= even)
        return place, chance.uniform(0, seconds[place])


def kind_of_stage(place: str) -> str:
    """What sort of stage a place is in; "between" for none.

    >>> kind_of_stage("1-iteration/sampler/evaluate/made-up"), kind_of_stage("after data")
    ('evaluate', 'between')
    """
    if place == REPORT:
        return REPORT
    if place == START or place.startswith("after "):
        return BETWEEN
    return next(part for part in place.split("/") if part in KINDS)


def kind_of_point(point: str) -> str:
    """What a fault point does to which file; the files of a folder that is renamed whole are one kind.

    >>> kind_of_point("1-iteration/sft: fsync model/config.json"), kind_of_point("start: rename run.json")
    ('fsync model/*', 'rename run.json')
    """
    folder, inside, _ = point.partition(": ")[2].partition("/")
    return f"{folder}/*" if inside else folder


def spread(points: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """A fault point of each kind, and one at least in each kind of stage, over all recipes together."""
    chosen: dict[str, list[str]] = {recipe: [] for recipe in points}
    taken: Counter[str] = Counter()
    by_kind: dict[str, list[tuple[str, str]]] = {}
    by_stage: dict[str, list[tuple[str, str]]] = {}
    for recipe, names in points.items():
        for point in names:
            by_kind.setdefault(kind_of_point(point), []).append((recipe, point))
            by_stage.setdefault(kind_of_stage(point.partition(": ")[0]), []).append((recipe, point))

    def take(offered: Sequence[tuple[str, str]]) -> None:
        recipe, point = min(offered, key=lambda one: (taken[kind_of_stage(one[1].partition(": ")[0])], taken[one[0]]))
        chosen[recipe].append(point)
        taken.update((recipe, kind_of_stage(point.partition(": ")[0])))

    for kind in sorted(by_kind, key=lambda kind: len(by_kind[kind])):
        take(by_kind[kind])
    for stage, offered in by_stage.items():
        if not taken[stage]:
            take(offered)
    return chosen


def survived(content: Mapping[str, Any]) -> set[tuple[str, int]]:
    """The runs, by recipe and number, that ended as the unbroken one."""
    return {(run["recipe"], run["number"]) for run in content["runs"] if not run["differing"] and not run["left"]}


def tables(content: Mapping[str, Any]) -> str:
    """Both tables, as Markdown: by kind of fault, and by kind of stage."""
    kills = [kill for kill in content["kills"] if not kill["finished"]]
    good = survived(content)
    lines = [
        "| recipe | killed at | faults injected | survived | shards lost | steps lost | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kill in kills:
        what = kind_of_point(kill["point"]).partition(" ")[0] if kill["point"] else INSTANT
        groups.setdefault((kill["recipe"], what), []).append(kill)
    for (recipe, what), some in [*sorted(groups.items()), (("both", "all"), kills)]:
        fine = sum((kill["recipe"], kill["run"]) in good and not kill["over"] for kill in some)
        lost = [sum(kill[name] for kill in some) for name in ("lost_shards", "lost_steps")]
        seconds = sum(kill["seconds"] for kill in some)
        lines.append(f"| {recipe} | {what} | {len(some)} | {fine} | {lost[0]} | {lost[1]} | {seconds:.0f} |")
    lines += ["", "| kind of stage | killed at a fault point | at a random instant |", "|---|---|---|"]
    for kind in (*KINDS, BETWEEN, REPORT):
        here = [kill for kill in kills if kind_of_stage(kill["place"]) == kind]
        at_points = sum(bool(kill["point"]) for kill in here)
        lines.append(f"| {kind} | {at_points} | {len(here) - at_points} |")
    return "\n".join(lines)


def failures(torture: Torture, wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """What was not survived, lost too much or was not reached, in words."""
    content = torture.state.content
    good = survived(content)
    found = [
        f"{run['recipe']}, run {run['number']}: other than the unbroken run: {run['differing']}, left: {run['left']}"
        for run in content["runs"] if (run["recipe"], run["number"]) not in good
    ]  # fmt: skip
    broken = [kill for kill in content["kills"] if kill["over"]]
    found += [f"{kill['recipe']}, {kill['point'] or kill['place']}: {kill['over']}" for kill in broken]
    for recipe in RECIPES:
        found += [f"{recipe}: {point} was not reached" for point in wanted[recipe] if point not in torture.hit(recipe)]
    return found


def page(content: Mapping[str, Any]) -> str:
    """A page of results."""
    number = sum(not kill["finished"] for kill in content["kills"])
    names = " and ".join(RECIPES)
    return (
        f"# Torture\n\n{number} kills of {names}, chained: each run is killed, started again and killed "
        "again until it is finished, then compared with an unbroken one "
        f"({' '.join(content['asked']['settings'])}). At a fault point (fsync, rename, link, removal) the power is "
        "cut: what is not on the disk yet is emptied. At a random instant it is SIGKILL. Survived: samples, pairs, "
        "examples and weights as in the unbroken run, no temporary left, and no more lost than "
        f"[promised](../concepts/durability.md).\n\n    make torture\n\n{tables(content)}\n"
    )


def say(message: str) -> None:
    """To stderr, at once."""
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/torture"), help="default: %(default)s")
    parser.add_argument("--short", action="store_true", help="a fault point of each kind; no random instants")
    parser.add_argument("--instants", type=int, default=500, help="random instants; default: %(default)s")
    parser.add_argument("--each", type=int, default=5, help="of them in every stage, at least; default: %(default)s")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--markdown", type=Path, help="write the page of results there")
    asked = parser.parse_args()
    for name in HEAVY:
        importlib.import_module(name)
    settings = [*SETTINGS, f"baselines=[{'' if asked.short else 'st'}]"]
    torture = Torture(asked.folder, settings, asked.seed)
    wanted: dict[str, list[str]] = {recipe: whole.points for recipe, whole in torture.whole.items()}
    if asked.short:
        wanted = spread(wanted)
    torture.at_points(wanted)
    if not asked.short:
        torture.at_instants(asked.instants, asked.each)
    print(tables(torture.state.content))
    if asked.markdown:
        asked.markdown.write_text(page(torture.state.content), encoding="utf-8")
    found = failures(torture, wanted)
    for line in found:
        say(line)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
