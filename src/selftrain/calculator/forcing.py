"""Batch decoding with a calculator: after `<<48/2=` a row's next tokens are those of `24` and `>>`.

    tables = build_tables(tokenizer, "angle")      # once a tokenizer
    forcer, state = Forcer(tables), Forcer.start() # one state a row
    for every token that the row samples:
        if tables.interesting[token] or state.is_open:
            step = forcer.feed(state, token)
            if step is not None:                   # write step.replace instead of the token (None: the token
                ...                                # itself), then step.forced; feed neither of them

The automaton reads characters, so it doesn't matter how a tokenizer merges `<<`, digits, `=` and `>>`. A sampled
token that runs past `=` (`=4`, `=>>`) is cut back to end there. After `step.forced` the row is outside again and the
model's own logits count. Work is O(1) a token: nothing is decoded, and most tokens are passed over by one look
at `interesting` (the paper's code decodes every row at every step).

An annotation is left without a call at a closing or at a line's end. One whose expression can't be computed, or is
longer than `MAX_CHARS` characters, is counted (`uncalculated`) and left to the model.

Leaves out: special tokens (they have no text here), and characters that byte tokens only make together (each
byte reads as U+FFFD, which no expression holds).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.calculator.annotation import Style, value_of
from selftrain.calculator.expression import MAX_CHARS, canonical

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENING: dict[Style, str] = {"angle": "<", "bracket": "["}
EXTRA_IDS = 1024  # embeddings are often padded beyond the tokenizer (T5: 28 ids, Phi: 905); such ids have no text
CACHED_TEXTS, CACHED_CHARS = 8192, 64
_ANCHORS = ("1", "=", "a", ")")


@dataclasses.dataclass(frozen=True, eq=False)
class ForcingTables:
    """What the automaton knows of a tokenizer. V ids: the tokenizer's, and `EXTRA_IDS` more without text."""

    style: Style
    pieces: tuple[str, ...]  # [V] text that each id adds to a text before it
    interesting: NDArray[np.bool_]  # [V] ids whose text may open an annotation
    encoder: MidTextEncoder

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids that add `text` to a text before it: no special tokens, no space put in front."""
        return self.encoder.encode(text)

    @functools.cached_property
    def closing(self) -> tuple[int, ...]:
        """Ids of what closes an annotation: `>>` or ` ]`."""
        return self.encode(">>" if self.style == "angle" else " ]")

    def result(self, text: str) -> tuple[int, ...]:
        """Ids of a result as it stands after the `=`: `24` or ` 24`."""
        return self.encode(text if self.style == "angle" else f" {text}")


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What to write for a sampled token that reached the `=`.

    `replace` stands for the token when it ran past the `=` (None: write the token itself), `forced` comes after it.
    """

    replace: tuple[int, ...] | None
    forced: tuple[int, ...]


@dataclasses.dataclass(slots=True)
class RowState:
    """Where one row stands; changed by `Forcer.feed`. `calls` and `uncalculated` count annotations."""

    expression: str | None = None  # since the opening; None outside
    after_angle: bool = False  # the last character was `<`
    calls: int = 0
    uncalculated: int = 0

    @property
    def is_open(self) -> bool:
        """Whether any next token matters, interesting or not."""
        return self.expression is not None or self.after_angle


class Forcer:
    """The automaton. It holds no state of its own: one serves every row."""

    def __init__(self, tables: ForcingTables) -> None:
        self.tables = tables
        self._pieces = tables.pieces
        self._is_angle = tables.style == "angle"
        self._result = functools.lru_cache(maxsize=CACHED_TEXTS)(self._compute)  # samples of a question share many

    @staticmethod
    def start() -> RowState:
        """The state of a row that has written nothing."""
        return RowState()

    def feed(self, state: RowState, token_id: int) -> Step | None:
        """Read one sampled token; a `Step` when its text reached the `=` of an expression that can be computed."""
        piece = self._pieces[token_id] if token_id < len(self._pieces) else ""
        for index, char in enumerate(piece):
            if char == "=" and state.expression is not None:
                forced = self._call(state)
                if forced is not None:
                    kept = piece[: index + 1]
                    return Step(None if kept == piece else self.tables.encode(kept), forced)
            elif self._is_angle:
                _read_angle(state, char)
            else:
                _read_bracket(state, char)
        return None

    def _call(self, state: RowState) -> tuple[int, ...] | None:
        """Compute and leave the annotation; None where there is nothing to force."""
        result = self._result(state.expression or "")
        state.expression, state.after_angle = None, False
        if result is None:
            state.uncalculated += 1
        else:
            state.calls += 1
        return result

    def _compute(self, expression: str) -> tuple[int, ...] | None:
        value = value_of(expression)
        return None if value is None else self.tables.result(canonical(value)) + self.tables.closing


def forced_spans(tables: ForcingTables, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where a completion's tokens are the calculator's: (start, end) of each run, from the ids alone.

    The same automaton reads the ids as it would have while decoding; a run that the completion breaks off, or that is
    not what the calculator writes, counts as far as it agrees. Gold rationales are read the same way.
    """
    forcer, state = Forcer(tables), Forcer.start()
    spans: list[tuple[int, int]] = []
    place = 0
    while place < len(ids):
        step = forcer.feed(state, ids[place])
        place += 1
        if step is None:
            continue
        start = place
        for token in step.forced:
            if place == len(ids) or ids[place] != token:
                break
            place += 1
        if place > start:
            spans.append((start, place))
    return spans


def _read_angle(state: RowState, char: str) -> None:
    if char == "<" and state.after_angle:
        state.expression = ""
        return
    closes = char == ">" and state.expression is not None and state.expression.endswith(">")
    state.after_angle = char == "<"
    _collect(state, char, closes)


def _read_bracket(state: RowState, char: str) -> None:
    if char == "[":
        state.expression = ""
        return
    _collect(state, char, char == "]")


def _collect(state: RowState, char: str, closes: bool) -> None:
    if state.expression is None:
        return
    if closes or char == "\n":
        state.expression = None
    elif len(state.expression) >= MAX_CHARS:
        state.expression = None
        state.uncalculated += 1
    else:
        state.expression += char


class MidTextEncoder:
    """Text -> ids as they stand in the middle of a text, for any tokenizer.

    Tokenizers treat the start of a text apart (a metaspace before it, special tokens around it), so a text is
    encoded behind an anchor whose own ids are then taken off. An anchor counts only where its ids stay what they
    are alone, and is preferred where the rest decodes to the text. Where every anchor merges with the text, the text
    is put together from the longest pieces of the vocabulary.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._anchors = [(anchor, _encode(tokenizer, anchor)) for anchor in _ANCHORS]
        self._cached = functools.lru_cache(maxsize=CACHED_TEXTS)(self._encode)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids that add `text`; the same text always gives the same ids."""
        return self._cached(text) if len(text) <= CACHED_CHARS else self._encode(text)

    def _encode(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        fallback: tuple[int, ...] | None = None
        is_digit = text[0].isdigit()
        for anchor, anchor_ids in sorted(self._anchors, key=lambda pair: pair[0].isdigit() == is_digit):
            ids = _encode(self._tokenizer, anchor + text)
            size = len(anchor_ids)
            if ids[:size] != anchor_ids or len(ids) == size:
                continue
            if self._adds(ids[size:], text):
                return ids[size:]
            fallback = fallback or ids[size:]  # the tokenizer normalises or doesn't know some of the text
        return fallback or self._assembled(text) or _encode(self._tokenizer, text)

    def _adds(self, ids: Sequence[int], text: str) -> bool:
        """Whether these ids, after others, decode to `text`."""
        added = "".join(self._pieces[token] for token in ids)
        if added == text:
            return True
        anchor_ids = self._anchors[0][1]
        whole = _decode(self._tokenizer, [[*anchor_ids, *ids], [*anchor_ids]])
        return whole[0] == whole[1] + text

    def _assembled(self, text: str) -> tuple[int, ...]:
        """The longest pieces that make up `text`, left to right; empty where a character has none."""
        ids: list[int] = []
        position = 0
        while position < len(text):
            for size in range(min(self._longest, len(text) - position), 0, -1):
                token = self._by_piece.get(text[position : position + size])
                if token is not None:
                    ids.append(token)
                    position += size
                    break
            else:
                return ()
        return tuple(ids)

    @functools.cached_property
    def _by_piece(self) -> dict[str, int]:
        known: dict[str, int] = {}
        for token, piece in enumerate(self._pieces):
            if piece and "\ufffd" not in piece:
                known.setdefault(piece, token)
        return known

    @functools.cached_property
    def _longest(self) -> int:
        return min(max(map(len, self._by_piece), default=0), CACHED_CHARS)


def build_tables(tokenizer: PreTrainedTokenizerBase, style: Style) -> ForcingTables:
    """The tables of a tokenizer: byte-level, metaspace, byte-fallback or character-level alike.

    The text of an id is what it adds after an anchor, as the tokenizer itself decodes it. About a second for
    100,000 ids.
    """
    pieces = tuple(_pieces(tokenizer)) + ("",) * EXTRA_IDS
    opening = OPENING[style]
    interesting = np.array([opening in piece for piece in pieces], dtype=np.bool_)
    interesting.setflags(write=False)
    return ForcingTables(style, pieces, interesting, MidTextEncoder(tokenizer, pieces))


def _pieces(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    special = set(tokenizer.all_special_ids)
    special |= {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    anchor = list(_encode(tokenizer, "a") or _encode(tokenizer, "1"))
    texts = _decode(tokenizer, [anchor, *([*anchor, token] for token in range(size))])
    start = texts[0]
    return [
        "" if token in special or not text.startswith(start) else text[len(start) :]
        for token, text in enumerate(texts[1:])
    ]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _decode(tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> list[str]:
    return list(tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False))
