"""How many branches of the parsers some texts take, by coverage.py (extra `fuzz`).

    share, table = measure({"numeric": ["#### 42", ...], ...})

Parsers are what reads text: all of `calculator`, and of `verify` what finds and reads answers. The rest of `verify`
starts processes and imports modules, steered by no text of a model; its files are shown and don't count.
"""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SMALLEST_SHARE = 0.95
NO_PARSERS = ("verify/__init__.py", "verify/custom.py", "verify/killable.py", "verify/worker.py")


def measure(texts: Mapping[str, Iterable[str]]) -> tuple[float, str]:
    """The share of the parsers' branches that the targets' texts take, and a table of all files.

    Best called before anything imported the parsers. An import's own branches (`TYPE_CHECKING`) don't count.
    """
    import coverage

    seen = coverage.Coverage(
        branch=True, data_file=None, config_file=False, source_pkgs=["selftrain.calculator", "selftrain.verify"]
    )
    seen.exclude("if TYPE_CHECKING:")
    seen.start()
    try:
        checks = importlib.import_module("fuzz.targets").CHECKS
        for target, some in texts.items():
            for text in some:
                checks[target](text)
    finally:
        seen.stop()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        seen.json_report(outfile=str(report))
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    return share_and_table({name.split("selftrain/")[-1]: found for name, found in files.items()})


def share_and_table(files: Mapping[str, Any]) -> tuple[float, str]:
    """The same from coverage.py's JSON: file -> {"summary": ..., "missing_branches": [[line, next line], ...]}."""
    lines = [f"{'file':<28} {'branches':>8} {'taken':>6}  not taken (line -> next line)"]
    num_branches = num_taken = 0
    for name, found in sorted(files.items(), key=lambda item: (item[0] in NO_PARSERS, item[0])):
        branches, taken = found["summary"]["num_branches"], found["summary"]["covered_branches"]
        missing = ", ".join(f"{line} -> {following}" for line, following in found.get("missing_branches", ()))
        lines.append(f"{name:<28} {branches:>8} {taken:>6}  {'no parser' if name in NO_PARSERS else missing}".rstrip())
        if name not in NO_PARSERS:
            num_branches, num_taken = num_branches + branches, num_taken + taken
    share = num_taken / num_branches
    lines.append(f"{'parsers':<28} {num_branches:>8} {num_taken:>6}  {share:.1%}")
    return share, "\n".join(lines)
