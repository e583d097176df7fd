"""The paper's numbers in its five recipes; every recipe's sources of its values, and how it is sharded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from selftrain.identity import flattened
from selftrain.recipe import load_config, recipe_names, recipe_text, yaml_tree
from selftrain.training.batches import group_batches
from selftrain.training.sharding import check_sharding

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{question}\n\n### Response:"
)
OPTIMISER: dict[str, tuple[Any, Any]] = {
    "batch_size": (96, 128),
    "warmup_fraction": (0.1, 0.03),
    "final_lr_fraction": (0.1, 0.1),
    "weight_decay": (0.01, 0.01),
    "max_grad_norm": (1.0, 1.0),
    "forced_tokens": (True, True),
}
PAPER: dict[str, tuple[Any, Any]] = {  # Flan-T5, Llama; sources: docs/paper.md
    "method": ("dpo-st", "dpo-st"),
    "data.over_limit": ("drop", "drop"),
    "data.train.split": ("paper-train", "paper-train"),
    "data.validation.split": ("paper-validation", "paper-validation"),
    "prompt.template": ("{question}", ALPACA),
    "prompt.annotation": ("auto", "auto"),
    "prompt.max_prompt_tokens": (200, 256),
    "sampling.temperature": (0.7, 0.7),
    "sampling.top_k": (50, 50),
    "sampling.top_p": (1.0, 1.0),
    "sampling.max_new_tokens": (300, 300),
    "sampling.samples_for_pairs": (5, 5),
    "sampling.samples_for_labels": (3, 10),
    "sampling.calculator": (True, True),
    **{f"training.{kind}.{name}": values for kind in ("sft", "dpo") for name, values in OPTIMISER.items()},
    "training.sft.learning_rate": (3e-4, 2e-5),
    "training.sft.epochs": (8, 2),
    "training.sft.dropout": (None, 0.1),  # as in T5's config; Llama's attention
    "training.dpo.learning_rate": (7e-7, 3e-7),
    "training.dpo.max_steps": (150, 100),
    "training.dpo.beta": (0.1, 0.1),
    "training.dpo.loss": ("dpo", "dpo"),
    "training.dpo.length_normalised": (False, False),
    "training.dpo.nll_alpha": (0.0, 0.0),
    "training.max_target_tokens": (300, 384),
    "training.lora.rank": (0, 0),
    "pairs.per_question": (3, 3),
    "pairs.duplicate_similarity": (0.7, 0.7),
    "pairs.similarity_on": ("tokens", "tokens"),
    "pairs.gold_winner": ("always", "always"),
    "pairs.shuffle_seed": (0, 0),
    "pairs.pool": ("all", "all"),
    "labels.duplicate_similarity": (0.7, 0.7),
    "labels.similarity_on": ("tokens", "tokens"),
    "labels.cap_percentile": (90.0, 90.0),
    "labels.gold_first": (True, True),
    "labels.pool": ("all", "all"),
    "schedule.iterations": (3, 3),
    "schedule.start_from": ("base", "base"),
    "schedule.reference": ("sft", "sft"),
    "compute.precision": ("bf16", "bf16"),
}
OURS = {"prompt.bos": (None, False), "guard.enabled": (True, True)}  # deviations that are to be seen; None: not said
MODELS = {
    "gsm8k-flan-t5-base": "google/flan-t5-base",
    "gsm8k-flan-t5-large": "google/flan-t5-large",
    "gsm8k-llama-1-7b": "huggyllama/llama-7b",
    "gsm8k-llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "gsm8k-llama-3-8b": "meta-llama/Meta-Llama-3-8B",
}
SOURCE = re.compile(r"\s# .*\b(paper|ours)\b")


@pytest.mark.parametrize("name", MODELS)
def test_a_recipe_of_the_paper_holds_its_numbers_and_writes_them_down(name: str) -> None:
    family = 0 if "t5" in name else 1
    loaded = dict(flattened(load_config(name).model_dump()))
    written = dict(flattened(yaml_tree(recipe_text(name), name)))
    expected = {field: values[family] for field, values in PAPER.items()} | {"model": MODELS[name]}
    assert {field: loaded[field] for field in expected} == expected
    assert [field for field in expected if field not in written] == []
    for field, values in OURS.items():
        assert written.get(field) == values[family]
    assert loaded["prompt.spacing"] == ("plain" if family else "operators")
    sets = [(spec.label, spec.split) for spec in load_config(name).data.test]
    assert sets == [("gsm8k", "test"), ("multiarith", None), ("asdiv", None), ("svamp", None)]
    assert load_config(name).data.unlabelled is None, "U is L's questions"


@pytest.mark.parametrize("name", MODELS)
def test_steps_alone_end_the_papers_dpo(name: str) -> None:
    dpo = load_config(name).training.dpo
    for questions in (1, 40, 20_000):
        batches = group_batches([3] * questions, dpo.batch_size, dpo.max_epochs, dpo.max_steps, 0)
        assert len(batches) == dpo.max_steps


def test_top_k_is_the_papers_alone() -> None:
    assert {name: load_config(name).sampling.top_k for name in recipe_names()} == {
        name: 50 if name in MODELS else 0 for name in recipe_names()
    }


def lines_of(text: str) -> Iterator[tuple[str, list[int]]]:
    """Each leaf value of a YAML text by its dotted field, with its line and those of the headings above it."""

    def walk(node: yaml.Node, field: str, above: list[int]) -> Iterator[tuple[str, list[int]]]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield from walk(value, f"{field}.{key.value}".lstrip("."), [*above, key.start_mark.line])
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                yield from walk(value, f"{field}.{number}", above)
        else:
            yield field, [*above, node.start_mark.line]

    root = yaml.compose(text)
    assert root is not None
    yield from walk(root, "", [])


def without_source(text: str) -> list[str]:
    """Fields for which neither their line nor a heading above names a source; name and description have none."""
    lines = text.split("\n")
    return [
        field
        for field, places in lines_of(text)
        if field not in ("name", "description") and not any(SOURCE.search(lines[place]) for place in places)
    ]


@pytest.mark.parametrize("name", recipe_names())
def test_every_value_has_its_source_in_a_comment(name: str) -> None:
    assert without_source(recipe_text(name)) == []


def test_a_value_without_a_source_is_found() -> None:
    text = "data:  # ours\n  a: {b: 1}\n  c:\n    - {d: 2}\nx:\n  y: 1  # paper\n  z: '# ours'\n  w: [1, 2]  # fast\n"
    assert without_source(text) == ["x.z", "x.w.0", "x.w.1"]


@pytest.mark.parametrize("name", [name for name in recipe_names() if "/" in load_config(name).model])
def test_a_recipe_untested_on_weights_names_its_fsdp2_settings(name: str) -> None:
    (line,) = re.findall(r"^# FSDP2.*$", recipe_text(name), re.MULTILINE)
    launched = re.search(rf"torchrun --nproc-per-node (\d+) -m selftrain run {re.escape(name)}((?: \S+=\S+)*)$", line)
    assert launched is not None
    training = load_config(name, launched[2].split()).training
    check_sharding(training, int(launched[1]))
    assert training.sharded != bool(training.lora.rank), "adapters are not sharded, all else is"
