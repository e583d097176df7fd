"""One plain forward over a finished row: what a model prefers at each of its tokens, forced ones given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from selftrain.models import LanguageModel, is_encoder_decoder
from selftrain.sampling.base import Generated


@torch.inference_mode()
def plain_logits(model: LanguageModel, prompt: Sequence[int], written: Sequence[int]) -> torch.Tensor:
    """Logits [T + 1, V] that lead to each of T written tokens, and to the one after them."""
    module: Any = model.module
    ids = torch.tensor([prompt], device=model.device)
    if is_encoder_decoder(module):
        given = ids.new_tensor([[module.config.decoder_start_token_id, *written]])
        out: torch.Tensor = module(input_ids=ids, decoder_input_ids=given).logits[0]
    else:
        out = module(input_ids=torch.cat([ids, ids.new_tensor([written])], 1)).logits[0, len(prompt) - 1 :]
    return out


def free_tokens_that_are_not_the_best(
    model: LanguageModel, prompt: Sequence[int], output: Generated, tolerance: float
) -> list[tuple[int, float]]:
    """Places of a greedy row, and by how much, where a token that nobody forced lies below the best one."""
    logits = plain_logits(model, prompt, output.token_ids)[:-1]
    written = torch.tensor(output.token_ids, device=logits.device)[:, None]
    below = (logits.max(-1).values - logits.gather(1, written)[:, 0]).tolist()
    forced = {place for start, end in output.forced for place in range(start, end)}
    return [(place, gap) for place, gap in enumerate(below) if gap > tolerance and place not in forced]
