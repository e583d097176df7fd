"""What is known of a run before it starts: its model's shape, and the tokens of its problems.

    counts = count(config)
    counts.sets.train.prompts, counts.model, counts.notes

The tokens are the codec's own where the tokenizer is on this machine. Where it is not, the pieces of the text are
counted (words, single digits, signs): 7 % below SmolLM2's tokens for quickstart's prompts, 2 % above for its rationales
(words alone would be 2.6 times below those), and none for what a chat template puts around a question. What cannot be
had (weights, sets of a hub) is None, and a note says why.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selftrain.config import RunConfig
from selftrain.data.assemble import assemble
from selftrain.errors import DataError, UserError
from selftrain.models import load_config, load_tokenizer
from selftrain.prompts import Codec
from selftrain.records import Problem
from selftrain.report.files import RunFiles
from selftrain.stagefolder import read_sealed
from selftrain.stages.data import Sets, check_limits, load_sets
from selftrain.toy import NAMES as TOYS
from selftrain.toy import make_toy
from selftrain.userpath import user_path
from selftrain.weights import find_local

PIECES = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_|\n")


@dataclasses.dataclass(frozen=True)
class SetCount:
    """Tokens of a set's prompts, in its order, and of its gold rationales (0 where a row has none).

    Rows whose prompt is over the limit are left out, as sampling leaves them out. `base_prompts` are as the base model
    is asked, through its own chat template.
    """

    prompts: tuple[int, ...] = ()
    golds: tuple[int, ...] = ()
    base_prompts: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Problems of the set."""
        return len(self.prompts)

    @property
    def mean_gold(self) -> float | None:
        """Tokens of a gold rationale; None where the set has none."""
        known = [tokens for tokens in self.golds if tokens]
        return sum(known) / len(known) if known else None


@dataclasses.dataclass(frozen=True)
class SetCounts:
    """The sets of a run, counted."""

    train: SetCount
    unlabelled: SetCount
    validation: SetCount
    tests: dict[str, SetCount]
    seconds: float  # that loading and counting took

    @property
    def rows(self) -> int:
        """Problems of all sets."""
        return sum(one.rows for one in (self.train, self.unlabelled, self.validation, *self.tests.values()))

    @property
    def longest_prompt(self) -> int:
        """Tokens, over all sets."""
        sets = (self.train, self.unlabelled, self.validation, *self.tests.values())
        return max((max((*one.prompts, *one.base_prompts), default=0) for one in sets), default=0)


@dataclasses.dataclass(frozen=True)
class Counts:
    """`sets` is None where a set cannot be had here, `model` (a transformers config) where the model is not here."""

    sets: SetCounts | None
    model: Any | None
    notes: tuple[str, ...]


def count(config: RunConfig, run: RunFiles | None = None) -> Counts:
    """Load what is here. The data and the weights of a run that has begun go before others."""
    notes: list[str] = []
    tokenizer, model = _model(config, run, notes)
    codec = None
    if tokenizer is not None:
        codec = Codec.build(tokenizer, config.prompt, bool(model.is_encoder_decoder))
    else:
        notes.append("no tokenizer is here: words, single digits and signs are counted for tokens")
    try:
        return Counts(_sets(config, run, codec, notes), model, tuple(notes))
    except UserError as error:
        hint = f" {error.hint}" if error.hint else ""
        notes.append(f"the sets cannot be counted: {error.message}{hint}")
        return Counts(None, model, tuple(notes))


def _model(config: RunConfig, run: RunFiles | None, notes: list[str]) -> tuple[Any, Any]:
    """Tokenizer and transformers config; None for what is not here."""
    trust = config.compute.trust_remote_code
    try:
        if config.model in TOYS:
            with tempfile.TemporaryDirectory() as scratch:
                made = Path(scratch) / "toy"
                make_toy(config.model, made, config.seed)
                return load_tokenizer(made), load_config(made)
        path = _own_weights(run) or find_local(config.model) or _folder_with_config(config.model)
        if path is None:
            notes.append(f"{config.model} is not on this machine (a run would fetch it)")
            return None, None
        model = load_config(path, trust)
        return load_tokenizer(path, trust), model
    except UserError as error:
        notes.append(error.message)
        return None, None


def _own_weights(run: RunFiles | None) -> Path | None:
    """Where the run found its weights, if they are still there."""
    known = read_sealed(run.folder / "weights.json") if run is not None else None
    path = Path(str(known["path"])) if isinstance(known, dict) and "path" in known else None
    return path if path is not None and (path / "config.json").is_file() else None


def _folder_with_config(name: str) -> Path | None:
    """A local folder with a config and no weights: enough to count."""
    folder = user_path(name)
    return folder if (folder / "config.json").is_file() else None


def _sets(config: RunConfig, run: RunFiles | None, codec: Codec | None, notes: list[str]) -> SetCounts:
    """Every set of the run, from its finished data stage or as that stage would draw them.

    Raises:
        UserError: a set that is not on this machine, or that the run would refuse.
    """
    started = time.monotonic()
    tokens = _counter(codec, config.prompt.template)

    def both(problem: Problem) -> tuple[int, int]:
        prompt, gold, _ = tokens(problem)
        return prompt, gold

    if run is not None and run.is_done("data"):
        sets = load_sets(run.folder / "data")
    else:
        found = assemble(config.data, config.seed, both, offline=True)
        sets = Sets(found.train, found.unlabelled, found.validation, found.tests)
        if config.data.over_limit == "refuse":
            try:
                check_limits(found, config, both)
            except DataError as error:
                notes.append(f"the run would be refused: {error.message}")
    limit = config.prompt.max_prompt_tokens
    train, unlabelled, validation = (
        _counted(problems, tokens, limit) for problems in (sets.train, sets.unlabelled, sets.validation)
    )
    tests = {name: _counted(problems, tokens, limit) for name, problems in sets.tests.items()}
    return SetCounts(train, unlabelled, validation, tests, time.monotonic() - started)


Tokens = Callable[[Problem], tuple[int, int, int]]  # of prompt, gold rationale, and the base model's prompt


def _counter(codec: Codec | None, template: str) -> Tokens:
    if codec is None:
        return lambda problem: _pieces(problem, template)

    def tokens(problem: Problem) -> tuple[int, int, int]:
        prompt = len(codec.prompt(problem.question))
        gold = 0 if problem.rationale is None else len(codec.target(problem.rationale))
        return prompt, gold, len(codec.base_prompt(problem.question))

    return tokens


def _pieces(problem: Problem, template: str) -> tuple[int, int, int]:
    """Words, single digits and signs of prompt and rationale; one more for the rationale's end token."""
    prompt = len(PIECES.findall(template.replace("{question}", problem.question)))
    return prompt, 0 if problem.rationale is None else len(PIECES.findall(problem.rationale)) + 1, prompt


def _counted(problems: Sequence[Problem], tokens: Tokens, limit: int) -> SetCount:
    found = [row for row in map(tokens, problems) if row[0] <= limit]
    return SetCount(tuple(row[0] for row in found), tuple(row[1] for row in found), tuple(row[2] for row in found))
