"""Which tokens decoding stops at, by hand, and where a vocabulary offers none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from selftrain.calculator.forcing import ForcingTables, build_tables
from selftrain.calculator.stops import equals_stands_alone, stop_token_ids

CHARS = list("0123456789+-*/().,%=<>[] a\n")


class LongestFirst:
    """Encodes with the longest piece at each place."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces

    def encode(self, text: str) -> tuple[int, ...]:
        ids = []
        while text:
            token = max((t for t, p in enumerate(self.pieces) if p and text.startswith(p)), key=self._size)
            ids.append(token)
            text = text[len(self.pieces[token]) :]
        return tuple(ids)

    def _size(self, token: int) -> int:
        return len(self.pieces[token])


def tables(extra: Sequence[str], style: str = "angle") -> ForcingTables:
    pieces = (*CHARS, *extra)
    encoder: Any = LongestFirst(pieces)
    return ForcingTables(style, pieces, np.array(["<" in piece for piece in pieces]), encoder)  # type: ignore[arg-type]


def stops(extra: Sequence[str], style: str = "angle") -> set[str]:
    known = tables(extra, style)
    return {known.pieces[token] for token in stop_token_ids(known)}


MERGED = ["=4", ")=", "))=", "%=", ")%=", "=>>", "==", "=-", " =", " )=", "(=", "2=", "a=", "", ") =", "=\n"]


def test_tokens_that_begin_with_equals() -> None:
    assert stops(MERGED) == {"=", "=4", ")=", "))=", "%=", ")%=", "=>>", "==", "=-", "=\n"}


def test_a_space_before_it_counts_in_the_bracket_writing_only() -> None:
    assert stops(MERGED, "bracket") == stops(MERGED) | {" =", " )="}


def test_ids_ascend() -> None:
    ids = stop_token_ids(tables(MERGED))
    assert list(ids) == sorted(set(ids))


@pytest.mark.parametrize("style", ["angle", "bracket"])
@pytest.mark.parametrize(
    ("extra", "alone"),
    [
        ([], True),
        ([")=", "%=", "=4", "<<", "12", ">>", " ="], True),
        (["2="], False),
        (["0=", "a="], False),
        (["20%="], False),
    ],
)
def test_where_equals_stands_alone(extra: Sequence[str], alone: bool, style: str) -> None:
    spaced = [re.sub("=", " =", piece) for piece in extra] if style == "bracket" and not alone else extra
    assert equals_stands_alone(tables(spaced, style)) is alone


def test_a_real_tokenizer() -> None:
    from selftrain.toy import _llama_tokenizer

    known = build_tables(_llama_tokenizer(), "angle")
    found = {known.pieces[token] for token in stop_token_ids(known)}
    assert "=" in found
    assert found == {piece for piece in known.pieces if piece.lstrip(")%").startswith("=")}
    assert equals_stands_alone(known)
