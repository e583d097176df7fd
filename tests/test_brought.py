"""Samples made elsewhere: matched, tokenised by the codec, judged, and in the end among pairs and pseudo-labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selftrain.errors import DataError
from selftrain.judged import COMPLETIONS, is_right
from selftrain.models import load_tokenizer
from selftrain.progress import Silent
from selftrain.prompts import Codec
from selftrain.recipe import load_config
from selftrain.records import Completion, Example, Pair, Problem, read_jsonl
from selftrain.rundir import Figures
from selftrain.stagefolder import file_digest
from selftrain.stages.brought import run_brought
from selftrain.stages.pair import run_pair
from selftrain.stages.select import run_select
from selftrain.toy import make_toy

CONFIG = load_config("smoke")
QUESTIONS = [
    Problem("mine/1", "6 boxes of 7 pens?", "42", "6*7=<<6*7=42>>42\n#### 42"),
    Problem("mine/2", "Tom has 5 pens and buys 4.", "9"),
    Problem("mine/3", "8 minus 2?", "6"),
]


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Codec]:
    made = {}
    for name in ("random-llama", "random-t5"):
        folder = tmp_path_factory.mktemp(name)
        make_toy(name, folder)
        made[name] = Codec.build(load_tokenizer(folder), CONFIG.prompt, name == "random-t5")
    return made


def brought(folder: Path, codec: Codec, *rows: Any) -> tuple[Figures, list[Completion]]:
    file = folder / "teacher.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = run_brought(folder / "samples", file, QUESTIONS, codec=codec, progress=Silent())
    return figures, read_jsonl(folder / "samples" / COMPLETIONS, Completion)


def test_rows_match_by_id_or_by_question(tmp_path: Path, codecs: Mapping[str, Codec]) -> None:
    figures, found = brought(
        tmp_path, codecs["random-llama"],
        {"id": "mine/2", "text": "5+4=<<5+4=9>>9\n#### 9", "score": 0.5},
        {"question": "6 boxes  of 7 PENS?", "text": "#### 41"},
        {"problem_id": "mine/2", "text": "I don't know."},
        {"id": "q7", "question": "8 minus 2?", "text": "#### 6"},
        {"id": "of another set", "text": "#### 3"},
    )  # fmt: skip
    assert [(c.problem_id, c.k, is_right(c)) for c in found] == [
        ("mine/1", 0, False), ("mine/2", 0, True), ("mine/2", 1, False), ("mine/3", 0, True),
    ]  # fmt: skip
    assert {(c.stage, c.model) for c in found} == {("samples", file_digest(tmp_path / "teacher.jsonl"))}
    counted = {name: figures[name] for name in ("rows", "matched", "unmatched", "questions", "right", "unparsed")}
    assert counted == {"rows": 5, "matched": 4, "unmatched": 1, "questions": 3, "right": 2, "unparsed": 1}
    assert figures["warnings"] == []


@pytest.mark.parametrize(
    ("name", "text", "written"),
    [
        ("random-llama", "5+4=<<5+4=9>>9\n#### 9", "5+4=<<5+4=9>>9\n#### 9"),
        ("random-llama", "5+4=9\n#### 9", "5+4=<<5+4=9>>9\n#### 9"),
        ("random-llama", "5+4= [ 5 + 4 = 9 ] 9\n#### 9", "5+4= <<5+4=9>>9\n#### 9"),
        ("random-t5", "5+4=9\n#### 9", "5+4= [ 5 + 4 = 9 ] 9. #### 9."),
    ],
)
def test_texts_are_tokenised_as_gold_rationales_are(
    tmp_path: Path, codecs: Mapping[str, Codec], name: str, text: str, written: str
) -> None:
    codec = codecs[name]
    _, (found,) = brought(tmp_path, codec, {"id": "mine/2", "text": text})
    assert found.token_ids == codec.target("5+4=<<5+4=9>>9\n#### 9" if "= [" not in text else "5+4= <<5+4=9>>9\n#### 9")
    assert found.text == codec.text(found.token_ids) == written
    assert is_right(found) and found.stop == "eos" and found.forced == ()


def test_they_end_among_pairs_and_pseudo_labels(tmp_path: Path, codecs: Mapping[str, Codec]) -> None:
    codec = codecs["random-llama"]
    brought(
        tmp_path, codec,
        {"id": "mine/2", "k": 3, "text": "5+4=<<5+4=9>>9 pens.\n#### 9"},
        {"id": "mine/2", "k": 5, "text": "5-4=<<5-4=1>>1 is what is left of them\n#### 1"},
    )  # fmt: skip
    pool = [tmp_path / "samples" / COMPLETIONS]
    made: dict[str, Any] = {"config": CONFIG, "codec": codec, "progress": Silent()}
    run_pair(tmp_path / "pair", "1-iteration/pair", QUESTIONS, pool, **made)
    (pair,) = read_jsonl(tmp_path / "pair/pairs.jsonl", Pair)
    assert (pair.problem_id, pair.chosen_from, pair.rejected_from) == ("mine/2", "samples#3", "samples#5")
    figures = run_select(tmp_path / "select", "1-iteration/select", QUESTIONS[:1], QUESTIONS, pool, **made)
    gold, label = read_jsonl(tmp_path / "select/examples.jsonl", Example)
    digest = file_digest(tmp_path / "teacher.jsonl")
    assert (gold.origin, label.origin, label.model) == ("gold", "samples#3", digest)
    assert label.target_ids == pair.chosen_ids and figures["by_model"] == {digest: 1}
    assert (figures["over_limit"], figures["over_limit_first"]) == (0, [])

    training = CONFIG.training.model_copy(update={"max_target_tokens": len(label.target_ids) - 1})
    made["config"] = CONFIG.model_copy(update={"training": training})
    short = run_pair(tmp_path / "short-pair", "1-iteration/pair", QUESTIONS, pool, **made)
    assert (short["pairs"], short["over_limit"], short["over_limit_first"]) == (0, 1, ["mine/2"])
    short = run_select(tmp_path / "short", "1-iteration/select", QUESTIONS[:1], QUESTIONS, pool, **made)
    assert short["pseudo_labels"] == 0 and "mine/2" in short["over_limit_first"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"id": "1", "text": "#### 9"}],
            r"none of its 1 rows .* ids there: 1; ids of the run: mine/1, mine/2, mine/3",
        ),
        ([{"text": "#### 9"}], "line 1: expected an 'id' or a 'question', got text"),
        ([{"id": "mine/1", "text": " "}], "line 1: expected a text in 'text', got an empty text"),
        ([{"id": "mine/1", "k": 0, "text": "a"}] * 2, r"line 2: expected a k .* got 0 \(as .*, line 1\)"),
        ([{"id": "mine/1", "k": "1" * 5000, "text": "a"}], r"line 1: expected a k .* got '1{39}\."),
        ([{"x" * 900_000: 1, "y": 2}], "line 1: expected an 'id' or a 'question', got x{80}, y"),
        ([{"id": "mine/1", "k": -1, "text": "a"}], "line 1: expected a k that no other row of mine/1 has, got -1"),
    ],
)
def test_rows_of_no_use_are_refused(tmp_path: Path, codecs: Mapping[str, Codec], rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        brought(tmp_path, codecs["random-llama"], *rows)


def test_texts_without_an_answer_line_are_warned_of(tmp_path: Path, codecs: Mapping[str, Codec]) -> None:
    figures, _ = brought(tmp_path, codecs["random-llama"], {"id": "mine/1", "text": "The answer is 42."})
    assert figures["warnings"] == [
        "1 of 1 samples from teacher.jsonl do not end in a line '#### ANSWER' and count as wrong."
    ]
