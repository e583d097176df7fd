"""What a CPU can check of CUDA graphs: filling a batch up to a known shape changes no logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.models import load_model
from selftrain.sampling.cache import Batch
from selftrain.sampling.graphs import GraphedBody, filled_up
from selftrain.sampling.llama_body import LlamaBody, LlamaProducts
from selftrain.toy import make_toy


@torch.inference_mode()
def test_filling_up_changes_no_logits(tmp_path: Path) -> None:
    make_toy("random-llama", tmp_path)
    module = load_model(tmp_path, digest="toy").module

    def logits(fill: bool) -> torch.Tensor:
        body = LlamaBody(module, LlamaProducts(module), 3, 64)
        body.prefill([(5, 6, 7), (8, 9)], [[0, 2], [1]])
        batch = Batch(
            torch.tensor([12, 20, 30, 10, 11]),  # slot 0 wrote 10 11 12, the others one token each
            torch.tensor([5, 2, 3, 3, 4]),
            torch.tensor([0, 1, 2, 0, 0]),
            num_rows=3,
            longest=6,
        )
        return body.step(filled_up(batch, 64, 5) if fill else batch)[:3]

    plain, filled = logits(fill=False), logits(fill=True)
    assert plain.shape == filled.shape
    assert torch.allclose(plain, filled, atol=1e-5)


def test_shapes_come_back() -> None:
    ones = torch.ones(4, dtype=torch.long)
    without = Batch(ones, ones, torch.arange(4), num_rows=4, longest=7)
    assert len(filled_up(without, 300, 4).tokens) == 4 and filled_up(without, 300, 4).longest == 32
    two = Batch(torch.arange(6), torch.ones(6), torch.tensor([0, 1, 2, 3, 1, 1]), 4, 40)
    full = filled_up(two, 50, 8)
    assert full.num_rows == 8 and len(full.tokens) == 8 + 16 and full.longest == 50
    assert full.tokens.tolist() == [0, 1, 2, 3, *[0] * 4, 4, 5, *[0] * 14]


@torch.inference_mode()
def test_prompts_as_steps_are_prefills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does with prompts, seen on a CPU with graphs left out: logits, and those of the step after it."""
    make_toy("random-llama", tmp_path)
    module = load_model(tmp_path, digest="toy").module
    prompts, slots = [(5, 6, 7), (8, 9), (4,)], [[3, 2], [1], [0, 4]]

    if LlamaBody(module, LlamaProducts(module), 5, 64).kernels is None:
        pytest.skip("no compiled kernels here")

    def logits(as_steps: bool) -> tuple[torch.Tensor, torch.Tensor]:
        own = LlamaBody(module, LlamaProducts(module), 5, 64)
        body: Any = own
        if as_steps:
            body = GraphedBody(own, 64, own.cache)
            monkeypatch.setattr(body, "_step", own.step)
        first, lengths = body.prefill(prompts, slots)
        positions = torch.tensor([lengths[2], lengths[1], lengths[0], lengths[0], lengths[2]])
        second = own.step(Batch(torch.tensor([12, 20, 30, 10, 11]), positions, torch.arange(5), 5, 4))
        return first, second

    for plain, by_steps in zip(logits(as_steps=False), logits(as_steps=True), strict=True):
        assert plain.shape == by_steps.shape
        assert torch.allclose(plain, by_steps, atol=1e-5)
