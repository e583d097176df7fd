"""Texts of a target: files in a folder for the fuzzer, a list in tests/golden/fuzz/TARGET.json to keep.

    lay_out("numeric", folder)                       # what is kept, and the seeds, as a fuzzer's corpus
    keep("numeric", minimised(check, texts_in(folder)))

A fuzzer's bytes are read as UTF-8; a byte that is none becomes half of a character pair, so that every file is a text,
a hostile one too, and every such text is the same bytes again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from fuzz.seeds import SEEDS

KEPT = Path(__file__).parents[1] / "tests" / "golden" / "fuzz"
MAX_KEPT_CHARS = 2000
TRACED = ("selftrain/calculator/", "selftrain/verify/", "selftrain/prompts.py", "selftrain/data/reading.py")

Branch = tuple[CodeType, int, int]


def as_text(content: bytes) -> str:
    """The text of a fuzzer's bytes."""
    return content.decode("utf-8", "surrogateescape")


def as_bytes(text: str) -> bytes:
    """The bytes that `as_text` reads as this text; half of a character pair that stands for no byte becomes three."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def kept(target: str) -> list[str]:
    """The texts in the repository."""
    path = KEPT / f"{target}.json"
    texts: list[str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return texts


def keep(target: str, texts: Iterable[str]) -> None:
    """Write the texts into the repository, a line each."""
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{target}.json").write_text(json.dumps(list(texts), indent=0) + "\n", encoding="utf-8")


def lay_out(target: str, folder: Path) -> None:
    """Put kept texts and seeds into the fuzzer's folder; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for text in (*kept(target), *SEEDS[target]):
        content = as_bytes(text)
        (folder / hashlib.sha1(content, usedforsecurity=False).hexdigest()).write_bytes(content)


def texts_in(folder: Path) -> list[str]:
    """The texts of a fuzzer's folder, the shortest first."""
    texts = {as_text(path.read_bytes()) for path in folder.iterdir() if path.is_file()}
    return sorted(texts, key=lambda text: (len(text), text))


def minimised(check: Callable[[str], None], texts: Iterable[str]) -> list[str]:
    """Those of the texts that take a branch which none before them took."""
    taken: set[Branch] = set()
    chosen = []
    for text in texts:
        found = branches_of(check, text) if len(text) <= MAX_KEPT_CHARS else set()
        if not found <= taken:
            taken |= found
            chosen.append(text)
    return chosen


def branches_of(check: Callable[[str], None], text: str) -> set[Branch]:
    """(code, line, next line) of every step that the parsers take for a text; 0 is a function's begin."""
    taken: set[Branch] = set()

    def entered(frame: FrameType, event: str, argument: Any) -> Any:
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        before = 0

        def stepped(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                taken.add((frame.f_code, before, frame.f_lineno))
                before = frame.f_lineno
            return stepped

        return stepped

    traced = sys.gettrace()
    sys.settrace(entered)
    try:
        check(text)
    finally:
        sys.settrace(traced)
    return taken
