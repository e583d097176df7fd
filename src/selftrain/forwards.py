"""Training forwards: the hidden states that predict the targets' tokens, with or without sharing a prompt.

    trees = [Tree(prompt_ids, [target_ids, ...]), ...]          # a prompt and the completions that follow it
    hidden, labels, rows = target_hidden(module, trees, pad_id, layout="trees")

Two layouts, the same numbers:

- "rows": one padded row a completion, the prompt in each. Any model that transformers loads.
- "trees": each prompt once. Decoder-only models get all trees of a micro-batch as one sequence without any
  padding; attention runs tree by tree (on a GPU in one kernel, `flex_trees`), a completion sees its prompt and itself,
  and its positions follow the prompt's.
  Encoder-decoder models encode each prompt once; their decoder rows stay padded.

`choose_layout` tries both on a few rows, since a model's attention may not be ours to replace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from selftrain.errors import ModelError, first_line, listed
from selftrain.flex_trees import Branch, flex_tree_attention, tree_mask
from selftrain.models import FULL, attention_spans, has_compiled_blocks, is_encoder_decoder
from selftrain.short_attention import is_short, short_attention

Ids = Sequence[int]
Layout = Literal["rows", "trees"]
ATTENTION = "selftrain_trees"
FILL = 1024  # tokens: a GPU's sequence is filled up, so that memory of one shape is taken again
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of hidden values by the layouts, over the largest
FLEX_TOKENS = 256  # of a forward on a GPU, from which on its trees attend in one compiled kernel


class Tree(NamedTuple):
    """A prompt and the completions that follow it, each of at least one token."""

    prompt: Ids
    targets: Sequence[Ids]


def target_hidden(
    module: nn.Module, trees: Sequence[Tree], pad_id: int, layout: Layout = "rows"
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward; the hidden states that predict the targets' tokens.

    Returns:
        hidden [N, D] for the N target tokens of all completions in order, labels [N], and rows [N] (the completion of
        each, counted through all trees).
    """
    device = next(module.parameters()).device
    targets = [target for tree in trees for target in tree.targets]
    if is_encoder_decoder(module):
        hidden = _encoder_decoder_hidden(module, trees, pad_id, device, layout)
    elif layout == "trees":
        hidden = _tree_hidden(module, trees, device)
    else:
        hidden = _row_hidden(module, trees, pad_id, device)
    labels = torch.tensor([token for target in targets for token in target], device=device)
    rows = torch.tensor([row for row, target in enumerate(targets) for _ in target], device=device)
    return hidden, labels, rows


def _row_hidden(module: Any, trees: Sequence[Tree], pad_id: int, device: torch.device) -> Tensor:
    pairs = [(tree.prompt, target) for tree in trees for target in tree.targets]
    ids, mask = _padded([[*prompt, *target[:-1]] for prompt, target in pairs], pad_id, device)
    hidden = module.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return _at(hidden, [(len(prompt) - 1, len(target)) for prompt, target in pairs])


def _at(hidden: Tensor, spans: Sequence[tuple[int, int]]) -> Tensor:
    """hidden [B, T, D] at (first column, count) of each row, one after another [N, D]."""
    rows = [row for row, (_, count) in enumerate(spans) for _ in range(count)]
    columns = [first + i for first, count in spans for i in range(count)]
    return hidden[torch.tensor(rows, device=hidden.device), torch.tensor(columns, device=hidden.device)]


def _encoder_decoder_hidden(
    module: Any, trees: Sequence[Tree], pad_id: int, device: torch.device, layout: Layout
) -> Tensor:
    targets = [target for tree in trees for target in tree.targets]
    if layout == "rows":
        trees = [Tree(tree.prompt, [target]) for tree in trees for target in tree.targets]
    ids, mask = _padded([tree.prompt for tree in trees], pad_id, device)
    encoded = module.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    tree_of = torch.tensor([index for index, tree in enumerate(trees) for _ in tree.targets], device=device)
    start = module.config.decoder_start_token_id
    inputs, input_mask = _padded([[start, *target[:-1]] for target in targets], pad_id, device)
    out = module.get_decoder()(
        input_ids=inputs,
        attention_mask=input_mask,
        encoder_hidden_states=encoded[tree_of],
        encoder_attention_mask=mask[tree_of],
        use_cache=False,
    )
    return _at(out.last_hidden_state, [(0, len(target)) for target in targets])


def _padded(sequences: Sequence[Ids], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """ids [B, T] filled on the right, and mask [B, T] from the lengths."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    width = int(lengths.max())
    ids = torch.tensor([[*sequence, *[pad_id] * (width - len(sequence))] for sequence in sequences])
    mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    return ids.to(device), mask.to(device)


# --- Trees in a decoder-only model ---


def _flatten(trees: Sequence[Tree]) -> tuple[list[int], list[int], list[int], list[list[Branch]]]:
    """Fed ids [N'], positions [N'], the column that predicts each target token, and each tree's branches.

    A tree is its prompt, then each completion less its last token, which is predicted and never fed.
    """
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    branches: list[list[Branch]] = []
    for prompt, targets in trees:
        trunk = slice(len(ids), len(ids) + len(prompt))
        ids += prompt
        positions += range(len(prompt))
        branches.append([])
        for target in targets:
            own = slice(len(ids), len(ids) + len(target) - 1)
            ids += target[:-1]
            positions += range(len(prompt), len(prompt) + len(target) - 1)
            predictors += [trunk.stop - 1, *range(own.start, own.stop)]
            branches[-1].append(Branch(trunk, own))
    return ids, positions, predictors, branches


def _tree_hidden(module: Any, trees: Sequence[Tree], device: torch.device) -> Tensor:
    ids, positions, predictors, branches = _flatten(trees)
    mask = None
    if device.type == "cuda" and (len(ids) >= FLEX_TOKENS or has_compiled_blocks(module)):
        filling = [0] * (-len(ids) % FILL)
        ids, positions = ids + filling, positions + filling
        mask = tree_mask(branches, len(ids), device)
    with attention_of(module, "trees"):
        hidden = module.base_model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            branches=branches,
            block_mask=mask,
        ).last_hidden_state
    found: Tensor = hidden[0, torch.tensor(predictors, device=device)]
    return found


@contextlib.contextmanager
def attention_of(module: Any, layout: Layout) -> Iterator[None]:
    """Within, the layers have the layout's attention: for trees `_tree_attention`, and transformers makes no mask.

    `target_hidden` sees to it itself. A backward pass that computes layers again must be inside too.
    """
    if layout == "rows" or is_encoder_decoder(module):
        yield
        return
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _tree_attention)
    config = module.config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    branches: Sequence[Sequence[Branch]],
    block_mask: Any = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within trees, in transformers' interface.

    Args:
        query: [1, H, N', d]; key and value [1, G, N', d], G dividing H.
        block_mask: that of `flex_trees`, where all trees are to attend at once.

    Returns:
        [1, N', H, d], and no weights.

    Raises:
        NotImplementedError: the layer asks for a window, a soft cap or sinks (`why_not_trees` reports it).
    """
    wants = [name for name in ("sliding_window", "softcap", "s_aux") if kwargs.get(name) is not None]
    if wants or attention_mask is not None or key.shape[-2] != query.shape[-2]:
        raise NotImplementedError(f"its attention takes {', '.join(wants) or 'a mask of its own'}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if block_mask is not None and not dropout:
        return flex_tree_attention(query, key, value, block_mask, scale).transpose(1, 2), None

    def attend(own: slice, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        return _attend(query[:, :, own], keys, values, mask, scale, dropout)

    parts: list[Tensor] = []
    for tree in branches:
        trunk, first = tree[0].prompt, tree[0].own
        stem = slice(trunk.start, first.stop)  # the prompt and the first completion: plain causal attention
        parts.append(attend(stem, key[:, :, stem], value[:, :, stem], None))
        for _, own in tree[1:]:
            if own.start < own.stop:
                keys, values = (torch.cat([part[:, :, trunk], part[:, :, own]], dim=2) for part in (key, value))
                parts.append(attend(own, keys, values, _branch_mask(trunk, own, query.device)))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float) -> Tensor:
    """Attention [1, H, T, d] of query [1, H, T, d] over key and value [1, G, S, d]; no mask: causal, T = S."""
    if is_short(query, key, value) and not dropout:
        length = query.shape[2]
        causal = torch.ones(length, length, dtype=torch.bool).tril() if mask is None else mask
        return short_attention(query, key, value, causal, scale)
    return functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=mask is None, scale=scale, enable_gqa=True
    )


def _branch_mask(trunk: slice, own: slice, device: torch.device) -> Tensor:
    """[T, P + T]: the whole prompt, and causally the completion itself."""
    prompt, length = trunk.stop - trunk.start, own.stop - own.start
    return torch.ones(length, prompt + length, dtype=torch.bool, device=device).tril(prompt)


MADE_UP = (Tree([5, 6, 7, 8, 9], [[3, 4, 5, 6, 7, 8], [9, 8, 7, 6], [4]]), Tree([6, 5, 4], [[7, 8, 9]]))


def choose_layout(
    module: nn.Module, wanted: Layout | Literal["auto"], trees: Sequence[Tree] = MADE_UP
) -> tuple[Layout, str]:
    """The layout to train with, and why "auto" did not take trees (empty where it did, or was not asked).

    The choice depends on the model, the device and `trees` alone, so that a run that goes on takes the same again.

    Args:
        trees: rows of the run to try both layouts on; made-up ones where there are none.

    Raises:
        ModelError: trees were asked for, and the model's attention cannot have them.
    """
    if wanted == "rows":
        return "rows", ""
    reason = why_not_trees(module, trees)
    if wanted == "trees" and reason:
        raise ModelError(f"training.layout=trees cannot be used with this model: {reason}.", "Take rows or auto.")
    device = next(module.parameters()).device.type
    if wanted == "auto" and not reason and device not in ("cpu", "cuda") and not is_encoder_decoder(module):
        reason = f"attention tree by tree was not measured on {device}; training.layout=trees takes them"
    return ("rows", reason) if reason else ("trees", "")


def why_not_trees(module: nn.Module, trees: Sequence[Tree] = MADE_UP) -> str:
    """Why "trees" would go wrong with this model; empty where both layouts give the same hidden states.

    The trees go through both in the weights' precision, without gradient and dropout.
    """
    strange = [] if is_encoder_decoder(module) else sorted(attention_spans(module.config).keys() - {FULL})
    if strange:  # the trees may be shorter than any window or chunk
        return f"it has layers of kind {listed(strange, 3)}"
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            plain, _, _ = target_hidden(module, trees, 0, "rows")
            shared, _, _ = target_hidden(module, trees, 0, "trees")
    except (RuntimeError, TypeError, ValueError) as error:  # NotImplementedError is one
        return first_line(error)
    finally:
        module.train(was_training)
    off = float((plain - shared).abs().max() / plain.abs().max())
    return "" if off <= TOLERANCE[plain.dtype] else f"shared prompts are off by {off:.2g} of the largest hidden value"
