"""Tokens and FLOPs against hand-worked numbers."""

from __future__ import annotations

import pytest

from selftrain.cost import PARTS, flops, part_of, stage_cost, total

TRAINING = {"trained_tokens": 1000, "forward_tokens": 300, "steps": 7}
SAMPLING = {"prompt_tokens": 50, "generated_tokens": 400, "forced_tokens": 30}


def test_flops_of_the_papers_rule() -> None:
    assert flops(100) == 0
    assert flops(100, trained_tokens=1) == 600
    assert flops(100, forwarded_tokens=1) == 200
    # 135 M parameters, 100,000 trained tokens: 6 * 135e6 * 1e5 = 8.1e13
    assert flops(135_000_000, trained_tokens=100_000) == 81_000_000_000_000


def test_a_training_stage() -> None:
    cost = stage_cost("1-iteration/dpo", TRAINING, seconds=2.5, parameters=10, headline="t")
    assert (cost.trained_tokens, cost.sampled_tokens, cost.forwarded_tokens) == (1000, 0, 300)
    assert cost.flops == 10 * (6 * 1000 + 2 * 300)
    assert cost.part == "training and sampling"


def test_a_sampling_stage_counts_prompts_once_and_forced_tokens_among_the_sampled() -> None:
    cost = stage_cost("0-warmup/evaluate/t", SAMPLING, seconds=1.0, parameters=10, headline="t")
    assert (cost.trained_tokens, cost.sampled_tokens, cost.forwarded_tokens) == (0, 400, 50)
    assert cost.flops == 2 * 10 * 450


def test_without_parameters_flops_are_unknown_and_so_is_their_sum() -> None:
    known = stage_cost("1-iteration/sft", TRAINING, seconds=2.0, parameters=10, headline=None)
    unknown = stage_cost("1-iteration/sample-for-labels", SAMPLING, seconds=0.5, parameters=None, headline=None)
    assert unknown.flops is None
    assert total([known])["flops"] == 66_000
    summed = total([known, unknown])
    assert summed["flops"] is None
    assert (summed["stages"], summed["seconds"], summed["trained_tokens"]) == (2, 2.5, 1000)
    assert (summed["sampled_tokens"], summed["forwarded_tokens"]) == (400, 350)
    assert total([])["seconds"] == 0


@pytest.mark.parametrize(
    ("stage", "part"),
    [
        ("data", "training and sampling"),
        ("0-base/evaluate/main", "base model's row"),
        ("0-base/evaluate-without-calculator/main", "base model's row"),
        ("0-warmup/sft", "training and sampling"),
        ("0-warmup/evaluate/main", "headline evaluation"),
        ("1-iteration/sampler/evaluate/main", "headline evaluation"),
        ("1-iteration/evaluate/other", "further evaluations"),
        ("final/evaluate-without-calculator/main", "further evaluations"),
        ("1-iteration/validate", "training and sampling"),
        ("1-iteration/sampler/validate", "training and sampling"),
        ("baseline-st/1-iteration/evaluate/main", "baselines"),
        ("baseline-sft-matched/sft-matched/sft", "baselines"),
    ],
)
def test_part_of_a_stage(stage: str, part: str) -> None:
    assert part_of(stage, "main") == part
    assert part in PARTS
