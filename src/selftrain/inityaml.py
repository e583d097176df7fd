"""The YAML that `selftrain init` writes: every value with its reason, as ASCII, for a person to change.

    text = recipe_yaml(facts)      # config_from(yaml.safe_load(text)) is the run

Names of files and columns are quoted as YAML's double-quoted scalars with everything else than ASCII escaped, so that
no name can break the file. Comments hold such names in the same form only.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import yaml

from selftrain.config import DataConfig, DataSpec
from selftrain.data.assemble import Assembled
from selftrain.lengths import Lengths, prompt_config
from selftrain.toy import NAMES as TOYS
from selftrain.weights import SMOLLM2

QUICKSTART_STEPS = 24  # of quickstart's warm-up: 64 rows, 3 times, 8 at once
AS_ASDIV = 256  # rows with rationales from which on sizes and rules are asdiv-smollm2's, which has 300
WITHOUT_CALCULATOR = 100
MICRO_BATCH_TOKENS = 1024
AUTO_RATE = "auto: 1e-4 over DPO's steps, with a cap by the model's size"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the YAML is written from: names, sets as asked for and as found, reasons."""

    name: str
    data: str
    model: str
    sets: DataConfig
    found: Assembled
    reason: str
    lengths: Lengths
    encoder_decoder: bool


def quoted(text: str) -> str:
    """A text as a double-quoted YAML scalar on one line, in ASCII.

    >>> quoted('my "own"\\nfile'), quoted("é")
    ('"my \\\\"own\\\\"\\\\nfile"', '"\\\\xE9"')
    """
    return yaml.safe_dump(text, default_style='"', width=math.inf).strip()


def recipe_yaml(facts: Facts) -> str:
    """The whole file."""
    sets, found, lengths = facts.sets, facts.found, facts.lengths
    test = sets.test[0]
    num_test, num_train, num_more = len(found.tests[test.label]), len(found.train), len(found.unlabelled)
    template = prompt_config(facts.encoder_decoder).template
    more = (
        [
            f"  # {num_more} more questions with answers: sampled from, never imitated.",
            f"  unlabelled: {_spec(sets.unlabelled)}",
        ]
        if sets.unlabelled is not None
        else ["  # unlabelled: none; further questions with answers alone would go here"]
    )
    over = (
        [f"  over_limit: drop  # {len(lengths.over)} rows are longer than the limits below: left out and counted"]
        if lengths.over
        else []
    )
    lines = [
        f"# Made by `selftrain init` from {quoted(facts.data)}. Change what you like; every field with its range:",
        "# src/selftrain/config, other runs to copy from: selftrain recipes show NAME.",
        f"name: {quoted(facts.name)}  # the run goes to runs/NAME",
        f"model: {quoted(facts.model)}  # a built-in, a hub name or a local folder",
        "method: dpo-st  # sft: the warm-up alone; st: self-training without DPO",
        "seed: 0",
        "data:",
        "  # Relative paths start at the folder that `selftrain run` is started in.",
        f"  # verify: {_ascii(facts.reason)}.",
        "  # All sets take from one order of the rows (shuffle): the test its first ones, the others what comes after",
        "  # (skip). No question of one set is in another.",
        f"  # {num_test} rows judge and are read by no decision: a fifth, at most 300.",
        "  test:",
        f"    - {_spec(test)}",
        f"  # {num_train} rows with worked rationales: all that are left. A smaller take makes a first try shorter.",
        f"  train: {_spec(sets.train)}",
        *more,
        *over,
        "prompt:",
        f"  template: {quoted(template)}  # must hold {{question}}; the same in training and sampling",
        f"  max_prompt_tokens: {lengths.max_prompt}  # prompts and targets: {_ascii(lengths.reason)} tokens",
        "sampling:",
        "  temperature: 0.7  # paper",
        f"  max_new_tokens: {lengths.max_target}  # the longest target and a quarter: a model's own may be longer",
        *_samples(facts.model),
        "training:",
        *_training(facts.model, num_train),
        f"  max_target_tokens: {lengths.max_target}  # as max_new_tokens",
        f"  micro_batch_tokens: {max(MICRO_BATCH_TOKENS, lengths.max_prompt + lengths.max_target)}  # speed and memory",
        *_rules(facts.model, num_train),
        "schedule: {iterations: 1}  # paper's code: 3; each takes about as long as the first",
        f"evaluation: {{without_calculator_rows: {min(num_test, WITHOUT_CALCULATOR)}}}  # test rows asked twice",
        *(["compute: {min_free_disk_gb: 0.1}  # a random model is small"] if facts.model in TOYS else []),
    ]
    return "\n".join(lines) + "\n"


def _samples(model: str) -> list[str]:
    if model in TOYS:
        return ["  samples_for_pairs: 4  # as smoke", "  samples_for_labels: 4  # as smoke"]
    return ["  samples_for_pairs: 3  # paper: 5; as quickstart", "  samples_for_labels: 3  # paper"]


def _training(model: str, num_train: int) -> list[str]:
    """Rates and sizes: smoke's for random models, else quickstart's or asdiv-smollm2's, by the number of rows."""
    if model in TOYS:
        return [
            "  # as smoke: a random model learns next to nothing, whatever the rates",
            "  sft: {learning_rate: 5.0e-3, batch_size: 16, epochs: 16}",
            "  dpo: {learning_rate: 2.0e-4, batch_size: 16, beta: 0.3, max_steps: 8}",
        ]
    lines = []
    if model != SMOLLM2:
        lines.append(
            "  # SFT's rate is for 135 M parameters: larger models want a lower one (selftrain recipes: gsm8k-...)."
        )
    if num_train >= AS_ASDIV:
        return [
            *lines,
            f"  # sizes as asdiv-smollm2, which has 300 rows; {AUTO_RATE}",
            "  sft: {learning_rate: 2.0e-4, batch_size: 16, epochs: 2}",
            "  dpo: {learning_rate: auto, batch_size: 8, beta: 0.3, max_steps: 30}",
        ]
    epochs = min(8, max(3, math.ceil(QUICKSTART_STEPS * 8 / num_train)))
    why = "as quickstart" if epochs == 3 else "as quickstart, with more epochs for fewer rows"
    return [
        *lines,
        f"  # {why}; {AUTO_RATE}",
        f"  sft: {{learning_rate: 3.0e-4, batch_size: 8, epochs: {epochs}}}",
        "  dpo: {learning_rate: auto, batch_size: 4, beta: 0.3, max_steps: 20}",
    ]


def _rules(model: str, num_train: int) -> list[str]:
    """What makes pairs and labels: asdiv-smollm2's rules, found on its own rows, where its sizes are taken too."""
    if model in TOYS or num_train < AS_ASDIV:
        return []
    return [
        "pairs: {gold_winner: never}  # as asdiv-smollm2, where gold winners made worse samplers; paper's code: always",
        "labels: {reuse_samples_for_pairs: true}  # as asdiv-smollm2; paper: no",
    ]


def _spec(spec: DataSpec) -> str:
    """A set as a flow mapping: what differs from the defaults, and the verifier."""
    values = {"source": spec.source, **spec.model_dump(exclude_defaults=True), "verify": spec.verify}
    return _flow(values)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(value) if isinstance(value, str) else str(value)


def _ascii(text: str) -> str:
    """A comment's text: one line of ASCII."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()
