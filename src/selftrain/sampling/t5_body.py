"""T5's decoder, one token a slot: rows of different lengths side by side.

The transformers decoder counts positions for the whole batch at once, so it can't refill a row. This is
the same arithmetic (relative position bias, no scaling, RMS norms, cross-attention) with a position a row,
over the module's own weights. The question is encoded once and its cross-attention keys and values are
stored in all of its slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftrain.models import head_logits
from selftrain.sampling.bodies import SlotCache, rounded


class T5Body:
    """Encoder-decoder models of the T5 kind (see `bodies.Body`)."""

    def __init__(self, module: nn.Module, num_slots: int, length: int, prompt_length: int) -> None:
        config: Any = module.config
        self.module, self.config = module, config
        self.blocks = module.get_decoder().block  # type: ignore[operator]
        layers = len(self.blocks)
        self.own = SlotCache(num_slots, length, layers)
        self.cross = SlotCache(num_slots, prompt_length, layers)
        self.prompt_lengths = torch.ones(num_slots, dtype=torch.long, device=next(module.parameters()).device)

    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
        """See `Body`; a row begins with the decoder's start token, so its first position is used up."""
        device = self.prompt_lengths.device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts], device=device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
        mask = (torch.arange(width, device=device)[None] < lengths[:, None]).long()
        module: Any = self.module
        encoded = module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        for layer, block in enumerate(self.blocks):
            attention = block.layer[1].EncDecAttention
            keys, values = self._heads(attention.k(encoded)), self._heads(attention.v(encoded))
            for row, targets in enumerate(slots):
                size = len(prompts[row])
                self.cross.put(layer, keys[row, :, :size], values[row, :, :size], targets)
        logits = []
        for row, targets in enumerate(slots):
            self.prompt_lengths[list(targets)] = lengths[row]
            logits.append(self._start(targets))
        return torch.cat(logits), [1] * len(prompts)

    def _start(self, slots: Sequence[int]) -> Tensor:
        """Write the start token into slots; the logits [1, V] after it are the same in all of them."""
        rows = torch.tensor(list(slots), device=self.prompt_lengths.device)
        tokens = torch.full_like(rows, self.config.decoder_start_token_id)
        return self._forward(rows, tokens, torch.zeros_like(rows))[:1]

    def step(self, num_rows: int, tokens: Tensor, positions: Tensor) -> Tensor:
        """See `Body`."""
        return self._forward(torch.arange(num_rows, device=tokens.device), tokens, positions)

    def move(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """See `Body`."""
        self.own.move(sources, targets)
        self.cross.move(sources, targets)
        self.prompt_lengths[list(targets)] = self.prompt_lengths[list(sources)]

    def _forward(self, rows: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        decoder: Any = self.module.get_decoder()  # type: ignore[operator]
        hidden = decoder.embed_tokens(tokens)  # [R, D]
        visible = rounded(int(positions.max()) + 1, self.own.length)
        widest = int(self.prompt_lengths[rows].max())
        bias = self._self_bias(positions, visible)
        cross_mask = self._mask(self.prompt_lengths[rows], widest, hidden.dtype)
        for layer, block in enumerate(self.blocks):
            own, cross, feed = block.layer[0], block.layer[1], block.layer[-1]
            hidden = hidden + self._own_attention(own, own.layer_norm(hidden), layer, rows, positions, bias)
            hidden = hidden + self._cross_attention(cross, cross.layer_norm(hidden), layer, rows, cross_mask)
            hidden = feed(hidden[:, None])[:, 0]
        return head_logits(self.module, decoder.final_layer_norm(hidden))

    def _own_attention(
        self, part: Any, hidden: Tensor, layer: int, rows: Tensor, positions: Tensor, bias: Tensor
    ) -> Tensor:
        attention = part.SelfAttention
        key, value = self._heads(attention.k(hidden[:, None])), self._heads(attention.v(hidden[:, None]))
        keys, values = self.own.storage(layer, key)
        keys[rows, :, positions], values[rows, :, positions] = key[:, :, 0], value[:, :, 0]
        visible = bias.shape[-1]
        return self._attend(attention, hidden, keys[rows, :, :visible], values[rows, :, :visible], bias)

    def _cross_attention(self, part: Any, hidden: Tensor, layer: int, rows: Tensor, mask: Tensor) -> Tensor:
        keys, values = self.cross.keys[layer], self.cross.values[layer]
        if keys is None or values is None:
            raise RuntimeError("a step before the first prefill")
        width = mask.shape[-1]
        return self._attend(part.EncDecAttention, hidden, keys[rows, :, :width], values[rows, :, :width], mask)

    def _attend(self, attention: Any, hidden: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        query = self._heads(attention.q(hidden[:, None]))  # [R, H, 1, d]
        out = nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias, scale=1.0)
        return attention.o(out.transpose(1, 2).flatten(2))[:, 0]  # type: ignore[no-any-return]

    def _heads(self, projected: Tensor) -> Tensor:
        """[B, T, H * d] -> [B, H, T, d]."""
        heads: Tensor = projected.unflatten(-1, (self.config.num_heads, self.config.d_kv))
        return heads.transpose(1, 2)

    def _self_bias(self, positions: Tensor, visible: int) -> Tensor:
        """Relative position bias [R, H, 1, visible], with -inf beyond each row's own position."""
        attention: Any = self.blocks[0].layer[0].SelfAttention
        columns = torch.arange(visible, device=positions.device)
        buckets = attention._relative_position_bucket(
            columns[None, :] - positions[:, None],
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        bias: Tensor = attention.relative_attention_bias(buckets).permute(0, 2, 1)[:, :, None]
        return bias.masked_fill((columns[None, :] > positions[:, None])[:, None, None], float("-inf"))

    def _mask(self, lengths: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """Additive mask [R, 1, 1, width] of the prompt's padding."""
        hidden = torch.arange(width, device=lengths.device)[None, :] >= lengths[:, None]
        return torch.zeros(hidden.shape, dtype=dtype, device=lengths.device).masked_fill(hidden, float("-inf"))[
            :, None, None
        ]
