"""The loop's decisions, on a runner whose stages only write down that they were called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from selftrain.loop import self_train
from selftrain.modelstore import ModelRef
from selftrain.recipe import load_config
from selftrain.rundir import RunDir, StageResult
from selftrain.runner import Arm, Runner, arms_of


class Bench:
    """Stands for the workbench: every stage succeeds at once."""

    def __init__(self, pairs: int = 3, guard: str = "", accuracies: Sequence[float] = ()) -> None:
        self.calls: list[str] = []
        self.base = ModelRef("base", Path("base"), "f0")
        self.own_warmup: ModelRef | None = None
        self.brought: dict[str, list[StageResult]] = {}
        self.num_pairs, self.guard, self.accuracies = pairs, guard, list(accuracies)

    def result(self, name: str, **figures: Any) -> StageResult:
        self.calls.append(name)
        return StageResult(name, Path(name), name, figures, 0.0, skipped=False)

    def select(self, pool: Sequence[StageResult], at: str) -> StageResult:
        return self.result(f"{at}/select<{','.join(r.name for r in pool)}>")

    def sft(self, start: ModelRef, examples: StageResult, at: str, num_steps: int | None = None) -> ModelRef:
        self.calls.append(f"{at}/sft from {start.digest}" + (f" for {num_steps}" if num_steps else ""))
        return ModelRef(f"{at}/sft", Path(at), f"f'{at}", steps=7)

    def sample(self, model: ModelRef, draws: range, iteration: int, name: str) -> StageResult:
        further = f" from {draws.start}" if draws.start else ""
        return self.result(f"{name} {len(draws)}{further} by {model.digest}")

    def brought_for(self, use: str) -> list[StageResult]:
        return self.brought.get(use, [])

    def pair(self, pool: Sequence[StageResult], at: str) -> StageResult:
        return self.result(f"{at}/pair of {len(pool)}", pairs=self.num_pairs)

    def dpo(self, model: ModelRef, pairs: StageResult, at: str) -> tuple[ModelRef, str]:
        self.calls.append(f"{at}/dpo from {model.digest}")
        return ModelRef(f"{at}/dpo", Path(at), f"fd{at}"), self.guard

    def evaluate(self, model: ModelRef, at: str) -> None:
        self.calls.append(f"evaluate {model.digest} at {at}")

    def validation_accuracy(self, model: ModelRef, at: str) -> float:
        return self.accuracies.pop(0)

    def validation_drop(self, model: ModelRef, sampler: ModelRef, at: str) -> str:
        return ""

    def warn_of_samples(self, at: str) -> None:
        self.calls.append(f"samples of {at}")


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def runner(tmp_path: Path, bench: Bench, *overrides: str) -> Runner:
    config = load_config("smoke", overrides)
    with RunDir.open(tmp_path / "run", config) as rundir:
        made = Runner(config, rundir, Heard())  # type: ignore[arg-type]
    made.bench = bench  # type: ignore[assignment]
    return made


MAIN = Arm("main", "dpo-st")
NO_VALIDATION = "data.validation=null"


def test_dpo_st_is_algorithm_2(tmp_path: Path) -> None:
    bench = Bench()
    model = self_train(runner(tmp_path, bench, "schedule.iterations=2", NO_VALIDATION), MAIN)
    one = "1-iteration"
    assert bench.calls[:12] == [
        "evaluate f0 at 0-base",
        "0-warmup/select<>",
        "0-warmup/sft from f0",
        "evaluate f'0-warmup at 0-warmup",
        f"{one}/sample-for-pairs 4 by f'0-warmup",
        f"{one}/pair of 1",
        f"{one}/dpo from f'0-warmup",
        f"evaluate fd{one} at {one}/sampler",
        f"{one}/sample-for-labels 4 by fd{one}",
        f"{one}/select<{one}/sample-for-labels 4 by fd{one}>",
        f"samples of {one}",
        f"{one}/sft from f0",
    ]
    assert f"2-iteration/dpo from f'{one}" in bench.calls, "the reference is this iteration's SFT model"
    assert "2-iteration/pair of 2" in bench.calls, "samples pool over iterations"
    assert "2-iteration/sft from f0" in bench.calls, "always from the base, never continued"
    assert model.stage == "2-iteration/sft"


def test_an_own_warm_up_model_stands_for_the_warm_ups_sft(tmp_path: Path) -> None:
    bench = Bench()
    bench.own_warmup = ModelRef("0-warmup/own", Path("mine"), "own")
    self_train(runner(tmp_path, bench, NO_VALIDATION), MAIN)
    assert "0-warmup/sft from f0" not in bench.calls
    assert "evaluate own at 0-warmup" in bench.calls and "1-iteration/sample-for-pairs 4 by own" in bench.calls
    assert "1-iteration/dpo from own" in bench.calls and "1-iteration/sft from f0" in bench.calls


def test_samples_made_elsewhere_join_every_pool_that_asks_for_them(tmp_path: Path) -> None:
    bench = Bench()
    bench.brought = {"labels": [StageResult("samples", Path("samples"), "s", {}, 0.0, skipped=False)]}
    work = runner(tmp_path, bench, NO_VALIDATION, "schedule.iterations=2", "labels.pool=current")
    self_train(work, MAIN)
    sampled = "2-iteration/sample-for-labels 4 by fd2-iteration"
    assert f"2-iteration/select<samples,{sampled}>" in bench.calls
    assert "1-iteration/pair of 1" in bench.calls and "0-warmup/select<>" in bench.calls


def test_samples_for_pairs_may_become_labels_too(tmp_path: Path) -> None:
    """Those for labels are further draws then, and both kinds pool over iterations; ST has no samples for pairs."""
    reuse, one, two = "labels.reuse_samples_for_pairs=true", "1-iteration", "2-iteration"
    pairs, labels = ("{0}/sample-for-pairs 4 by f'{1}", "{0}/sample-for-labels 4 from 4 by fd{0}")
    bench = Bench()
    self_train(runner(tmp_path, bench, NO_VALIDATION, reuse, "schedule.iterations=2"), MAIN)
    drawn = [labels.format(one), labels.format(two), pairs.format(one, "0-warmup"), pairs.format(two, one)]
    assert f"{two}/select<{','.join(drawn)}>" in bench.calls
    current = Bench()
    work = runner(tmp_path / "current", current, NO_VALIDATION, reuse, "schedule.iterations=2", "labels.pool=current")
    self_train(work, MAIN)
    assert f"{two}/select<{drawn[1]},{drawn[3]}>" in current.calls
    for arm, number in ((Arm("st", "st"), 4), (Arm("st-matched", "st", matched=True), 8)):
        self_train(work, arm)
        assert f"{arm.prefix}{one}/sample-for-labels {number} by f'0-warmup" in current.calls


def test_st_samples_from_the_sft_model(tmp_path: Path) -> None:
    bench = Bench()
    self_train(runner(tmp_path, bench, NO_VALIDATION), Arm("main", "st"))
    assert "1-iteration/sample-for-labels 4 by f'0-warmup" in bench.calls
    assert not any("dpo" in call or "pair" in call for call in bench.calls)


def test_matched_st_gets_both_budgets_and_matched_sft_the_steps(tmp_path: Path) -> None:
    bench = Bench()
    work = runner(tmp_path, bench, NO_VALIDATION)
    work._main = self_train(work, MAIN)
    self_train(work, Arm("st-matched", "st", matched=True))
    assert "baseline-st-matched/1-iteration/sample-for-labels 8 by f'0-warmup" in bench.calls
    self_train(work, Arm("sft-matched", "sft", matched=True))
    assert "baseline-sft-matched/sft-matched/sft from f0 for 7" in bench.calls


@pytest.mark.parametrize(("bench", "said"), [(Bench(pairs=0), "No pair"), (Bench(guard="lost 0.4"), "DPO collapsed")])
def test_without_a_usable_dpo_model_the_iteration_degrades_to_st(tmp_path: Path, bench: Bench, said: str) -> None:
    work = runner(tmp_path, bench, NO_VALIDATION)
    self_train(work, MAIN)
    assert "1-iteration/sample-for-labels 4 by f'0-warmup" in bench.calls
    assert said in work.progress.lines[0]  # type: ignore[attr-defined]


def test_the_guard_can_be_turned_off(tmp_path: Path) -> None:
    bench = Bench(guard="lost 0.4")
    self_train(runner(tmp_path, bench, NO_VALIDATION, "guard.enabled=false"), MAIN)
    assert "1-iteration/sample-for-labels 4 by fd1-iteration" in bench.calls


def test_patience_stops_and_delivers_the_best(tmp_path: Path) -> None:
    bench = Bench(accuracies=[0.3, 0.5, 0.4, 0.4])
    work = runner(tmp_path, bench, "schedule.iterations=9", "schedule.patience=2")
    model = self_train(work, MAIN)
    assert model.stage == "2-iteration/sft"
    assert "4-iteration/sft from f0" in bench.calls and not any("5-iteration" in call for call in bench.calls)


def test_arms_come_after_the_main_one() -> None:
    config = load_config("smoke", ["baselines=[st, sft-matched]"])
    assert [arm.name for arm in arms_of(config)] == ["main", "st", "sft-matched"]
