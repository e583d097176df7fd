"""Plain lines: what a log file of a run says."""

from __future__ import annotations

import pytest

from selftrain import terminal
from selftrain.terminal import Live, Plain, make_progress


def test_a_stage_begins_reports_and_ends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    progress = Plain()
    progress.begin("1-iteration/dpo", 20, "steps")
    for _ in range(8):
        now[0] += 4.0
        progress.advance(1, "loss 0.6")
    progress.end("20 steps")
    captured = capsys.readouterr()
    assert captured.out == "", "stdout is for data"
    assert captured.err.splitlines() == [
        "1-iteration/dpo: 20 steps",
        "  1-iteration/dpo: 4/20 steps, 0.25/s, 64 s left loss 0.6",
        "  1-iteration/dpo: 8/20 steps, 0.25/s, 48 s left loss 0.6",
        "  1-iteration/dpo: 20 steps, 32 s",
    ]


def test_a_skipped_stage_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Plain()
    progress.begin("data")
    progress.end(skipped=True)
    assert "data: already done" in capsys.readouterr().err


def test_the_live_view_takes_the_same_calls(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Live()
    progress.say("[not markup] <b>")
    progress.begin("sft", 2, "steps")
    progress.advance(1, "loss 1.0")
    progress.end("2 steps")
    err = capsys.readouterr().err
    assert "[not markup] <b>" in err and "sft" in err and "2 steps" in err


def test_lines_where_there_is_no_terminal() -> None:
    assert isinstance(make_progress(), Plain)


def test_what_steers_a_terminal_and_what_is_secret_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    Plain().say("from https://me:pass@host/x with hf_" + "a" * 30 + " and 0123456789abcdef\nis \x1b[31mred, false")
    assert (
        capsys.readouterr().err
        == "from https://***@host/x with *** and ***\nis \N{REPLACEMENT CHARACTER}[31mred, false\n"
    )
