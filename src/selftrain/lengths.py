"""How long rows are in a model's tokens, before a run: for limits, and to show rows as the model will see them.

    reader = open_reader("smollm2-135m")
    reader.lengths(assembled).max_prompt, reader.row(problem).target

The tokenizer is used where the model is on this machine; otherwise lengths are estimated from characters and rows are
shown as plain text, and `remark` says so. No weights are read. The random models are made on the spot.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

from selftrain.config import PromptConfig
from selftrain.data.assemble import Assembled
from selftrain.prompts import Codec
from selftrain.records import Problem
from selftrain.toy import NAMES as TOYS
from selftrain.toy import make_toy
from selftrain.weights import find_local

CHARS_PER_TOKEN = 2.0  # of worked arithmetic, where digits are tokens: 2.3 to 3.5 here, so a little over
STEP = 16
MIN_TARGET = 32
ROOM = 1.25  # of targets: a model's own rationales may be longer than any given one
CAP = 1024  # longer rows are left out: they would set the memory of all


@dataclasses.dataclass(frozen=True)
class Shown:
    """A row as the model sees it; 0 tokens where no tokenizer is at hand."""

    prompt: str
    target: str
    prompt_tokens: int
    target_tokens: int


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Limits for a set of rows, in tokens, the ids of the rows over them, and how long the longest are, in words."""

    max_prompt: int
    max_target: int
    over: tuple[str, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads rows as a model does; `codec` is None without its tokenizer. `positions` is what the model can take in."""

    codec: Codec | None
    encoder_decoder: bool
    positions: int | None
    remark: str

    def row(self, problem: Problem) -> Shown:
        """A problem with a rationale, as prompt and target."""
        rationale = problem.rationale or ""
        if self.codec is None:
            return Shown(PromptConfig().template.replace("{question}", problem.question), rationale, 0, 0)
        prompt, target = self.codec.prompt(problem.question), self.codec.target(rationale)
        end = str(self.codec.tokenizer.eos_token)
        prompt_text = self.codec.prompt_text(problem.question) + (end if self.encoder_decoder else "")
        return Shown(prompt_text, self.codec.text(target) + end, len(prompt), len(target))

    def lengths(self, found: Assembled) -> Lengths:
        """Limits that let every row in, as far as the model's positions and `CAP` allow."""
        tests = [problem for problems in found.tests.values() for problem in problems]
        rows = [*found.train, *found.unlabelled, *tests]
        prompts = [self._prompt(problem) for problem in rows]
        targets = [self._target(problem) for problem in found.train]
        max_prompt = min(CAP, max(PromptConfig().max_prompt_tokens, _up(max(prompts))))
        max_target = min(CAP, max(MIN_TARGET, _up(ROOM * max(targets))))
        if self.positions is not None and max_prompt + max_target > self.positions:
            max_target = min(max_target, max(self.positions // 2, self.positions - max_prompt))
            max_prompt = self.positions - max_target
        long = {row.id for row, tokens in zip(found.train, targets, strict=True) if tokens > max_target}
        long |= {row.id for row, tokens in zip(rows, prompts, strict=True) if tokens > max_prompt}
        over = tuple(row.id for row in rows if row.id in long)
        how = "the longest have" if self.codec is not None else "estimated from characters: at most"
        return Lengths(max_prompt, max_target, over, f"{how} {max(prompts)} and {max(targets)}")

    def _prompt(self, problem: Problem) -> int:
        if self.codec is None:
            return _estimated(PromptConfig().template + problem.question)
        return len(self.codec.prompt(problem.question))

    def _target(self, problem: Problem) -> int:
        rationale = problem.rationale or ""
        return _estimated(rationale) if self.codec is None else len(self.codec.target(rationale))


def open_reader(model: str) -> Reader:
    """What reads rows as this model does. Asks no network.

    Raises:
        ModelError: a folder whose config or tokenizer cannot be used.
        ConfigError: a tokenizer that cannot write the calculator's annotations.
    """
    if model in TOYS:
        from transformers.utils import logging

        logging.disable_progress_bar()  # of saving the model
        with tempfile.TemporaryDirectory() as folder:
            make_toy(model, Path(folder))
            return _reader(Path(folder), f"tokens: counted by the tokenizer of {model}")
    local = find_local(model)
    if local is None:
        remark = f"tokens: {model} is not on this machine yet, so lengths are estimated and rows shown as plain text"
        return Reader(None, False, None, remark)
    return _reader(local, f"tokens: counted by the tokenizer of {model}")


def _reader(folder: Path, remark: str) -> Reader:
    from selftrain.models import load_config, load_tokenizer, max_positions

    config = load_config(folder)
    encoder_decoder = bool(config.is_encoder_decoder)
    codec = Codec.build(load_tokenizer(folder), prompt_config(encoder_decoder), encoder_decoder)
    return Reader(codec, encoder_decoder, max_positions(config), remark)


def prompt_config(encoder_decoder: bool) -> PromptConfig:
    """How questions are asked: encoder-decoders get the bare question, as in the paper."""
    return PromptConfig(template="{question}") if encoder_decoder else PromptConfig()


def _estimated(text: str) -> int:
    return math.ceil(len(text) / CHARS_PER_TOKEN) + 1


def _up(tokens: float) -> int:
    return math.ceil(tokens / STEP) * STEP
