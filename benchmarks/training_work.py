"""What is trained: the pairs and examples that a run made, cut to a fixed number of optimiser steps.

    tasks = tasks_of(run, model, budget_tokens=10_000, say=say)
    objective = objective_of(tasks["dpo"], pad_id=0, layout="trees")    # as the run itself made it
    rival_rows(objective)                                               # the same steps as rows for a rival

dpo     the run's pairs, in the batches of its DPO stage
single  the first pair of each question alone, batched likewise
sft     the run's examples, in the batches of its last SFT stage

The first step is a warm-up and not timed. A task travels as a JSON file of token ids; results hold its digest and
counts, never a text.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.work import WARM_UP, Portable, Say
from selftrain.config import DPOConfig, RunConfig, SFTConfig
from selftrain.errors import DataError, RunError
from selftrain.forwards import Layout, Tree
from selftrain.models import config_is_encoder_decoder, load_tokenizer
from selftrain.prompts import Codec
from selftrain.recipe import load_config
from selftrain.records import Example, Pair, from_dict, read_jsonl
from selftrain.seeding import derive_seed
from selftrain.stages.data import load_sets
from selftrain.stages.pair import PAIRS
from selftrain.stages.select import read_examples
from selftrain.training.dpo import DPOObjective, Question, group_pairs
from selftrain.training.sft import SFTObjective
from selftrain.weights import weights_digest

AT = "1-iteration"
FORWARD_FLOPS, TRAIN_FLOPS = 2, 6  # a parameter and token: without and with gradient
Row = dict[str, list[int]]  # a pair: prompt_ids, chosen_ids, rejected_ids; an example: input_ids, labels
OwnObjective = DPOObjective | SFTObjective


@dataclasses.dataclass(frozen=True)
class TrainingTask(Portable):
    """What is trained; `settings` are the run's DPOConfig or SFTConfig, `max_steps` those of this task."""

    questions: tuple[Question, ...]  # of DPO
    examples: tuple[Example, ...]  # of SFT
    settings: dict[str, Any]
    seed: int
    micro_batch_tokens: int
    encoder_decoder: bool
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What results say of the task; no paths."""
        objective = objective_of(self, 0, "trees")
        return {
            "fingerprint": self.fingerprint(),
            "weights": self.digest,
            "steps": objective.plan.num_steps - 1,
            **dataclasses.asdict(amount_of(objective)),
            "batch_size": self.settings["batch_size"],
            "micro_batch_tokens": self.micro_batch_tokens,
            "notes": list(self.notes),
        }


@dataclasses.dataclass(frozen=True)
class Amount:
    """What the timed steps hold: `tokens` are distinct and no padding, a prompt counted once a question.

    Of these `fed_tokens` go through the layers (a completion's last is predicted and never fed), and `head_tokens`
    through the head.
    """

    questions: int
    pairs: int
    completions: int
    tokens: int
    head_tokens: int

    @property
    def fed_tokens(self) -> int:
        """Through the layers."""
        return self.tokens - self.completions

    def flops(self, body: int, head: int, reference: bool) -> int:
        """6 N a token, the head's share only where it is computed; 2 N more for a reference pass.

        Args:
            body: parameters of the layers, without embedding and head; head: the head's.
        """
        return (TRAIN_FLOPS + FORWARD_FLOPS * reference) * (body * self.fed_tokens + head * self.head_tokens)


def load_training_task(path: Path) -> TrainingTask:
    """The task that `save` wrote."""
    row = json.loads(path.read_text(encoding="utf-8"))
    questions = tuple(_question(question) for question in row["questions"])
    examples = tuple(from_dict(Example, example) for example in row["examples"])
    return TrainingTask(**{**row, "questions": questions, "examples": examples, "notes": tuple(row["notes"])})


def _question(row: dict[str, Any]) -> Question:
    completions = tuple(tuple(ids) for ids in row["completions"])
    pairs = tuple((winner, loser, weight) for winner, loser, weight in row["pairs"])
    return Question(row["problem_id"], tuple(row["prompt_ids"]), completions, pairs)


def objective_of(
    task: TrainingTask, pad_id: int, layout: Layout, dpo: type[DPOObjective] = DPOObjective
) -> OwnObjective:
    """The objective that the run's own stage makes, with the task's steps."""
    shared: dict[str, Any] = {
        "seed": task.seed, "pad_id": pad_id, "encoder_decoder": task.encoder_decoder,
        "micro_batch_tokens": task.micro_batch_tokens, "layout": layout,
    }  # fmt: skip
    if task.questions:
        return dpo(task.questions, DPOConfig.model_validate(task.settings), **shared)
    return SFTObjective(task.examples, SFTConfig.model_validate(task.settings), **shared)


def tree_of(objective: OwnObjective, item: int) -> Tree:
    """An item's prompt and its completions."""
    if isinstance(objective, DPOObjective):
        question = objective.questions[item]
        return Tree(question.prompt_ids, question.completions)
    return Tree(objective.examples[item].prompt_ids, [objective.examples[item].target_ids])


def amount_of(objective: OwnObjective) -> Amount:
    """Of the timed steps: all but the first."""
    items = [item for batch in objective.plan.batches[1:] for item in batch]
    trees = [tree_of(objective, item) for item in items]
    head_tokens = sum(len(target) for tree in trees for target in tree.targets)
    questions = [objective.questions[item] for item in items] if isinstance(objective, DPOObjective) else []
    return Amount(
        questions=len(items),
        pairs=sum(len(question.pairs) for question in questions),
        completions=sum(len(tree.targets) for tree in trees),
        tokens=sum(len(tree.prompt) for tree in trees) + head_tokens,
        head_tokens=head_tokens,
    )


# --- The same work as rows, for trainers that know only rows ---


def step_rows(objective: OwnObjective) -> list[list[Row]]:
    """The rows of each step."""
    return [[row for item in batch for row in _rows(objective, item)] for batch in objective.plan.batches]


def _rows(objective: OwnObjective, item: int) -> Iterator[Row]:
    if isinstance(objective, DPOObjective):
        question = objective.questions[item]
        for winner, loser, _ in question.pairs:
            yield {
                "prompt_ids": list(question.prompt_ids),
                "chosen_ids": list(question.completions[winner]),
                "rejected_ids": list(question.completions[loser]),
            }
        return
    example = objective.examples[item]
    prompt, target = list(example.prompt_ids), list(example.target_ids)
    yield {"input_ids": prompt + target, "labels": [-100] * len(prompt) + target}


def row_tokens(row: Row) -> tuple[int, int]:
    """Sequences that a row is forwarded as (2 of a pair), and the tokens of the longer."""
    if "input_ids" in row:
        return 1, len(row["input_ids"])
    return 2, len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def rival_rows(objective: OwnObjective) -> list[Row]:
    """A whole effective batch of warm-up rows, then the timed rows, the longest first, so that padding is least."""
    warm_up, *timed = step_rows(objective)
    size = objective.config.batch_size
    filled = [warm_up[number % len(warm_up)] for number in range(size)]
    return filled + sorted((row for rows in timed for row in rows), key=lambda row: -row_tokens(row)[1])


def micro_batches(rows: Sequence[Row], num_rows: int) -> list[int]:
    """Tokens of each forward of `num_rows` rows, padding included."""
    cuts = [[row_tokens(row) for row in rows[start : start + num_rows]] for start in range(0, len(rows), num_rows)]
    return [sum(sequences for sequences, _ in cut) * max(width for _, width in cut) for cut in cuts]


def rows_at_once(rows: Sequence[Row], batch_size: int, tokens: int) -> int:
    """The divisor of the effective batch whose mean forward comes nearest to so many tokens, in ratio.

    >>> rows_at_once([{"input_ids": [0] * 100, "labels": [0] * 100}] * 16, batch_size=8, tokens=500)
    4
    """
    divisors = [number for number in range(1, batch_size + 1) if batch_size % number == 0]

    def distance(number: int) -> float:
        forwards = micro_batches(rows, number)
        return abs(math.log(sum(forwards) / len(forwards) / tokens))

    return min(divisors, key=distance)


# --- From a run ---


def tasks_of(
    run: Path, model: Path | None, names: Sequence[str], budget_tokens: int, say: Say
) -> dict[str, TrainingTask]:
    """The named tasks of a finished run.

    Args:
        run: its folder; model: a folder of weights to start from, else the run's own.
        budget_tokens: steps are taken until a trainer of plain rows has computed about so many.

    Raises:
        RunError: the folder holds no such run. DataError: too little to train on.
    """
    if not (run / "config.yaml").is_file() or not (run / AT / "pair" / PAIRS).is_file():
        raise RunError(f"{run} holds no finished iteration.", "Give the folder of a run of method dpo-st.")
    config = load_config(str(run / "config.yaml"))
    weights, note = _weights(run, model)
    say(f"start weights: {note}")
    digest = weights_digest(weights)
    encoder_decoder = config_is_encoder_decoder(weights)
    questions, examples = _questions(run, config, weights), tuple(read_examples(run / AT / "select"))
    first = tuple(_first_pair(question) for question in questions)
    parts: dict[str, tuple[tuple[Question, ...], tuple[Example, ...]]] = {
        "dpo": (questions, ()), "single": (first, ()), "sft": ((), examples),
    }  # fmt: skip
    tasks = {}
    for name in names:
        stage = "sft" if name == "sft" else "dpo"
        settings = getattr(config.training, stage).model_dump(mode="json")
        seed = derive_seed(config.seed, stage, AT)
        task = TrainingTask(
            name, str(weights), digest, *parts[name], settings, seed, config.training.micro_batch_tokens,
            encoder_decoder, (note,),
        )  # fmt: skip
        tasks[name] = cut(task, budget_tokens)
    return tasks


def cut(task: TrainingTask, budget_tokens: int) -> TrainingTask:
    """The task with a warm-up step and as many more as the budget asks for, at least one, at most those there are.

    Raises:
        DataError: there are no two steps.
    """
    objective = objective_of(task, 0, "rows")
    costs = [sum(micro_batches(rows, 1)) for rows in step_rows(objective)]
    if len(costs) < 2:
        raise DataError(f"{task.name}: expected at least 2 optimiser steps, got {len(costs)}.", "Give a larger run.")
    share = (TRAIN_FLOPS + FORWARD_FLOPS * bool(task.questions)) / TRAIN_FLOPS  # the reference's forwards
    steps, computed = 1, 0.0
    while steps < len(costs) and (steps == 1 or computed < budget_tokens):
        computed += costs[steps] * share
        steps += 1
    return dataclasses.replace(task, settings={**task.settings, "max_steps": steps})


def _weights(run: Path, given: Path | None) -> tuple[Path, str]:
    """Where training starts, and what to call it; speed does not depend on the weights' values."""
    if given is not None:
        return given, "given with --model"
    if (run / WARM_UP).is_dir():
        return run / WARM_UP, "the run's warm-up model"
    if (run / "model").is_dir():
        return run / "model", "the run's delivered model, its warm-up weights being released"
    raise RunError(f"{run} holds no weights.", "Give a model's folder with --model.")


def _questions(run: Path, config: RunConfig, model: Path) -> tuple[Question, ...]:
    codec = Codec.build(load_tokenizer(model), config.prompt, config_is_encoder_decoder(model))
    problems = load_sets(run / "data").questions
    prompts = {problem.id: codec.prompt(problem.question) for problem in problems}
    return tuple(group_pairs(read_jsonl(run / AT / "pair" / PAIRS, Pair), prompts))


def _first_pair(question: Question) -> Question:
    """The question with its first pair alone."""
    winner, loser, weight = question.pairs[0]
    completions = (question.completions[winner], question.completions[loser])
    return Question(question.problem_id, question.prompt_ids, completions, ((0, 1, weight),))
