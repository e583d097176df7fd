"""The card of a delivered model: all that it says, from a run made by hand, and that nothing in it becomes markup."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from selftrain.card import write_settings
from selftrain.config import RunConfig
from selftrain.data.licences import LICENCES, licence_of
from selftrain.identity import identity
from selftrain.push import SMALL_FILES
from selftrain.report.card import card_text, write_card
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.stagefolder import digest_of


def results_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """The results of a run, as if its configuration had said something else."""
    results = collect(RunFiles(folder))
    results["run"]["config"] |= changes
    return results


def card_of(folder: Path, **changes: Any) -> str:
    return card_text(results_of(folder, **changes), "f" * 64, "angle", encoder_decoder=False)


def front_matter(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_figures_are_those_of_the_results(finished: Path) -> None:
    results = collect(RunFiles(finished))
    card = card_of(finished)
    rows = [line for line in card.splitlines() if line.startswith("| first |")]
    assert [row.split(" | ")[1] for row in rows] == [
        "base model, zero-shot", "warm-up (SFT on labelled)", "DPO sampler, iteration 1", "iteration 1, delivered",
    ]  # fmt: skip
    assert rows[-1] == "| first | iteration 1, delivered | 90.0 | 69.9 to 97.2 (95 %) | 20 |"  # Wilson of 18 of 20
    assert "| second | iteration 1, delivered | 75.0 |" in card
    assert results["headline"]["sentence"] in card
    assert "the same 4 problems: 100.0 % with the calculator, 50.0 % without" in card
    assert "had not come to its end" not in card


def test_lineage_names_weights_data_and_configuration(finished: Path) -> None:
    card, run = card_of(finished), RunFiles(finished)
    for what, digest in (
        ("weights of the base model", "b" * 64), ("weights of this model", "f" * 64),
        ("configuration", digest_of(identity(run.config))),
    ):  # fmt: skip
        assert f"| {what} | `{digest}` |" in card
    assert f"| train | trained on | a file | 3 | yours, not known | `{'e' * 64}` |" in card
    assert f"| 1-iteration/dpo | `{'d' * 16}` | `{'c' * 16}` |" in card
    assert f"1-iteration/select: 3 pseudo-labels written by `{'d' * 16}` (1-iteration/dpo)" in card


def test_every_source_has_its_licence(finished: Path) -> None:
    results = results_of(finished)
    row = results["data"]["train"]
    results["data"] = {name: {**row, "source": name} for name in LICENCES} | {
        "gym": {**row, "source": "reasoning_gym:gsm_symbolic"}, "theirs": {**row, "source": "hub:some/sums:train"},
    }  # fmt: skip
    card = card_text(results, "f" * 64, "angle", encoder_decoder=False)
    for name, licence in (
        ("gsm8k", "MIT"), ("svamp", "MIT"), ("asdiv", "CC BY-NC 4.0 (not for commercial use)"),
        ("multiarith", "not stated"), ("reasoning_gym:gsm_symbolic", "Apache-2.0"),
        ("hub:some/sums:train", "yours, not known"),
    ):  # fmt: skip
        assert f"| {name} | 3 | {licence} |" in card
        assert licence_of(name) == licence


def test_samples_made_elsewhere_and_an_own_warm_up_are_named(taught: Path) -> None:
    card = card_of(taught, warmup_model="someone/sft")
    assert f"| answers made elsewhere | trained on | a file | 5 | yours, not known | `{'9' * 64}` |" in card
    assert "come from random-llama and someone/sft:\nits licence applies to this model too." in card
    assert "teacher" not in card


def test_only_files_that_travel_are_named(finished: Path) -> None:
    card = card_of(finished)
    named = set(re.findall(r"[\w-]+\.(?:json|html|jsonl|yaml|md|csv)\b", card)) - {"problems.jsonl"}  # the reader's own
    assert named <= SMALL_FILES and not named & {"results.json", "report.html"}
    assert str(finished.parent) not in card


def test_a_local_base_is_named_by_its_folder_alone(finished: Path, tmp_path: Path) -> None:
    base = tmp_path / "my-base"
    base.mkdir()
    for model in (str(base), str(tmp_path / "gone" / "my-base")):
        card = card_of(finished, model=model)
        assert "from my-base, method" in card and str(tmp_path) not in card and "base_model" not in front_matter(card)


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("google/flan-t5-base", "google/flan-t5-base"), ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("random-llama", None), ("a/b\nlicense: mit", None), ("a/b'\"", None),
    ],
)  # fmt: skip
def test_front_matter_holds_a_hub_name_or_nothing_of_the_configuration(
    finished: Path, model: str, base: str | None
) -> None:
    found = front_matter(card_of(finished, model=model))
    assert found.pop("base_model", None) == base
    assert found == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["selftrain", "math", "calculator"],
    }  # fmt: skip


def test_nothing_of_a_configuration_or_a_file_becomes_markup(hostile_run: Path, hostile_text: str) -> None:
    results = collect(RunFiles(hostile_run))
    evil = f"file|`x`\n---\n# {hostile_text}[a](http://b.example)"
    template = f"{{question}}\n```\n---\n# {hostile_text}\r# x"
    results["run"]["config"]["prompt"]["template"] = template
    results["data"]["train"]["source"] = evil
    results["data"][evil] = results["data"]["train"]
    for row in results["test_sets"]:
        row["name"] = evil
    results["headline"]["sentence"] = evil
    lines = card_text(results, "f" * 64, "angle", encoder_decoder=False).splitlines()
    assert lines.count("---") == 2 and [line for line in lines if line.startswith("```")] == ["```python", "```"]
    assert [line for line in lines if line.startswith("#")] == [
        "# tiny", "## How to run it", "## How good it is", "## Data and licences", "## Lineage",
    ]  # fmt: skip
    shown = [line for line in lines if not line.startswith("    ")]  # the template stands in a block of code
    text = "\n".join(shown)
    for part in ("<script", "<img", "<!--", "</pre", "[a](", "\x1b", "\u202e", "\x00"):
        assert part not in text
    assert len([line for line in lines if "window.pwned" in line]) > 5, "it is shown, not left out"
    data_rows = [line for line in lines if line.startswith("| ") and f" | `{'e' * 64}" in line]
    assert data_rows and all(line.count("|") == 7 for line in data_rows)


def test_a_run_that_was_cut_off_says_so(make_until: Callable[[str], Path]) -> None:
    card = card_of(make_until("1-iteration/dpo"))
    assert "had not come to its end" in card and "| first | warm-up (SFT on labelled) | 25.0 |" in card


def test_an_encoder_decoder_is_run_as_one(finished: Path) -> None:
    card = card_text(results_of(finished), "f" * 64, "bracket", encoder_decoder=True)
    assert "AutoModelForSeq2SeqLM" in card and "prompt_tokens=1," in card and "`[ 6 * 7 = 42 ]`" in card
    assert front_matter(card)["pipeline_tag"] == "text2text-generation"
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


def test_writing_is_idempotent_and_leaves_a_linked_file_alone(finished: Path, tmp_path: Path) -> None:
    model, theirs, results = tmp_path / "model", tmp_path / "theirs.md", collect(RunFiles(finished))
    model.mkdir()
    write_card(model, results)
    assert not list(model.iterdir()), "no delivered model is there"
    (model / "config.json").write_text('{"model_type": "llama"}')
    write_settings(model, RunConfig.model_validate(results["run"]["config"]), "bracket")
    theirs.write_text("theirs")
    (model / "README.md").hardlink_to(theirs)  # a delivered model's files are links where the disk has them
    write_card(model, results)
    first = (model / "README.md").read_bytes()
    write_card(model, results)
    assert (model / "README.md").read_bytes() == first and theirs.read_text() == "theirs"
    assert b"`[ 6 * 7 = 42 ]`" in first and b"f" * 64 in first
    results["run"]["delivered"] = None
    write_card(model, results, "a" * 64)
    assert b"a" * 64 in (model / "README.md").read_bytes()
