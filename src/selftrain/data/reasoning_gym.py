"""Problems made on the spot by a task of reasoning-gym (extra `gym`).

    DataSpec(source="reasoning_gym:gsm_symbolic", params={"seed": 3000000, "size": 2000}, group_split="known")

`gsm_symbolic` gives worked rationales. Its plain equations get annotations where their arithmetic is right,
the suffix "Give the result as your final answer ..." is removed, and its template is the problem's group
("template-07"). Other tasks give questions and answers only, and only answers that are numbers are kept.
Ids are "reasoning_gym/TASK-SEED-INDEX".

Row i is drawn from `Random(seed + i)`, so the ranges [seed, seed + size) of two seeds must not overlap
(`check_apart`); keep seeds a million apart. Questions with equal text are dropped and counted. A question of a
known template measures recall of the template. The package's own `score_answer` is not used: it takes the first
number of a text and drops signs.
"""

from __future__ import annotations

import collections
import importlib.metadata
from collections.abc import Sequence
from typing import Any

from selftrain.calculator.annotation import canonicalise
from selftrain.calculator.equations import annotate_equations
from selftrain.config import DataSpec
from selftrain.data.base import LoadedSet, number_text, rows_digest, source, whole_number, with_answer
from selftrain.errors import DataError, nearest
from selftrain.records import Problem
from selftrain.similarity import normalise_question

WITH_RATIONALES = "gsm_symbolic"
SUFFIX = " Give the result as your final answer. Do not include units."
SEED_STEP = 10**6
DEFAULT_SIZE = 500
NOT_A_NUMBER = "answer is not a number"
OTHER_ANSWER = "rationale ends in another answer"
SAME_TEXT = "same question as an earlier row"


@source("reasoning_gym", params=None, takes_path=False, takes_task=True)
def load_reasoning_gym(spec: DataSpec, offline: bool) -> LoadedSet:
    """`params.size` rows of a task from `params.seed` on, less those that are of no use; never needs a network."""
    task = spec.source.partition(":")[2]
    dataset = _dataset(spec, task)
    problems: list[Problem] = []
    skipped: collections.Counter[str] = collections.Counter()
    seen: set[str] = set()
    for index in range(len(dataset)):
        made = _problem(dataset, index, task)
        if isinstance(made, str):
            skipped[made] += 1
            continue
        text = normalise_question(made.question)
        if text in seen:
            skipped[SAME_TEXT] += 1
            continue
        seen.add(text)
        problems.append(made)
    notes = [f"reasoning-gym {importlib.metadata.version('reasoning-gym')}"]
    return LoadedSet(problems, dict(skipped), notes, rows_digest(problems))


def check_apart(specs: Sequence[DataSpec]) -> None:
    """Refuse two sets of one task whose seeds differ but whose ranges of row seeds overlap.

    Raises:
        DataError: names both seeds.
    """
    ranges = [(spec.source, *_range(spec)) for spec in specs if spec.source.startswith("reasoning_gym:")]
    for number, (task, seed, size) in enumerate(ranges):
        for other_task, other, other_size in ranges[:number]:
            if task == other_task and seed != other and seed < other + other_size and other < seed + size:
                raise DataError(
                    f"{task}: seeds {other} and {seed} are too near: row i is drawn from seed + i, so rows collide.",
                    f"Keep seeds {SEED_STEP} apart.",
                )


def _range(spec: DataSpec) -> tuple[int, int]:
    seed = whole_number(spec, "seed", 0, least=0, most=2**31 - 1)
    return seed, whole_number(spec, "size", DEFAULT_SIZE, least=1, most=SEED_STEP)


def _dataset(spec: DataSpec, task: str) -> Any:
    """The task's data set.

    Raises:
        DataError: no extra, no such task, or parameters that the task refuses.
    """
    gym = _package()
    known = gym.factory.DATASETS
    if task not in known:
        close = nearest(task, known)
        hint = (
            f"Did you mean 'reasoning_gym:{close}'?"
            if close
            else "Write reasoning_gym:NAME, as reasoning_gym:gsm_symbolic."
        )
        raise DataError(f"reasoning-gym has no task {task!r} among its {len(known)}.", hint)
    seed, size = _range(spec)
    try:
        return gym.create_dataset(task, **{**spec.params, "seed": seed, "size": size})
    except (AssertionError, TypeError, ValueError) as error:
        raise DataError(f"{spec.source}: parameters that the task refuses: {spec.params} ({error}).") from error


def _package() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise missing_package(f"it cannot be imported: {error}") from error
    return reasoning_gym


def missing_package(why: str) -> DataError:
    """What to say where the extra is not there."""
    return DataError(
        f"Source reasoning_gym needs the package reasoning-gym ({why}).",
        "pip install 'selftrain[gym]' (it compiles a dependency: a C compiler and Python headers are needed).",
    )


def _problem(dataset: Any, index: int, task: str) -> Problem | str:
    """A problem, or the reason why there is none."""
    row = dataset[index]
    answer = number_text(row["answer"])
    if answer is None:
        return NOT_A_NUMBER
    identity = f"reasoning_gym/{task}-{dataset.seed}-{index}"
    question = str(row["question"]).removesuffix(SUFFIX).strip()
    if task != WITH_RATIONALES:
        return Problem(identity, question, answer)
    steps, _, last = row["metadata"]["answer_cot"].rpartition("####")
    if number_text(last) != answer:
        return OTHER_ANSWER
    group = f"template-{dataset.task_indices[index]:02d}"
    return Problem(identity, question, answer, with_answer(_annotated(steps), answer), group)


def _annotated(steps: str) -> str:
    """Stripped lines, empty ones left out, equations annotated."""
    lines = [line.strip() for line in steps.split("\n")]
    return canonicalise(annotate_equations("\n".join(line for line in lines if line)), "angle")
