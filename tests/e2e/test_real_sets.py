"""The real files of GSM8K, SVAMP and ASDiv go through a whole tiny run: read, kept apart, learned from, judged, told.

A random model learns nothing from a hundred rows; what counts is that every stage takes them as they are. Needs the
files in $SELFTRAIN_DATA (gsm8k/train.jsonl, gsm8k/dev.jsonl, svamp/SVAMP.json, asdiv/ASDiv.xml), else it is skipped.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain.records import Completion, Example, Pair, Problem, read_jsonl

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
TRAIN, UNLABELLED, VALIDATION, TEST = 32, 16, 16, 40
SETS = {
    "gsm8k": ("gsm8k/train.jsonl", "gsm8k/dev.jsonl"),
    "svamp": ("svamp/SVAMP.json", "svamp/SVAMP.json"),
    "asdiv": ("asdiv/ASDiv.xml", "asdiv/ASDiv.xml"),
}
SMALL = (  # the toy model has 256 positions, and a tokenizer that cuts words into many tokens
    "prompt.max_prompt_tokens=180", "sampling.max_new_tokens=40", "sampling.samples_for_pairs=2",
    "sampling.samples_for_labels=2", "training.sft.epochs=2", "training.dpo.max_steps=2",
    "evaluation.without_calculator_rows=4",
)  # fmt: skip


def spec(source: str, file: Path, skip: int, take: int, *more: str) -> str:
    fits = "max_prompt_tokens: 180, max_tokens: 250, shuffle: 1"
    parts = [f"source: {source}", f"path: '{file}'", fits, f"skip: {skip}", f"take: {take}", *more]
    return "{" + ", ".join(parts) + "}"


@pytest.mark.parametrize("source", SETS)
def test_a_whole_run_on_the_real_file(source: str, data_dir: Path, tmp_path: Path, cli: Cli) -> None:
    learned, tested = (data_dir / name for name in SETS[source])
    if missing := [str(file) for file in dict.fromkeys((learned, tested)) if not file.is_file()]:
        pytest.skip(f"needs the public file of {source}, no part of the repository; not there: {', '.join(missing)}")
    apart = 0 if tested != learned else TRAIN + UNLABELLED + VALIDATION
    done = cli(
        "run", "smoke", *SMALL,
        f"data.train={spec(source, learned, 0, TRAIN)}",
        f"data.unlabelled={spec(source, learned, TRAIN, UNLABELLED, 'rationales: false')}",
        f"data.validation={spec(source, learned, TRAIN + UNLABELLED, VALIDATION)}",
        f"data.test=[{spec(source, tested, apart, TEST)}]",
        "--out", "run", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "run"

    train = read_jsonl(run / "data/train.jsonl", Problem)
    tests = read_jsonl(run / f"data/test-{source}.jsonl", Problem)
    assert (len(train), len(tests)) == (TRAIN, TEST)
    assert all(problem.id.startswith(f"{source}/") for problem in [*train, *tests])
    assert not {problem.question for problem in train} & {problem.question for problem in tests}
    assert all(p.rationale and "<<" in p.rationale and p.rationale.endswith(f"#### {p.answer}") for p in train)

    pairs = read_jsonl(run / "1-iteration/pair/pairs.jsonl", Pair)
    assert pairs and {pair.problem_id.split("/")[0] for pair in pairs} == {source}
    gold = [e for e in read_jsonl(run / "1-iteration/select/examples.jsonl", Example) if e.origin == "gold"]
    assert len(gold) == TRAIN
    judged = read_jsonl(run / f"1-iteration/evaluate/{source}/completions.jsonl", Completion)
    assert len(judged) == TEST and all(completion.strict is not None for completion in judged)

    results = json.loads((run / "results.json").read_text())
    assert results["run"]["finished"] and results["headline"]["delivered"]["rows"] == TEST
    assert (run / "report.html").is_file() and (run / "model/model.safetensors").is_file()
