"""The whole loop on `smoke`: what it hands over, and the proofs that a toy would fail."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.forwards import Tree, target_hidden
from selftrain.models import head_logits, load_model
from selftrain.records import Completion, Example, Pair, read_jsonl
from selftrain.training.losses import token_log_probs
from selftrain.weights import weights_digest

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Fingerprint = Callable[[Path], dict[str, str]]


def manifest(run: Path, stage: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / stage / "manifest.json").read_text())
    return content


def test_a_run_hands_over_model_proof_and_data(smoke: Path) -> None:
    assert {"config.yaml", "run.json", "journal.jsonl", "results.json", "report.html", "model"} <= {
        entry.name for entry in smoke.iterdir()
    }
    assert weights_digest(smoke / "model") == manifest(smoke, "1-iteration/sft")["figures"]["weights"]
    assert not (smoke / "1-iteration/dpo/model").exists(), "weights that nothing needs are released"


def test_every_pseudo_label_names_the_model_that_wrote_it(smoke: Path) -> None:
    dpo = manifest(smoke, "1-iteration/dpo")["figures"]["weights"]
    warm = manifest(smoke, "0-warmup/sft")["figures"]["weights"]
    ours = [e for e in read_jsonl(smoke / "1-iteration/select/examples.jsonl", Example) if e.origin != "gold"]
    plain = read_jsonl(smoke / "baseline-st/1-iteration/select/examples.jsonl", Example)
    assert ours and {example.model for example in ours} == {dpo}
    assert {example.model for example in plain if example.origin != "gold"} <= {warm}
    assert dpo != warm


def test_samples_for_pairs_become_labels_where_asked(
    smoke: Path, tmp_path: Path, cli: Cli, fingerprint: Fingerprint
) -> None:
    """Both models' labels, no draw made twice, and nothing else of the run, nor of its ST baseline, is another."""
    other = tmp_path / "reuse"
    made = cli("run", "smoke", "labels.reuse_samples_for_pairs=true", "baselines=[st]", "--out", str(other))
    assert made.returncode == 0, made.stderr
    pairs, labels = (f"1-iteration/sample-for-{kind}" for kind in ("pairs", "labels"))
    drawn = [
        {(c.problem_id, c.k): c.model for c in read_jsonl(other / kind / "completions.jsonl", Completion)}
        for kind in (pairs, labels)
    ]
    assert {k for _, k in drawn[0]} == {0, 1, 2, 3} and {k for _, k in drawn[1]} == {4, 5, 6, 7}
    examples = read_jsonl(other / "1-iteration/select/examples.jsonl", Example)
    known = {name: set(models.values()) for name, models in zip((pairs, labels), drawn, strict=True)}
    origins = {(e.origin.partition("#")[0], e.model) for e in examples if e.origin != "gold"}
    assert origins == {(name, model) for name, models in known.items() for model in models}
    mine, theirs = fingerprint(other), fingerprint(smoke)
    changed = {name for name in mine if mine[name] != theirs[name]}
    assert {f"{labels}/completions.jsonl", "1-iteration/select/examples.jsonl", "1-iteration/sft"} <= changed
    new = (labels, "1-iteration/select", "1-iteration/sft", "1-iteration/evaluate", "1-iteration/validate", "final/")
    assert not [name for name in changed if not name.startswith(new)]
    assert any(name.startswith("baseline-st/") for name in mine)
    assert "at equal seeds" not in made.stderr + made.stdout and "pass@4" in made.stdout


def test_training_uses_the_stored_ids_of_the_samples(smoke: Path) -> None:
    written = {
        (c.problem_id, f"{c.stage}#{c.k}"): c.token_ids
        for c in read_jsonl(smoke / "1-iteration/sample-for-labels/completions.jsonl", Completion)
    }
    for example in read_jsonl(smoke / "1-iteration/select/examples.jsonl", Example):
        if example.origin != "gold":
            assert written[example.problem_id, example.origin] == example.target_ids
    sampled = {c.token_ids for c in read_jsonl(smoke / "1-iteration/sample-for-pairs/completions.jsonl", Completion)}
    for pair in read_jsonl(smoke / "1-iteration/pair/pairs.jsonl", Pair):
        assert pair.rejected_ids in sampled


def test_an_sft_that_says_from_base_starts_at_base(smoke: Path) -> None:
    """The loss of step 1 in the log is that of the base weights on the rows of step 1, in a plain loop."""
    from selftrain.config import SFTConfig
    from selftrain.recipe import load_config
    from selftrain.seeding import derive_seed
    from selftrain.training.sft import SFTObjective

    base = load_model(smoke / "base", digest="base")
    config: SFTConfig = load_config("smoke").training.sft
    rows = read_jsonl(smoke / "1-iteration/select/examples.jsonl", Example)
    seed = derive_seed(1, "sft", "1-iteration")
    objective = SFTObjective(rows, config, seed=seed, pad_id=base.pad_id, encoder_decoder=False)
    batch = [rows[item] for item in objective.plan.batches[0]]
    total = count = 0.0
    with torch.no_grad():
        for row in batch:
            hidden, labels, _ = target_hidden(base.module, [Tree(row.prompt_ids, [row.target_ids])], base.pad_id)
            total -= float(token_log_probs(head_logits(base.module, hidden), labels).sum())
            count += len(labels)
    logged = json.loads((smoke / "1-iteration/sft/train-log.jsonl").read_text().splitlines()[0])
    assert logged["loss"] == pytest.approx(total / count, rel=1e-4)


def test_matched_sft_takes_as_many_steps_as_the_last_sft(smoke: Path) -> None:
    ours = manifest(smoke, "1-iteration/sft")["figures"]["steps"]
    matched = manifest(smoke, "baseline-sft-matched/sft-matched/sft")["figures"]["steps"]
    assert ours == matched > manifest(smoke, "0-warmup/sft")["figures"]["steps"]


def test_running_it_again_does_nothing(smoke: Path, cli: Cli, fingerprint: Fingerprint) -> None:
    before, card = fingerprint(smoke), (smoke / "model" / "README.md").read_text()
    done = cli("run", "smoke", "baselines=[st, sft-matched]", "--out", str(smoke))
    assert done.returncode == 0 and (smoke / "model" / "README.md").read_text() == card
    starts = (smoke / "journal.jsonl").read_text().count('"stage-start"')
    assert starts == len(list(smoke.rglob("manifest.json")))
    assert fingerprint(smoke) == before


def test_a_changed_sample_changes_the_recomputed_accuracy(smoke: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(smoke, copy)
    file = copy / "1-iteration/evaluate/made-up/completions.jsonl"
    before = json.loads((copy / "results.json").read_text())
    text = file.read_text()
    changed = text.replace('"outcome":"wrong"', '"outcome":"right"', 1)
    assert changed != text
    file.write_text(changed)
    assert cli("report", str(copy)).returncode == 0
    after = json.loads((copy / "results.json").read_text())
    assert before["test_sets"] != after["test_sets"]
    message = "completions.jsonl is gone or is not what was written: do not rely on its figures."
    assert after["warnings"] == [*before["warnings"], {"stage": "1-iteration/evaluate/made-up", "message": message}]


def test_the_t5_recipe_runs_with_the_bracket_writing(tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "t5"
    done = cli("run", "smoke-t5", "--out", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    examples = read_jsonl(out / "1-iteration/select/examples.jsonl", Example)
    completions = read_jsonl(out / "1-iteration/sample-for-labels/completions.jsonl", Completion)
    assert examples and sum(completion.calls for completion in completions) > 0
    assert any("[" in completion.text and "]" in completion.text for completion in completions)


def test_ask_answers_with_the_calculator(smoke: Path, cli: Cli) -> None:
    done = cli("ask", str(smoke / "model"), "Ann has 3 pens and gets 4 more. How many pens now?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and "calculator:" in done.stderr
