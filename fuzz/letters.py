"""A tokenizer that takes the longest token it knows, for what is told apart by tokens: the calculator's automaton.

    tokenizer = Letters(["<<", "=4"])       # ASCII's letters and signs besides
    tokenizer.encode("<<7=4")               # three ids

It stands where transformers' tokenizers stand (`encode`, `decode`, `batch_decode`, `get_vocab`), without transformers.
What has no token is read as one that decodes to U+FFFD, as a byte of a longer character does.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import Any

END, UNKNOWN = 0, 1
LETTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


class Letters:
    """All of `LETTERS`, and `tokens` made up of them. Id 0 ends a text and has none itself."""

    all_special_ids = (END,)
    eos_token_id = END
    bos_token_id = None
    unk_token_id = UNKNOWN

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._texts = ["", "\ufffd", *dict.fromkeys([*LETTERS, *tokens])]
        self._ids = {text: token for token, text in enumerate(self._texts) if token > UNKNOWN}
        self._longest = max(map(len, self._ids))
        self.added_tokens_decoder: dict[int, Any] = {}

    def get_vocab(self) -> dict[str, int]:
        """Every token that has a text."""
        return dict(self._ids)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """The longest known token at each place."""
        ids = []
        position = 0
        while position < len(text):
            sizes = range(min(self._longest, len(text) - position), 0, -1)
            found = next((part for size in sizes if (part := text[position : position + size]) in self._ids), None)
            ids.append(UNKNOWN if found is None else self._ids[found])
            position += len(found or " ")
        return ids

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """The tokens' texts, joined."""
        return "".join(self._texts[token] for token in ids)

    def batch_decode(self, rows: Iterable[Sequence[int]], **_: Any) -> list[str]:
        """`decode` of each row."""
        return [self.decode(row) for row in rows]
