"""`fit`: the same numbers as a plain PyTorch loop, however a batch is cut and wherever a run is broken."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selftrain.errors import ConfigError, UserError
from selftrain.records import Example, Pair
from selftrain.training.batches import MicroBatch
from selftrain.training.engine import check_memory
from selftrain.training.finite import NonFiniteError
from selftrain.training.fit import LOG_NAME, SCRATCH, FitResult, Interrupted, fit
from selftrain.training.objective import Objective
from selftrain.training.steplog import read_steps


def _weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    return [{k: v for k, v in row.items() if "second" not in k} for row in read_steps(folder / LOG_NAME)]


def test_weights_after_training_equal_a_plain_adamw_loop(
    family: Any, examples: list[Example], oracle: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    settings = {"batch_size": 8, "epochs": 3, "warmup_fraction": 0.34, "weight_decay": 0.1, "max_grad_norm": 0.5}
    objective = family.sft(examples, 64, learning_rate=3e-3, **settings)
    module = family.model()
    plain = copy.deepcopy(module)
    assert fit(module, objective, folder=tmp_path).steps == 6

    matrices = [p for p in plain.parameters() if p.ndim > 1]
    vectors = [p for p in plain.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], foreach=False
    )
    shares = [0.5, 1.0] + [0.1 + 0.45 * (1 + math.cos(math.pi * i / 4)) for i in (1, 2, 3, 4)]
    for batch, share, row in zip(objective.plan.batches, shares, _rows(tmp_path), strict=True):
        rows = [examples[item] for item in batch]
        nll = [-oracle(plain, family.encoder_decoder, row.prompt_ids, row.target_ids) for row in rows]
        loss = torch.cat(nll).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * share
        optimizer.step()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-3)
        assert row["learning_rate"] == pytest.approx(3e-3 * share)
        assert row["tokens"] == sum(len(r.prompt_ids) + len(r.target_ids) for r in rows)
    for name, value in plain.named_parameters():
        torch.testing.assert_close(module.get_parameter(name), value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_the_result_does_not_depend_on_micro_batches(
    family: Any, examples: list[Example], pairs: list[Pair], tmp_path: Path, kind: str
) -> None:
    """Batch 1 x accumulation 8 = 8 x 1, and bucketed in between."""
    logs, results = [], []
    for budget in (1, 100 if kind == "sft" else 200, 10_000):
        module = family.model()
        make = family.sft if kind == "sft" else family.dpo
        objective = make(examples if kind == "sft" else pairs, budget, learning_rate=1e-3)
        fit(module, objective, folder=tmp_path / str(budget))
        logs.append(_rows(tmp_path / str(budget)))
        results.append(_weights(module))
    padded = [sum(row["padded_tokens"] for row in log) for log in logs]
    if objective.plan.layout == "trees" and not family.encoder_decoder:
        assert padded[0] == padded[1] == padded[2]
    else:
        assert padded[0] <= padded[1] <= padded[2] and padded[0] < padded[2]
    assert kind == "dpo" or padded[0] == sum(row["tokens"] for row in logs[0])
    for log, weights in zip(logs[1:], results[1:], strict=True):
        for row, other in zip(logs[0], log, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        for name, value in results[0].items():
            torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=5e-5, msg=name)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_gradient(
    family: Any, examples: list[Example], pairs: list[Pair], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that holds so many tokens only, met inside an accumulation: the same weights come out as with room."""
    results = []
    for room in (math.inf, 90):
        module = family.model()
        objective = family.sft(examples, 4000) if kind == "sft" else family.dpo(pairs, 4000)
        monkeypatch.setattr(objective, "loss", _with_room(objective.loss, room))
        results.append((fit(module, objective, folder=tmp_path / str(room)), _weights(module)))
    (roomy, expected), (tight, found) = results
    assert roomy.notes == ()
    assert "out of memory in step" in tight.notes[0] and "micro_batch_tokens=2000" in tight.notes[0]
    assert tight.steps == roomy.steps
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=5e-4, msg=name)


def test_out_of_memory_in_a_pass_without_gradient_halves_too(
    family: Any, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main memory that runs out while the reference is measured: the same figures and weights as with room."""
    results = []
    no_room = functools.partial(RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory")
    for room in (math.inf, 90):
        module, objective = family.model(), family.dpo(pairs, 4000)
        monkeypatch.setattr(objective, "log_probs", _with_room(objective.log_probs, room, error=no_room))
        results.append((fit(module, objective, folder=tmp_path / str(room)), _weights(module)))
    (roomy, expected), (tight, found) = results
    assert roomy.notes == ()
    assert "out of memory in a pass without gradient" in tight.notes[0] and "=2000" in tight.notes[0]
    assert tight.final == pytest.approx(roomy.final, rel=1e-3, abs=1e-4)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=5e-4, msg=name)


def test_memory_that_holds_no_row_is_an_error_not_a_loop(family: Any, examples: list[Example], tmp_path: Path) -> None:
    objective = family.sft(examples)
    objective.loss = _with_room(objective.loss, 1, alone=True)
    with pytest.raises(UserError, match="not even one item"):
        fit(family.model(), objective, folder=tmp_path)


def _with_room(
    loss: Callable[..., Any],
    tokens: float,
    alone: bool = False,
    error: Callable[[], Exception] = torch.OutOfMemoryError,
) -> Callable[..., Any]:
    """A loss for which memory runs out beyond so many tokens, after its forward."""

    def limited(module: nn.Module, micro_batch: MicroBatch) -> Any:
        found = loss(module, micro_batch)
        if micro_batch.padded_tokens > tokens and (alone or len(micro_batch.items) > 1):
            raise error()
        return found

    return limited


def test_the_first_row_is_the_loss_of_the_start_weights(
    family: Any, examples: list[Example], oracle: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    objective = family.sft(examples)
    module = family.model()
    rows = [examples[item] for item in objective.plan.batches[0]]
    nll = [-oracle(module, family.encoder_decoder, row.prompt_ids, row.target_ids).detach() for row in rows]
    result = fit(module, objective, folder=tmp_path)
    assert result.first["loss"] == pytest.approx(float(torch.cat(nll).mean()), rel=1e-5)
    assert result.first["step"] == 1 and result.last["step"] == result.steps == 2


def test_sft_loss_falls(family: Any, examples: list[Example], tmp_path: Path) -> None:
    result = fit(family.model(), family.sft(examples, max_steps=20), folder=tmp_path)
    assert result.steps == 20
    assert result.last["loss"] < 0.8 * result.first["loss"]


def test_dpo_loss_falls_and_margins_start_at_zero(family: Any, pairs: list[Pair], tmp_path: Path) -> None:
    objective = family.dpo(pairs, max_epochs=7, max_steps=20, beta=0.3, learning_rate=3e-3)
    result = fit(family.model(dropout=0.3), objective, folder=tmp_path)
    assert result.steps == 20
    assert abs(result.first["margin"]) / 0.3 < 1e-4
    assert result.first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(result.first["chosen_change_per_token"]) < 1e-5
    assert result.last["loss"] < 0.5
    assert result.final["reward_accuracy"] > 0.8
    assert result.final["margin"] > 0.3
    real = sum(m.tokens for m in objective.plan.covering())
    assert result.forward_tokens == 2 * real
    assert result.trained_tokens == sum(row["tokens"] for row in _rows(tmp_path))


def _stop_after(step: int) -> tuple[Callable[[int, int, Any], None], Callable[[], bool]]:
    seen = [0]

    def on_step(done: int, num_steps: int, row: Any) -> None:
        seen[0] = done

    return on_step, lambda: seen[0] >= step


def _objective(family: Any, kind: str, examples: list[Example], pairs: list[Pair]) -> Objective:
    if kind == "sft":
        return family.sft(examples, 100, epochs=4)  # type: ignore[no-any-return]
    return family.dpo(pairs, 100, max_epochs=3)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_resumed_training_is_bitwise_the_unbroken_one(
    family: Any, examples: list[Example], pairs: list[Pair], tmp_path: Path, kind: str
) -> None:
    unbroken = family.model(dropout=0.2)
    whole = fit(unbroken, _objective(family, kind, examples, pairs), folder=tmp_path / "whole")

    result: FitResult | None = None
    for step in (2, 5, 10**6):
        broken = family.model(dropout=0.2)
        torch.rand(step % 100)  # the caller's random state must not matter
        on_step, should_stop = _stop_after(step)
        objective = _objective(family, kind, examples, pairs)
        options: dict[str, Any] = {"folder": tmp_path / "broken", "on_step": on_step, "should_stop": should_stop}
        if step < 10**6:
            with pytest.raises(Interrupted):
                fit(broken, objective, **options)
        else:
            result = fit(broken, objective, **options)
    assert result is not None and result.resumed_from_step == 5 and result.notes == ()
    assert _equal(_weights(unbroken), _weights(broken))
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "broken")
    assert result.final == whole.final
    assert (result.steps, result.trained_tokens) == (whole.steps, whole.trained_tokens)
    assert len(_rows(tmp_path / "whole")) == whole.steps > 6


def test_dropout_is_really_on_in_that_test(family: Any, examples: list[Example], tmp_path: Path) -> None:
    with_dropout, without = family.model(dropout=0.2), family.model(dropout=0.0)
    fit(with_dropout, family.sft(examples, 100), folder=tmp_path / "a")
    fit(without, family.sft(examples, 100), folder=tmp_path / "b")
    assert not _equal(_weights(with_dropout), _weights(without))


def test_a_crash_goes_back_to_the_last_checkpoint(llama: Any, examples: list[Example], tmp_path: Path) -> None:
    unbroken = llama.model()
    fit(unbroken, llama.sft(examples, epochs=4), folder=tmp_path / "whole")

    def crash(step: int, num_steps: int, row: Any) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(llama.model(), llama.sft(examples, epochs=4), folder=tmp_path / "b", checkpoint_every_s=0, on_step=crash)
    assert len(_rows(tmp_path / "b")) == 5
    broken = llama.model()
    result = fit(broken, llama.sft(examples, epochs=4), folder=tmp_path / "b")
    assert result.resumed_from_step == 4
    assert _equal(_weights(unbroken), _weights(broken))
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "b")


def _interrupted(llama: Any, examples: list[Example], folder: Path, **options: Any) -> None:
    on_step, should_stop = _stop_after(3)
    with pytest.raises(Interrupted):
        fit(
            llama.model(),
            llama.sft(examples, epochs=4),
            folder=folder,
            on_step=on_step,
            should_stop=should_stop,
            **options,
        )


def test_a_broken_checkpoint_means_step_0_and_is_said(llama: Any, examples: list[Example], tmp_path: Path) -> None:
    unbroken = llama.model()
    fit(unbroken, llama.sft(examples, epochs=4), folder=tmp_path / "whole")
    _interrupted(llama, examples, tmp_path / "b")
    (weights,) = (tmp_path / "b/checkpoint").glob("step-*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-8])
    broken = llama.model()
    result = fit(broken, llama.sft(examples, epochs=4), folder=tmp_path / "b")
    assert result.resumed_from_step == 0
    assert "not what was written" in result.notes[0] and "step 0" in result.notes[1]
    assert _equal(_weights(unbroken), _weights(broken))
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "b")


@pytest.mark.parametrize("change", ["data", "settings", "start", "precision"])
def test_another_training_s_checkpoint_is_not_resumed(
    llama: Any, examples: list[Example], tmp_path: Path, change: str
) -> None:
    _interrupted(llama, examples, tmp_path, model_digest="a")
    if change == "data":
        examples[0] = dataclasses.replace(examples[0], target_ids=(7, 1))
    rate = 1e-3 if change == "settings" else 1e-2
    objective = llama.sft(examples, epochs=4, learning_rate=rate)
    digest = "b" if change == "start" else "a"
    precision: Any = "bf16" if change == "precision" else "fp32"
    result = fit(llama.model(), objective, folder=tmp_path, model_digest=digest, precision=precision)
    assert result.resumed_from_step == 0 and "other data, settings" in result.notes[0]
    assert [row["step"] for row in _rows(tmp_path)] == list(range(1, 9))


def test_micro_batch_size_may_change_between_starts(llama: Any, examples: list[Example], tmp_path: Path) -> None:
    _interrupted(llama, examples, tmp_path)
    assert fit(llama.model(), llama.sft(examples, 64, epochs=4), folder=tmp_path).resumed_from_step == 3


def test_a_stop_during_the_reference_pass_or_the_last_pass_loses_nothing(
    llama: Any, pairs: list[Pair], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        fit(llama.model(), llama.dpo(pairs), folder=tmp_path, should_stop=lambda: True)
    assert not (tmp_path / "checkpoint").exists()
    asked = [0]

    def in_the_last_pass() -> bool:
        asked[0] += 1
        passes = len(llama.dpo(pairs).plan.covering())
        return bool(asked[0] > passes + llama.dpo(pairs).plan.num_steps)

    with pytest.raises(Interrupted):
        fit(llama.model(), llama.dpo(pairs), folder=tmp_path, should_stop=in_the_last_pass)
    broken = llama.model()
    result = fit(broken, llama.dpo(pairs), folder=tmp_path)
    assert result.resumed_from_step == result.steps
    unbroken = llama.model()
    assert fit(unbroken, llama.dpo(pairs), folder=tmp_path / "whole").final == result.final
    assert _equal(_weights(unbroken), _weights(broken))


def test_the_reference_is_measured_once(
    llama: Any, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step, should_stop = _stop_after(1)
    with pytest.raises(Interrupted):
        fit(llama.model(), llama.dpo(pairs), folder=tmp_path, on_step=on_step, should_stop=should_stop)
    again = llama.dpo(pairs)
    monkeypatch.setattr(again, "before", lambda *_: pytest.fail("measured again"))
    assert fit(llama.model(), again, folder=tmp_path).resumed_from_step == 1


def test_a_nan_loss_stops_before_the_update_and_names_its_rows(
    llama: Any, examples: list[Example], tmp_path: Path
) -> None:
    examples[6] = dataclasses.replace(examples[6], prompt_ids=(96, 96, 96))
    examples = [dataclasses.replace(e, target_ids=tuple(min(t, 95) for t in e.target_ids)) for e in examples]
    examples = [e if e.problem_id == "p6" else dataclasses.replace(e, prompt_ids=(3, 4, 5)) for e in examples]
    module = llama.model()
    with torch.no_grad():
        module.get_input_embeddings().weight[96] = float("nan")
    before = _weights(module)
    with pytest.raises(NonFiniteError) as caught:
        fit(module, llama.sft(examples, 1, batch_size=16), folder=tmp_path)
    assert "sft step 1: expected a finite loss" in caught.value.message
    assert "rows of p6." in caught.value.message
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=0, equal_nan=True)
    assert _rows(tmp_path) == []


def test_an_infinite_gradient_stops_before_the_update(llama: Any, examples: list[Example], tmp_path: Path) -> None:
    module = llama.model()
    on_step, should_stop = _stop_after(1)
    with pytest.raises(Interrupted):
        fit(module, llama.sft(examples), folder=tmp_path, on_step=on_step, should_stop=should_stop)
    before = _weights(module)
    handle = module.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    module.load_state_dict(llama.model().state_dict())
    with pytest.raises(NonFiniteError, match="step 2: expected a finite gradient"):
        fit(module, llama.sft(examples), folder=tmp_path)
    handle.remove()
    assert _equal(_weights(module), before)
    assert fit(llama.model(), llama.sft(examples), folder=tmp_path).resumed_from_step == 1


def test_bf16_trains_fp32_weights_near_the_fp32_run(family: Any, examples: list[Example], tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for precision in ("fp32", "bf16", "fp32"):
        module = family.model()
        kind: Any = precision
        objective = family.sft(examples, max_steps=10, learning_rate=3e-3)
        result = fit(module, objective, folder=tmp_path / f"{precision}{len(losses)}", precision=kind)
        losses.setdefault(precision, []).append(result.last["loss"])
        assert next(module.parameters()).dtype == torch.float32
    assert losses["fp32"][0] == losses["fp32"][1]
    assert losses["bf16"][0] != losses["fp32"][0]
    assert losses["bf16"][0] == pytest.approx(losses["fp32"][0], rel=0.05)


def test_bf16_margins_start_at_zero(family: Any, pairs: list[Pair], tmp_path: Path) -> None:
    result = fit(family.model(), family.dpo(pairs, max_steps=1), folder=tmp_path, precision="bf16")
    # T5's position bias needs a gradient in training and not in the reference pass, so attention runs another kernel
    assert abs(result.first["margin"]) / 0.1 < (0.1 if family.encoder_decoder else 1e-3)


def test_bf16_weights_are_refused(llama: Any, examples: list[Example], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fp32 master weights"):
        fit(llama.model().bfloat16(), llama.sft(examples), folder=tmp_path)


def test_the_module_comes_back_clean(llama: Any, examples: list[Example], tmp_path: Path) -> None:
    module = llama.model()
    forward, references = module.forward, sys.getrefcount(module)
    fit(module, llama.sft(examples), folder=tmp_path, precision="bf16", checkpoint_every_s=0)
    assert not module.training and module.forward == forward
    assert sys.getrefcount(module) == references
    assert all(parameter.grad is None for parameter in module.parameters())
    for name in SCRATCH:
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    assert [path.name for path in tmp_path.iterdir()] == [LOG_NAME]


def test_a_training_that_cannot_fit_is_refused_with_both_numbers(
    llama: Any, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = nn.Module()
    large.weight = nn.Parameter(torch.empty(1).expand(2_000_000_000))  # one number, two thousand million times
    monkeypatch.setattr("selftrain.training.engine.available_memory_bytes", lambda: 17_300_000_000)
    with pytest.raises(
        ConfigError, match=r"2,000\.0 million weights needs 24\.0 GB more.*17\.3 GB are free"
    ) as refused:
        check_memory(large, 1)
    assert "training.lora.rank=16" in str(refused.value.hint)
    check_memory(large, 2)  # shared out
    module = llama.model()
    needed = 12 * sum(parameter.numel() for parameter in module.parameters())
    monkeypatch.setattr("selftrain.training.engine.available_memory_bytes", lambda: needed - 1)
    with pytest.raises(ConfigError, match="needs"):
        fit(module, llama.sft(examples), folder=tmp_path)
    monkeypatch.setattr("selftrain.training.engine.available_memory_bytes", lambda: needed)
    fit(module, llama.sft(examples), folder=tmp_path)


def test_share_of_peak_by_hand(
    llama: Any, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that moves 2 s whenever it is looked at, and a machine of 10 million FLOP/s."""
    now = itertools.count(0.0, 2.0)
    monkeypatch.setattr("selftrain.training.fit.time", types.SimpleNamespace(monotonic=lambda: next(now)))
    fit(llama.model(), llama.sft(examples), folder=tmp_path, peak_flops=1e7)
    embedding = head = 97 * 32
    attention = 32 * 32 + 2 * 16 * 32 + 32 * 32  # 4 heads of 8, 2 of keys and values
    parameters = embedding + head + 2 * (attention + 3 * 32 * 48 + 2 * 32) + 32
    for row in read_steps(tmp_path / LOG_NAME):
        assert row["seconds"] == 2.0 and row["tokens_per_second"] == row["tokens"] / 2
        assert row["share_of_peak"] == pytest.approx(6 * parameters * row["tokens"] / 2 / 1e7, rel=1e-12)
    assert len(read_steps(tmp_path / LOG_NAME)) == 2


def test_auto_gives_the_rate_of_steps_and_size(llama: Any, pairs: list[Pair], tmp_path: Path) -> None:
    objective = llama.dpo(pairs, learning_rate="auto", max_epochs=4, batch_size=2, warmup_fraction=0.0)
    assert objective.plan.num_steps > 10
    result = fit(llama.model(), objective, folder=tmp_path)
    assert result.learning_rate == pytest.approx(1e-4 / result.steps)
    assert result.first["learning_rate"] == pytest.approx(result.learning_rate)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_stop_inside_an_accumulation_is_resumed_bitwise(
    llama: Any, examples: list[Example], pairs: list[Pair], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two micro-batches of step 4: their gradients are lost, and the step is done again whole."""
    unbroken = llama.model(dropout=0.2)
    whole = fit(unbroken, _objective(llama, kind, examples, pairs), folder=tmp_path / "whole")
    objective = _objective(llama, kind, examples, pairs)
    before = sum(len(objective.plan.step(step)) for step in range(3))
    assert len(objective.plan.step(3)) > 1
    forwards = itertools.count(1)
    loss = objective.loss

    def killed(module: nn.Module, micro_batch: MicroBatch) -> Any:
        if next(forwards) == before + 2:
            assert any(parameter.grad is not None for parameter in module.parameters())
            raise KeyboardInterrupt
        return loss(module, micro_batch)

    monkeypatch.setattr(objective, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(llama.model(dropout=0.2), objective, folder=tmp_path / "broken", checkpoint_every_s=0)
    broken = llama.model(dropout=0.2)
    result = fit(broken, _objective(llama, kind, examples, pairs), folder=tmp_path / "broken")
    assert result.resumed_from_step == 3
    assert _equal(_weights(unbroken), _weights(broken))
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "broken")
    assert (result.final, result.trained_tokens) == (whole.final, whole.trained_tokens)
