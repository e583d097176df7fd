"""Draws against hand-worked cases and against the softmax they claim to follow."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from selftrain.sampling.base import SamplingParams
from selftrain.sampling.draw import filtered_probabilities, pick_tokens
from selftrain.seeding import uniforms

PLAIN = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=1, calculator=False)


def test_inverse_of_the_cumulative_distribution_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(4, 1)
    numbers = torch.tensor([0.1, 0.25, 0.69, 0.71])
    assert pick_tokens(logits, PLAIN, numbers).tolist() == [0, 1, 1, 2]


def test_a_number_that_rounds_to_one_gives_no_token_of_probability_zero() -> None:
    logits = torch.tensor([[3.0, 1.0, float("-inf")]])
    assert pick_tokens(logits, PLAIN, torch.tensor([1.0])).tolist() == [0]


def test_temperature_zero_is_the_best_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert pick_tokens(logits, dataclasses.replace(PLAIN, temperature=0.0), None).tolist() == [1]


def test_top_k_and_top_p_leave_out_what_they_should() -> None:
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    kept = filtered_probabilities(logits, dataclasses.replace(PLAIN, top_k=2))[0]
    assert torch.allclose(kept, torch.tensor([4 / 7, 3 / 7, 0.0, 0.0]))
    kept = filtered_probabilities(logits, dataclasses.replace(PLAIN, top_p=0.6))[0]
    assert (kept > 0).tolist() == [True, True, False, False]


def test_draws_follow_the_softmax() -> None:
    """Chi-square over 20 tokens; a right sampler fails with probability 1e-4."""
    size, count = 20, 20_000
    logits = torch.randn(size, generator=torch.Generator().manual_seed(5))
    numbers = torch.from_numpy(uniforms(np.arange(count).astype(np.uint64), np.zeros(count, np.int64))).float()
    drawn = pick_tokens(logits.expand(count, size), PLAIN, numbers)
    expected = torch.softmax(logits, 0) * count
    observed = torch.bincount(drawn, minlength=size)
    assert float(((observed - expected) ** 2 / expected).sum()) < 49.6  # chi-square, 19 degrees of freedom, 1e-4
