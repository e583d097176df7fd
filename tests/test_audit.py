"""An audit counts only if the known-bad control is reported; pip-audit itself is not asked here."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import audit

FLAW = {"id": "PYSEC-2019-217", "aliases": ["CVE-2019-10906"], "fix_versions": ["2.10.1"]}
BAD = {"name": "jinja2", "version": "2.10", "vulns": [FLAW]}
GOOD = {"name": "numpy", "version": "2.4.0", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "not there"}
LOCK = Path("constraints.txt")


def answers(control: list[dict[str, Any]], locked: list[dict[str, Any]]) -> audit.Ask:
    def ask(requirements: Path) -> list[dict[str, Any]]:
        if requirements == LOCK:
            return locked
        assert requirements.read_text(encoding="utf-8") == "jinja2==2.10\n"
        return control

    return ask


def test_clean_pins_count_since_the_control_was_reported() -> None:
    code, text = audit.audit(LOCK, answers([BAD], [GOOD, UNKNOWN]))
    assert code == 0
    assert "the control, jinja2==2.10, was reported; 1 packages of constraints.txt audited, 0 vulnerabilities" in text
    assert text.endswith("not known to the service: torch")


def test_a_vulnerable_pin_is_named_and_fails() -> None:
    code, text = audit.audit(LOCK, answers([BAD], [GOOD, BAD]))
    assert code == 1
    assert "jinja2 2.10: PYSEC-2019-217, CVE-2019-10906; mended in 2.10.1" in text


def test_without_the_control_nothing_is_said_of_the_pins() -> None:
    code, text = audit.audit(LOCK, answers([{**BAD, "vulns": []}], [GOOD]))
    assert (code, text) == (0, "audit: not run (the control, jinja2==2.10, was not reported)")


def test_a_control_that_the_service_does_not_know_is_said() -> None:
    code, text = audit.audit(LOCK, answers([{"name": "jinja2", "skip_reason": "not there"}], [GOOD]))
    assert (code, text) == (0, "audit: not run (the control, jinja2==2.10, was not reported: not there)")


def test_a_service_that_cannot_be_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no connection\n")

    monkeypatch.setattr(subprocess, "run", unreachable)
    assert audit.audit(LOCK, audit.pip_audit) == (0, "audit: not run (pip-audit ended with 1: ERROR: no connection)")


def test_a_service_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 600)

    monkeypatch.setattr(subprocess, "run", late)
    assert audit.audit(LOCK, audit.pip_audit) == (0, "audit: not run (no answer within 600 s)")


def test_what_pip_audit_prints_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-1] == "constraints.txt" and "--disable-pip" in command
        return subprocess.CompletedProcess(command, 1, '{"dependencies": [{"name": "numpy"}], "fixes": []}', "")

    monkeypatch.setattr(subprocess, "run", answer)
    assert audit.pip_audit(LOCK) == [{"name": "numpy"}]
