"""A run with `prompt.chat_template`: SFT, DPO, sampling, evaluation and `ask` put the same ids before the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from selftrain import workbench
from selftrain.api import run
from selftrain.card import read_settings
from selftrain.errors import ConfigError
from selftrain.export import export
from selftrain.records import Example, Problem, read_jsonl
from selftrain.report.files import RunFiles
from selftrain.sampling.base import Request
from selftrain.sampling.engine import Engine
from selftrain.toy import make_toy
from selftrain.training.dpo import group_pairs
from selftrain.use import open_model

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)
SMALL = (
    "data.train.params.size=12", "data.unlabelled.params.size=8", "data.validation.params.size=4",
    "data.test.0.params.size=6", "prompt.template='{question}'", "prompt.separator=''", "sampling.max_new_tokens=16",
    "sampling.samples_for_pairs=2", "sampling.samples_for_labels=2", "training.sft.epochs=1",
    "training.dpo.max_steps=1", "evaluation.without_calculator_rows=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose tokenizer brings a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "base"
    make_toy("random-llama", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def test_all_stages_and_the_delivered_model_share_the_chats_prompts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[tuple[str, tuple[int, ...]]] = []
    compared: list[tuple[int, ...]] = []
    generate = Engine.generate

    def seen(self: Engine, requests: Sequence[Request], *others: Any, **named: Any) -> Any:
        sampled.extend((request.problem_id, request.prompt_ids) for request in requests)
        return generate(self, requests, *others, **named)

    def grouped(pairs: Any, prompts: dict[str, tuple[int, ...]], *others: Any) -> Any:
        compared.extend(prompts.values())
        return group_pairs(pairs, prompts, *others)

    monkeypatch.setattr(Engine, "generate", seen)
    monkeypatch.setattr(workbench, "group_pairs", grouped)
    out = tmp_path / "run"
    run("smoke", [f"model={base}", "prompt.chat_template=model", *SMALL], out=out)

    tokenizer = AutoTokenizer.from_pretrained(base)

    def expected(question: str) -> tuple[int, ...]:
        turns = [{"role": "user", "content": question}]
        return tuple(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    files = RunFiles(out)
    learned = [problem for name in ("train", "unlabelled") for problem in files.problems(name)]
    asked = [*learned, *files.problems("validation"), *files.problems("test-made-up")]
    prompts = {problem.id: expected(problem.question) for problem in asked}
    assert {name for name, _ in sampled} == prompts.keys(), "base, sampling, validation and evaluation"
    assert all(ids == prompts[name] for name, ids in sampled)
    for stage in ("0-warmup/select", "1-iteration/select"):
        examples = read_jsonl(out / stage / "examples.jsonl", Example)
        assert examples and all(example.prompt_ids == prompts[example.problem_id] for example in examples)
    assert compared == [prompts[problem.id] for problem in learned], "DPO"

    sampled.clear()
    assert read_settings(out / "model")[0].chat_template == "model"
    tutor = open_model(str(out / "model"))
    tutor.evaluate([Problem("q", "3 pens and 4 more?", "7")])
    assert sampled == [("q", expected("3 pens and 4 more?"))]
    texts = export(out, "sft", "trl").rows
    assert texts[0].prompt == f"<user> {learned[0].question}\n<bot> "
    turns = export(out, "sft", "messages").rows
    assert turns[0].messages[0] == {"role": "user", "content": learned[0].question}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "every model is asked through the run's chat template" in page.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("model", "chat", "said"),
    [
        ("random-llama", "model", "has no chat template"),
        ("random-llama", "'{{ messages | nothing }}'", "cannot be carried out .*nothing"),
        ("random-llama", "modle", "must be null, model, or a Jinja template"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path, model: str, chat: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run("smoke", [f"model={model}", f"prompt.chat_template={chat}"], out=tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()
