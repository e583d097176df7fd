"""The calculator for transformers' own `generate`, where the decode engine is not what you want.

    from transformers import AutoModelForCausalLM, AutoTokenizer
    from selftrain import CalculatorLogitsProcessor

    inputs = tokenizer(prompts, return_tensors="pt", padding=True)            # on the left
    calculator = CalculatorLogitsProcessor(tokenizer, prompt_tokens=inputs.input_ids.shape[1])
    model.generate(**inputs, logits_processor=[calculator])

One object a call of `generate`; greedy or sampled, any batch, several samples a prompt; of an encoder-decoder
`prompt_tokens=1`, its start token. It reads each new token once and decodes nothing (the paper's processor decodes
every row at every step), and costs a step a forced token, which the engine does not.

Departs from the engine in one thing: a token that runs past the `=` (`=4`) cannot be cut back once it is drawn, so
before that its probability is given to the token that ends at the `=`. Leaves out beams, whose rows change places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from selftrain.calculator.annotation import Style
from selftrain.calculator.forcing import Forcer, ForcingTables, RowState, build_tables
from selftrain.prompts import annotation_style

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class CalculatorLogitsProcessor(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Forces the result of `<<48/2=` (or ` [ 48 / 2 = `) as the next tokens of its row.

    Args:
        tokenizer: the model's.
        prompt_tokens: columns of `input_ids` that are not the model's own: the padded prompt's.
        style: how annotations are written; "auto" as the vocabulary can.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt_tokens: int, style: Style | Literal["auto"] = "auto"
    ) -> None:
        self.tables = build_tables(tokenizer, annotation_style(tokenizer) if style == "auto" else style)
        self.prompt_tokens = prompt_tokens
        self._forcer = Forcer(self.tables)
        self._overrunning = _overrunning(self.tables)
        self._rows: list[_Row] = []

    @property
    def calls(self) -> int:
        """Results written so far, in all rows."""
        return sum(row.state.calls for row in self._rows)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """See transformers: input_ids [B, T], scores [B, V]; scores are changed in place."""
        written = input_ids[:, self.prompt_tokens :].tolist()
        if not self._rows:
            self._rows = [_Row() for _ in written]
        if len(written) != len(self._rows):
            raise ValueError(
                f"expected {len(self._rows)} rows as before, got {len(written)}; one object a call, no beams"
            )
        for row, ids, row_scores in zip(self._rows, written, scores, strict=True):
            self._read(row, ids)
            if row.forced:
                token = row.forced[0]
                row_scores.fill_(float("-inf"))
                row_scores[token] = 0.0
            elif row.state.expression is not None:
                self._keep_to_the_sign(row_scores)
        return scores

    def _read(self, row: _Row, ids: Sequence[int]) -> None:
        """Feed a row's new tokens to the automaton, but for those that it forced itself."""
        for token in ids[row.num_read :]:
            if row.forced and token == row.forced[0]:
                row.forced.popleft()
                continue
            row.forced.clear()  # something else was put there: a row that has ended is filled up
            if self.tables.interesting[token] or row.state.is_open:
                step = self._forcer.feed(row.state, token)
                if step is not None and step.replace is None:
                    row.forced.extend(step.forced)
                elif step is not None:  # it ran past the sign, and could not be kept from it
                    row.state.calls -= 1
                    row.state.uncalculated += 1
        row.num_read = len(ids)

    def _keep_to_the_sign(self, scores: Tensor) -> None:
        """Give the probability of each token that runs past an `=` to the one that ends there."""
        for token, ending in self._overrunning:
            if token < len(scores):
                scores[ending] = torch.logaddexp(scores[ending], scores[token])
                scores[token] = float("-inf")


class _Row:
    """Where one row stands."""

    def __init__(self) -> None:
        self.state = RowState()
        self.forced: deque[int] = deque()
        self.num_read = 0


def _overrunning(tables: ForcingTables) -> list[tuple[int, int]]:
    """Tokens with text behind their first `=`, each with the token that ends at it.

    A token whose text up to the `=` is no single token is left as it is: what it writes counts as uncalculated.
    """
    found = []
    for token, piece in enumerate(tables.pieces):
        kept, sign, rest = piece.partition("=")
        if sign and rest:
            ids = tables.encode(kept + sign)
            if len(ids) == 1 and tables.pieces[ids[0]] == kept + sign:
                found.append((token, ids[0]))
    return found
