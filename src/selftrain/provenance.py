"""Which version and code a run was started with, and what has changed since.

now = {"version": __version__, "code": code_digests()}       # {"sampling/engine.py": "1f3a...", ...}
changes(before, now)                                         # "sampling/engine.py differs, study.py is new"
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.errors import listed

ROOT = Path(__file__).parent
SHOWN = 5  # files named


def code_digests() -> dict[str, str]:
    """The start of the SHA-256 of every source file of this package, by its place in it."""
    files = sorted(path for ending in ("py", "c", "h") for path in ROOT.rglob(f"*.{ending}"))
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in files}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, in words; empty where nothing does.

    >>> changes({"version": "1", "code": {"b.py": "2", "c.py": "3"}}, {"version": "2", "code": {"b.py": "9"}})
    'selftrain 1 there, 2 now: b.py differs, c.py is gone'
    """
    old, new = before["code"], now["code"]
    found = []
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            state = "is new" if name not in old else "is gone" if name not in new else "differs"
            found.append(f"{name} {state}")
    versions = [str(told.get("version")) for told in (before, now)]
    parts = [f"selftrain {versions[0]} there, {versions[1]} now"] if versions[0] != versions[1] else []
    return ": ".join([*parts, *([listed(found, SHOWN)] if found else [])])
