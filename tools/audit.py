"""`python -m tools.audit constraints.txt`: known vulnerabilities of what is pinned, by pip-audit (extra `lock`).

A clean audit says something only if a bad package is reported: one that is known to be bad (`CONTROL`) is asked for
first. Where it is not reported, or the service cannot be reached, the answer is "audit: not run" with the reason, and
exit code 0. Exit code 1: something pinned is vulnerable. Packages that the service does not know are named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTROL = "jinja2==2.10"  # CVE-2019-10906 among others
LIMIT_S = 600
REASON_CHARS = 300

Ask = Callable[[Path], list[dict[str, Any]]]


class NotRunError(Exception):
    """No answer came from the service; says why."""


def main(arguments: list[str]) -> int:
    """Print what was found; the exit code."""
    code, text = audit(Path(arguments[0]), pip_audit)
    print(text)
    return code


def audit(requirements: Path, ask: Ask) -> tuple[int, str]:
    """(exit code, what to print) for a file of pins; `ask` gives what pip-audit's JSON says of each package."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            control = Path(folder) / "control.txt"
            control.write_text(f"{CONTROL}\n", encoding="utf-8")
            reported = ask(control)
            if not vulnerable(reported):
                why = "".join(f": {package['skip_reason']}" for package in reported if "skip_reason" in package)
                return 0, f"audit: not run (the control, {CONTROL}, was not reported{why})"
        packages = ask(requirements)
    except NotRunError as error:
        return 0, f"audit: not run ({error})"
    found = vulnerable(packages)
    unknown = [str(package["name"]) for package in packages if "skip_reason" in package]
    num_known = len(packages) - len(unknown)
    lines = [
        f"audit: the control, {CONTROL}, was reported; "
        f"{num_known} packages of {requirements} audited, {len(found)} vulnerabilities",
        *found,
    ]
    if unknown:
        lines.append(f"not known to the service: {', '.join(unknown)}")
    return int(bool(found)), "\n".join(lines)


def vulnerable(packages: list[dict[str, Any]]) -> list[str]:
    """A line for each vulnerability: package, version, its names, the versions that mend it."""
    return [
        f"{package['name']} {package['version']}: {', '.join([flaw['id'], *flaw.get('aliases', [])])}; "
        f"mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]


def pip_audit(requirements: Path) -> list[dict[str, Any]]:
    """What pip-audit says of each pinned package, itself resolving and installing nothing.

    Raises:
        NotRunError: it is missing, ended without an answer, or took too long.
    """
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--aliases", "on", "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"no answer within {LIMIT_S} s") from error
    except (ValueError, KeyError, TypeError) as error:
        said = " ".join(done.stderr.split())[-REASON_CHARS:]
        raise NotRunError(f"pip-audit ended with {done.returncode}: {said or 'nothing said'}") from error
    return packages


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
