"""What the doctor says, in a healthy and in a poor environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from selftrain import doctor, hardware, model_hub, weights


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("SELFTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_hub, "list_files", lambda repo: [])


def checks(data_dir: Path | None = None, online: bool = False) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.collect(data_dir, online=online)}


def test_everything_is_looked_at(tmp_path: Path) -> None:
    found = checks(tmp_path, online=True)
    assert set(found) == {
        "python", "selftrain", "torch", "libraries", "device", "cpu", "kernels", "memory", "disk", "reasoning-gym",
        "datasets", "math-verify", "peft", "vllm", "smollm2-135m", "model hub", "data",
    }  # fmt: skip
    for name in ("python", "selftrain", "torch", "libraries", "device", "model hub"):
        assert found[name].ok is True, name
        assert found[name].hint is None, name


def test_what_is_missing_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = checks()
    assert (found["torch"].ok, found["torch"].hint) == (False, "pip install torch")
    assert found["device"].ok is False
    assert found["libraries"].hint == "pip install transformers accelerate safetensors gguf"
    assert found["reasoning-gym"].ok is None
    assert "selftrain[gym]" in (found["reasoning-gym"].hint or "")
    assert "C compiler" in (found["reasoning-gym"].hint or "")


def test_a_silent_hub_is_told_and_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(repo: str) -> list[str]:
        raise model_hub.HubError("the hub gives no answer within 3 seconds")

    monkeypatch.setattr(model_hub, "list_files", silent)
    assert checks(online=True)["model hub"].detail == "the hub gives no answer within 3 seconds"
    assert checks(online=True)["model hub"].ok is None


def test_the_hub_is_asked_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_hub, "list_files", lambda repo: pytest.fail("the hub was asked"))
    assert checks()["model hub"].ok is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checks(online=True)["model hub"].detail == "not asked (offline)"


def test_weights_on_this_machine(tmp_path: Path) -> None:
    assert checks()["smollm2-135m"].ok is None
    folder = tmp_path / "cache" / "models" / "smollm2-135m-q4_1"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    assert weights.find_local("smollm2-135m") == folder
    assert checks()["smollm2-135m"].ok is True


@pytest.mark.parametrize(("free_bytes", "ok"), [(1e9, False), (1e11, True)])
def test_disk(free_bytes: float, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "free_disk_bytes", lambda place: int(free_bytes))
    assert checks()["disk"].ok is ok


def test_data_folder(tmp_path: Path) -> None:
    assert checks(tmp_path / "none")["data"].ok is False
    (tmp_path / "gsm8k").mkdir()
    assert checks(tmp_path)["data"].ok is True
    assert "gsm8k" in checks(tmp_path)["data"].detail
