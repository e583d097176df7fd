"""Which code a run was started with, and what has changed since.

code = code_digests()                 # {"sampling/engine.py": "1f3a...", ...}
changes(before, code)                 # "sampling/engine.py differs, study.py is new"
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from selftrain.errors import listed

ROOT = Path(__file__).parent
SHOWN = 5  # files named


def code_digests() -> dict[str, str]:
    """The start of the SHA-256 of every source file of this package, by its place in it."""
    files = sorted(path for ending in ("py", "c", "h") for path in ROOT.rglob(f"*.{ending}"))
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words; empty where nothing does.

    >>> changes({"a.py": "1", "b.py": "2", "c.py": "3"}, {"a.py": "1", "b.py": "9", "d.py": "4"})
    'b.py differs, c.py is gone, d.py is new'
    """
    found = []
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            state = "is new" if name not in before else "is gone" if name not in now else "differs"
            found.append(f"{name} {state}")
    return listed(found, SHOWN)
