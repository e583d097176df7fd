"""What is known of the recipes' models and sets without fetching them: against published sizes and the real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftrain.config import DataSpec
from selftrain.data import load
from selftrain.memory import shape_of
from selftrain.plan import make_plan, plan_text
from selftrain.plan.counts import PIECES
from selftrain.plan.known import Size, _known, known_sets, known_shape
from selftrain.recipe import load_config, recipe_names

PUBLISHED = {  # parameters, as their owners say them; T5's also with a head of its own, which transformers 5 has not
    "google/flan-t5-base": (222_903_552, 247_577_856), "google/flan-t5-large": (750_251_008, 783_150_080),
    "huggyllama/llama-7b": (6_738_415_616,), "meta-llama/Llama-2-7b-hf": (6_738_415_616,),
    "meta-llama/Meta-Llama-3-8B": (8_030_261_248,), "meta-llama/Llama-3.2-1B": (1_235_814_400,),
    "Qwen/Qwen3-0.6B-Base": (596_049_920,), "Qwen/Qwen3-1.7B-Base": (1_720_574_976,),
    "google/gemma-3-1b-pt": (999_885_952,), "smollm2-135m": (134_515_008,),
}  # fmt: skip


@pytest.fixture
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has fetched nothing."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("selftrain.plan.counts.find_local", lambda _: None)


@pytest.mark.parametrize("model", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(model: str) -> None:
    assert shape_of(known_shape(model)).parameters in PUBLISHED[model]


def test_every_model_of_a_recipe_is_known_but_those_made_on_the_spot() -> None:
    models = {load_config(name).model for name in recipe_names()}
    assert models - {"random-llama", "random-t5", "small-t5"} == PUBLISHED.keys() == _known()["models"].keys()
    assert known_shape("no-one/no-such-model") is None


@pytest.mark.usefixtures("nothing_here")
def test_a_recipe_is_planned_without_a_download() -> None:
    plan = make_plan(load_config("gsm8k-qwen3-0.6b"), measure=False)
    work = {stage.name: stage.likely for stage in plan.stages}
    assert work["1-iteration/sample-for-pairs"].samples == 6705 * 5
    assert work["0-warmup/sft"].steps == -(-6705 * 2 // 96)
    assert work["3-iteration/evaluate/multiarith"].samples == 600
    assert all(one.tokens for stage, one in work.items() if stage.endswith(("/sft", "/dpo")))
    flops, needs = plan.flops(), plan.needs
    assert flops is not None and flops.likely > 6 * 596_049_920 * work["0-warmup/sft"].trained_tokens
    assert needs.training and needs.sampling and needs.disk and needs.disk > 4 * 596_049_920
    text = plan_text(plan)
    assert "?" not in text and "shape of Qwen/Qwen3-0.6B-Base that selftrain brings" in text
    assert "sets are those that selftrain brings" in text


@pytest.mark.usefixtures("nothing_here")
def test_what_is_not_known_stays_unknown() -> None:
    plan = make_plan(load_config("gsm8k-qwen3-0.6b", ["model=no-one/no-such-model"]), measure=False)
    assert plan.flops() is None and plan.needs.disk is None and plan.counted
    assert "parameters, FLOPs, time and memory are unknown" in plan_text(plan)


def test_parts_of_sets() -> None:
    def rows(*overrides: str) -> int | None:
        sets = known_sets(load_config("gsm8k-qwen3-0.6b", overrides))
        return None if sets is None else sets.train.rows

    assert rows() == 6705 and rows("data.train.split=train") == rows("data.train.split=null") == 7473
    assert rows("data.train.take=100") == 100 and rows("data.train.skip=6700") == 5
    assert rows("data.train.max_tokens=200") is None and rows("data.train.split=other") is None
    assert rows("data.train.source=hub:some/sums:train") is None
    sets = known_sets(load_config("gsm8k-qwen3-0.6b"))
    assert sets is not None
    assert sets.tests["asdiv"].mean_gold is None and sets.tests["multiarith"].mean_gold == 32
    template = len(PIECES.findall("Question: \nAnswer:"))
    assert sets.longest_prompt == 206 + template and sets.train.prompts[1] == 55 + template


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("gsm8k paper-train", {"source": "gsm8k", "path": "gsm8k/train.jsonl"}),
        ("gsm8k paper-validation", {"source": "gsm8k", "path": "gsm8k/dev.jsonl"}),
        ("svamp", {"source": "svamp", "path": "svamp/SVAMP.json"}),
        ("asdiv with formulas", {"source": "asdiv", "path": "asdiv/ASDiv.xml"}),
        ("asdiv", {"source": "asdiv", "path": "asdiv/ASDiv.xml", "rationales": False}),
    ],
)
def test_sizes_are_those_of_the_real_files(data_dir: Path, name: str, spec: dict[str, Any]) -> None:
    problems = load(DataSpec(**{**spec, "path": str(data_dir / spec["path"])})).problems
    questions = [len(PIECES.findall(problem.question)) for problem in problems]
    golds = [len(PIECES.findall(problem.rationale)) + 1 for problem in problems if problem.rationale]
    size = Size(*_known()["sets"][name])
    assert (size.rows, size.longest) == (len(questions), max(questions))
    assert size.question == pytest.approx(sum(questions) / len(questions), abs=0.051)
    assert size.rationale == pytest.approx(sum(golds) / max(1, len(golds)), abs=0.051)
