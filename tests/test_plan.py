"""A plan against figures worked out by hand, and against a run of `smoke` that was carried out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from selftrain.api import run as run_recipe
from selftrain.cli import app
from selftrain.config import LabelsConfig, PairsConfig, RunConfig
from selftrain.errors import ConfigError, RunError
from selftrain.plan import make_plan, plan_command, plan_text
from selftrain.plan.counts import SetCount, SetCounts
from selftrain.plan.estimate import Estimator
from selftrain.plan.guesses import HIGH, LIKELY, LOW, Guess, Pairs, num_labels, num_pairs, one_sided
from selftrain.plan.speed import LEAST_PARAMETERS, SHARES, Range, Speed, probed, shares_of_run, speed_of_run
from selftrain.plan.work import Work, done_work
from selftrain.recipe import load_config
from selftrain.report.files import RunFiles

N = 96_320  # parameters of random-llama


def by_hand(*overrides: str) -> RunConfig:
    """Three questions in U, two of them with gold rationales (6 and 8 tokens); 12 new tokens; K 4 and 4."""
    settings = ["sampling.max_new_tokens=12", "training.sft.batch_size=2", "training.sft.epochs=3"]
    return load_config("smoke", [*settings, "training.dpo.batch_size=2", *overrides])


SETS = SetCounts(
    train=SetCount((10, 20), (6, 8), (11, 21)),
    unlabelled=SetCount((30,), (0,), (31,)),
    validation=SetCount((5,), (4,), (5,)),
    tests={"made-up": SetCount((5, 7), (4, 4), (9, 11))},
    seconds=0.1,
)


def work_of(stage: str, guess: Guess = LIKELY, *overrides: str, sets: SetCounts = SETS) -> Work:
    return Estimator(by_hand(*overrides), sets, guess).work(stage)


def tokens(stage: str, guess: Guess = LIKELY, *overrides: str) -> tuple[int, int, int, int]:
    found = work_of(stage, guess, *overrides)
    return found.prompt_tokens, found.sampled_tokens, found.trained_tokens, found.forwarded_tokens


def test_sampling_by_hand() -> None:
    assert work_of("1-iteration/sample-for-pairs").samples == 3 * 4
    assert tokens("1-iteration/sample-for-pairs") == (60, 12 * 7, 0, 0)  # mean gold rationale: 7
    assert tokens("1-iteration/sample-for-pairs", HIGH) == (60, 12 * 12, 0, 0)  # twice that is over the limit
    assert tokens("0-base/evaluate/made-up") == (9 + 11, 2 * 12, 0, 0)  # asked its own way, up to the limit
    assert tokens("0-warmup/evaluate/made-up") == (5 + 7, 2 * 4, 0, 0)  # the set's own rationales
    assert tokens("1-iteration/start/validate") == (5, 4, 0, 0)
    without = "final/evaluate-without-calculator/made-up"
    assert tokens(without, LIKELY, "evaluation.without_calculator_rows=1") == (5, 4, 0, 0)
    matched = work_of("baseline-st-matched/1-iteration/sample-for-labels")
    assert matched.samples == 3 * (4 + 4)


def test_training_by_hand() -> None:
    warm_up = work_of("0-warmup/sft")
    assert (warm_up.rows, warm_up.steps, warm_up.trained_tokens) == (2, 3, 3 * (10 + 20 + 6 + 8))
    assert one_sided(4) == 70 / 256
    last = work_of("1-iteration/sft")  # (1 - 70/256) * (1 + 2/2) = 1.45: one label of 20 + 7 tokens
    assert (last.rows, last.steps, last.trained_tokens) == (3, 5, 3 * (44 + 27))
    assert work_of("1-iteration/sft", LOW).trained_tokens == warm_up.trained_tokens
    assert work_of("1-iteration/sft", HIGH).rows == 2 + 3 * 4
    both = work_of("1-iteration/select", HIGH, "labels.reuse_samples_for_pairs=true", "labels.cap_percentile=100")
    assert both.rows == 2 + 3 * (4 + 4), "samples for pairs are a chance of a label too"
    assert work_of("1-iteration/dpo").steps == 1  # (1 - 2 * 70/256) * 3 = 1.36: one pair
    assert tokens("1-iteration/dpo") == (0, 0, 20 + 2 * 7, 2 * (20 + 2 * 7))
    assert tokens("1-iteration/dpo", LIKELY, "training.layout=rows") == (0, 0, 54, 108)
    assert tokens("1-iteration/dpo", LOW) == (0, 0, 0, 0)
    matched = work_of("baseline-sft-matched/sft-matched/sft")
    assert (matched.steps, matched.rows, matched.trained_tokens) == (5, 2, 5 * 2 * 22)
    assert warm_up.flops(10) == 6 * 10 * 132


def test_targets_over_the_limit_are_not_trained_on() -> None:
    found = work_of("0-warmup/sft", LIKELY, "training.max_target_tokens=7")
    assert (found.rows, found.trained_tokens) == (1, 3 * 16)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("steps", [2, 20, 150])
@pytest.mark.parametrize("each", [1, 3])
def test_low_is_never_above_likely_nor_likely_above_high(number: int, steps: int, each: int) -> None:
    rows = SetCount((50,) * 64, (75,) * 64, (60,) * 64)
    sets = SetCounts(rows, SetCount((50,) * 128, (0,) * 128, (60,) * 128), SETS.validation, {"made-up": rows}, 0.1)
    config = load_config("smoke", [
        f"sampling.samples_for_pairs={number}", f"sampling.samples_for_labels={number}", f"pairs.per_question={each}",
        f"training.dpo.max_steps={steps}", "training.dpo.batch_size=4", "schedule.iterations=3",
        "sampling.max_new_tokens=100", "baselines=[st, st-matched, sft-matched]",
    ])  # fmt: skip
    for low, likely, high in zip(
        *(Estimator(config, sets, guess).works() for guess in (LOW, LIKELY, HIGH)), strict=True
    ):
        assert low.rows <= likely.rows <= high.rows, likely.stage
        assert low.steps <= likely.steps <= high.steps, likely.stage
        assert low.flops(1) <= likely.flops(1) <= high.flops(1), likely.stage


def test_labels_and_pairs_within_what_can_be() -> None:
    labels, pairs = LabelsConfig(), PairsConfig(per_question=3)
    assert num_labels(LOW, labels, 3, 10, 10) == 0
    assert num_labels(HIGH, labels, 3, 10, 10) == 10 * 3 + 10 * 3  # the cap is 4, gold included
    assert num_labels(HIGH, labels, 3, 1, 99) == 2 + 99 * 3  # nearly all counts are 3, so that is the cap
    assert num_pairs(LIKELY, pairs, 3, 0, 128) == Pairs(48, 1, 2)
    assert num_pairs(HIGH, pairs, 2, 0, 5) == Pairs(5, 1, 2)  # one right, one wrong
    assert num_pairs(HIGH, pairs, 4, 2, 1) == Pairs(3, 3, 5)
    assert num_pairs(LIKELY, pairs, 1, 4, 4).all == 2  # gold against a wrong one
    assert num_pairs(HIGH, PairsConfig(gold_winner="never"), 1, 4, 4).all == 0


def test_shares_give_seconds_only_where_they_were_measured() -> None:
    parameters, flops = LEAST_PARAMETERS, 4e11
    for (device, precision), shares in SHARES.items():
        speed = probed(device, precision, parameters, flops)
        assert speed.rates["training"].likely == shares["training"].likely * flops
        for share in shares.values():
            assert 0 < share.low <= share.likely <= share.high
    for device, precision in (("cuda", "fp32"), ("mps", "fp32")):
        assert probed(device, precision, parameters, flops) == Speed(
            {}, f"no time: not measured on {device} in {precision}; a run that was begun gives it"
        )
    assert not probed("cpu", "bf16", LEAST_PARAMETERS - 1, flops).rates
    assert not probed("cpu", "bf16", None, flops).rates


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "smoke"
    run_recipe("smoke", ["baselines=[st]"], out=folder)
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan") / "begun"
    run_recipe("smoke", out=folder, until="1-iteration/pair")
    return folder


def test_bounds_hold_what_the_run_did(finished: Path) -> None:
    run = RunFiles(finished)
    plan = make_plan(run.config, run, measure=False, fresh=True)
    assert [stage.name for stage in plan.stages if run.is_done(stage.name)] != []
    for stage in plan.stages:
        if run.is_done(stage.name):
            was = done_work(run, stage.name)
            assert stage.low.tokens <= was.tokens <= stage.high.tokens, stage.name
            assert stage.low.rows <= was.rows <= stage.high.rows, stage.name
            assert stage.low.steps <= was.steps <= stage.high.steps, stage.name
    exact = next(stage for stage in plan.stages if stage.name == "0-warmup/sft")
    assert exact.likely.trained_tokens == run.figures("0-warmup/sft")["trained_tokens"]
    assert exact.likely.steps == run.figures("0-warmup/sft")["steps"]
    assert plan.parameters == run.figures("0-warmup/sft")["parameters"] == N


def test_disk_at_its_most_holds_every_model(finished: Path) -> None:
    needs = make_plan(RunFiles(finished).config, measure=False).needs
    weights = (finished / "model" / "model.safetensors").stat().st_size
    assert needs.a_model == pytest.approx(weights, rel=0.02)
    assert needs.disk is not None and needs.disk_after is not None
    assert needs.disk - needs.disk_after == (4 - 1) * needs.a_model + 12 * N  # warm-up, DPO, iteration, baseline


def test_a_finished_run_is_compared(finished: Path) -> None:
    printed = CliRunner().invoke(app, ["plan", "--out", str(finished)])
    assert printed.exit_code == 0, printed.output
    rows = {line.split("  ")[0]: line.split() for line in printed.output.splitlines()}
    trained = f"{RunFiles(finished).figures('0-warmup/sft')['trained_tokens']:,}"
    assert rows["0-warmup/sft"][1:5] == [trained, trained, "1.00", "exact"]
    assert "all dpo" in rows and "in all" in rows


def test_memory_and_disk_are_compared_too(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    peaks, needs = RunFiles(folder).events("peak"), make_plan(RunFiles(folder).config, measure=False).needs
    assert {"0-warmup/sft", "1-iteration/sample-for-pairs", "0-base/evaluate/made-up"} <= {p["stage"] for p in peaks}
    assert all(10**7 < peak["before"]["host"] <= peak["memory"]["host"] and peak["disk"] > 0 for peak in peaks)
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "peak":
            training = line["stage"].endswith(("/sft", "/dpo"))
            line |= {"memory": {"host": 3 * 10**9 if training else 2 * 10**9}, "before": {"host": 10**9}, "disk": 10**8}
    for kind, gone in (("host", 1), ("gpu", 0)):
        if kind == "gpu":
            lines = [{**one, "memory": {"gpu": one["memory"]["host"]}, "before": {}} if "memory" in one else one
                     for one in lines]  # fmt: skip
        (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = {line.split("  ")[0]: line.split() for line in plan_command(None, out=folder).splitlines()}
        assert needs.training is not None and needs.disk is not None
        ratio = [] if gone else [f"{3e9 / needs.training:.2f}"]  # less is planned than was held before
        assert rows["memory, training"][4:] == [f"{3 - gone}.0", "GB", *ratio]
        assert rows["memory, sampling"][4:6] == [f"{2 - gone}.0", "GB"]
        assert any(line.startswith("no ratio where less was planned") for line in rows) is (kind == "host")
        assert rows["disk"][-3:] == ["0.1", "GB", f"{10**8 / needs.disk:.2f}"]
        assert "disk, run done" in rows
    kept = [line for line in lines if line["event"] != "peak"]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert "the version that made this run wrote none down" in plan_command(None, out=folder)


def test_an_unfinished_run_counts_as_it_is(begun: Path) -> None:
    run = RunFiles(begun)
    stages = {stage.name: stage for stage in make_plan(run.config, run, measure=False).stages}
    done = stages["1-iteration/sample-for-pairs"]
    assert done.is_done and done.low == done.likely == done.high
    assert done.likely.sampled_tokens == run.figures(done.name)["generated_tokens"]
    assert done.seconds is not None and done.seconds.likely == run.manifests[done.name]["seconds"]
    dpo = stages["1-iteration/dpo"]
    assert not dpo.is_done and dpo.low.rows == run.figures("1-iteration/pair")["pairs"]
    assert dpo.seconds is not None and 0 < dpo.seconds.low <= dpo.seconds.high  # the run's own speed
    labels = stages["1-iteration/sample-for-labels"].likely
    assert labels.sampled_tokens == pytest.approx(done.likely.sampled_tokens, rel=0.02)  # K is the same
    text = plan_text(make_plan(run.config, run, measure=False))
    assert "done" in text and "finished stages are as they were" in text


def test_pairs_that_are_there_are_trained_on(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(finished, folder)
    (folder / "1-iteration" / "dpo" / "manifest.json").unlink()
    run, was = RunFiles(folder), RunFiles(finished).figures("1-iteration/dpo")
    dpo = next(stage for stage in make_plan(run.config, run, measure=False).stages if stage.name == "1-iteration/dpo")
    assert not dpo.is_done and dpo.low == dpo.likely == dpo.high
    assert (dpo.likely.rows, dpo.likely.steps) == (
        RunFiles(finished).figures("1-iteration/pair")["pairs"],
        was["steps"],
    )
    assert dpo.likely.trained_tokens == pytest.approx(was["trained_tokens"], rel=0.05)
    assert dpo.likely.forwarded_tokens == pytest.approx(was["forward_tokens"], rel=0.05)


def test_shares_are_flops_over_seconds_over_products(begun: Path, tmp_path: Path) -> None:
    run = RunFiles(begun)
    found = shares_of_run(run, N)
    peak = next(event["flops"] for event in run.events("speed") if event["stage"] == "0-warmup/sft")
    figures, seconds = run.figures("0-warmup/sft"), run.manifests["0-warmup/sft"]["seconds"]
    assert found["training"].likely == pytest.approx(6 * N * figures["trained_tokens"] / seconds / peak)
    assert 0 < found["sampling"].low <= found["sampling"].likely <= found["sampling"].high
    own = speed_of_run(run, N, Speed({}, "nothing")).rates["training"]
    assert own == Range(*[pytest.approx(found["training"].likely * peak)] * 3)


def test_another_run_in_the_folder_is_refused(begun: Path) -> None:
    with pytest.raises(RunError, match="holds a different run"):
        plan_command("smoke", ["seed=99"], out=begun, measure=False)
    with pytest.raises(ConfigError, match="Expected a recipe"):
        plan_command(None)


def test_an_encoder_decoder_is_planned() -> None:
    plan = make_plan(load_config("smoke-t5"), measure=False)
    assert plan.parameters and plan.needs.training and plan.needs.sampling
    assert next(stage for stage in plan.stages if stage.name == "1-iteration/dpo").high.trained_tokens > 0


def test_what_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    text = plan_command("smoke", ["model=no-one/no-such-model"], out=tmp_path / "none")
    assert "no-one/no-such-model is not on this machine" in text and "words, single digits and signs" in text
    assert "memory, disk: unknown" in text and "Traceback" not in text
    hub = plan_command("gsm8k-flan-t5-base", ["model=no-one/no-such-model"], out=tmp_path / "none")
    assert "the sets cannot be counted" in hub and "3-iteration/evaluate/svamp" in hub
    assert not (tmp_path / "none").exists()


def test_pieces_come_near_the_tokens(finished: Path) -> None:
    with_tokenizer = make_plan(load_config("smoke"), measure=False)
    without = make_plan(load_config("smoke", ["model=no-one/no-such-model"]), measure=False)
    for one, other in zip(with_tokenizer.stages, without.stages, strict=True):
        assert other.likely.tokens == pytest.approx(one.likely.tokens, rel=0.4), one.name


def test_where_no_gpu_is_the_hours_are_an_h100s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("selftrain.plan.speed.matrix_flops", lambda *_: pytest.fail("there is nothing to measure"))
    speed = probed("cuda", "bf16", LEAST_PARAMETERS)
    assert speed.rates["sampling"].likely == pytest.approx(116_000 * 2 * 134_515_008, rel=0.01)  # docs/log.md
    assert speed.rates["training"].likely == pytest.approx(91_000 * 6 * 134_515_008, rel=0.02)
    assert "for no GPU is here" in speed.source and "one H100" in speed.source
    assert make_plan(load_config("smoke", ["compute.device=cuda"]), measure=False).precision == "bf16"


def test_a_model_that_is_too_small_gives_no_time_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = make_plan(load_config("smoke", ["compute.device=cuda", "compute.precision=bf16"]))
    assert plan.seconds is None and plan.flops() is not None
    assert "free memory unknown" in plan_text(plan)


def test_memory_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.plan.needs.available_memory_bytes", lambda: 10**5)
    monkeypatch.setattr("selftrain.plan.needs.free_disk_bytes", lambda _: 10**6)
    text = plan_text(make_plan(load_config("smoke"), measure=False))
    assert text.count("NOT ENOUGH") == 2


def test_rows_over_a_limit_are_told() -> None:
    plan = make_plan(load_config("smoke", ["prompt.max_prompt_tokens=20"]), measure=False)
    assert any("the run would be refused: rows over a limit" in note for note in plan.notes)


def test_what_the_rate_of_dpo_comes_to_is_shown() -> None:
    plan = make_plan(load_config("smoke", ["training.dpo.learning_rate=auto"]), measure=False)
    dpo = next(stage.likely for stage in plan.stages if stage.name == "1-iteration/dpo")
    assert f"learning rate of DPO (auto): 1e-05 in 1-iteration/dpo, {dpo.steps} steps" in plan_text(plan)
    assert "learning rate of DPO" not in plan_text(make_plan(load_config("smoke"), measure=False))
