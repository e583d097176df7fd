"""What a CPU can check of CUDA graphs: filling a batch up to a known shape changes no logits."""

from __future__ import annotations

from pathlib import Path

import torch

from selftrain.models import load_model
from selftrain.sampling.cache import Batch
from selftrain.sampling.graphs import filled_up
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
        return body.step(filled_up(batch, 64) if fill else batch)

    plain, filled = logits(fill=False), logits(fill=True)
    assert plain.shape == filled.shape
    assert torch.allclose(plain, filled, atol=1e-5)


def test_shapes_come_back() -> None:
    ones = torch.ones(4, dtype=torch.long)
    without = Batch(ones, ones, torch.arange(4), num_rows=4, longest=7)
    assert len(filled_up(without, 300).tokens) == 4 and filled_up(without, 300).longest == 32
    two = Batch(torch.ones(6, dtype=torch.long), torch.ones(6), torch.tensor([0, 1, 2, 3, 1, 1]), 4, 40)
    full = filled_up(two, 50)
    assert len(full.tokens) == 4 + 16 and full.longest == 50 and full.extra_slots.tolist() == [1] * 16
