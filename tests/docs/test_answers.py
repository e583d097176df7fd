"""The answers page says of every text in its table what the verifier says."""

from __future__ import annotations

import re
from typing import Any

from selftrain.verify.numeric import flexible_answer, strict_answer

KINDS = [
    "plain", "currency", "thousands", "percent", "sign", "decimals", "fraction", "mixed number", "unit",
    "text after the number", "several ####", "no ####", "no number",
]  # fmt: skip


def test_the_table_of_kinds_is_what_the_verifier_makes_of_it(pages: list[Any]) -> None:
    (page,) = (page for page in pages if page.name == "docs/guide/answers.md")
    rows = re.findall(r"^\| ([^|`]+) \| `(.+)` \| (\S+) \| (\S+) \|$", page.text, re.MULTILINE)
    assert [kind for kind, *_ in rows] == KINDS
    for kind, text, *told in rows:
        text = text.replace(r"\n", "\n")
        found = [strict_answer(text), flexible_answer(text)]
        assert [f"`{answer}`" if answer else "none" for answer in found] == told, kind
