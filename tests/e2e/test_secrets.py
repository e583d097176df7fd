"""No secret in logs, configurations or reports: planted ones are looked for in all that a run says and writes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain import api
from selftrain.errors import ConfigError
from selftrain.recipe import load_config

TOKEN, KEY, PASSWORD = "hf_" + "planted" * 4, "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "pass-w0rd-planted"
PLANTED = {"HF_TOKEN": TOKEN, "WANDB_API_KEY": KEY, "PIP_INDEX_URL": f"https://me:{PASSWORD}@127.0.0.1:9/simple"}
SHORT = ("method=sft", "training.sft.max_steps=2", "data.validation=null", "evaluation.without_calculator_rows=0")


def files_with(folder: Path, words: str) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)) for path in files if words.encode() in path.read_bytes()}


def test_a_run_says_and_writes_no_secret(
    tmp_path: Path, cli: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    run = tmp_path / "run"
    done = cli("run", "smoke", *SHORT, "description=words-to-be-found", "--out", str(run))
    assert done.returncode == 0, done.stderr[-3000:]
    assert files_with(run, "words-to-be-found") >= {"config.yaml", "results.json", "report.html"}
    for secret in (TOKEN, KEY, PASSWORD):
        assert secret not in done.stdout + done.stderr
        assert files_with(run, secret) == set()


@pytest.mark.parametrize("secret", [TOKEN, KEY, PASSWORD])
def test_an_error_that_names_a_secret_does_not_show_it(
    secret: str, cli: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    done = cli("run", f"https://me:{secret}@127.0.0.1/recipe")
    assert done.returncode == 2 and "***@127.0.0.1/recipe" in done.stderr
    assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("description", f"made with {TOKEN}"),
        ("description", f"key {KEY}."),
        ("description", f"from {PLANTED['PIP_INDEX_URL']}"),
        ("sampling.vllm.hf_token", TOKEN),
    ],
)
def test_a_configuration_that_holds_a_secret_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    for name, secret in PLANTED.items():
        monkeypatch.setenv(name, secret)
    with pytest.raises(ConfigError, match=f"^{field} holds a password, a token") as caught:
        api.run("smoke", [f"{field}={value}"], out=tmp_path / "run")
    assert not any(secret in str(caught.value) for secret in (TOKEN, KEY, PASSWORD))
    assert not (tmp_path / "run").exists()


def test_only_what_is_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("TOKENIZER_FOLDER", "random-llama")
    api.check_secrets(load_config("smoke", [f"description=a checksum, {KEY}"]))
