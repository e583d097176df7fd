"""What `selftrain sample` is asked to do, checked, before any weights are read.

    check_settings(settings)
    job = prepare("runs/quickstart/model", load_sets(["svamp=SVAMP.json"], None, print), settings, print)
    check_room(job)
    job.identity                                  # what decides whether two calls make the same file

Sets are written as in `selftrain evaluate`, but rows of a file may lack an answer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from selftrain.card import read_settings
from selftrain.config import DataSpec
from selftrain.data import load
from selftrain.data.base import check_unique_ids, rows_digest
from selftrain.errors import ConfigError, DataError
from selftrain.evaluate import mapped_fields, named_sets, parse_spec
from selftrain.prompts import Codec
from selftrain.records import Problem
from selftrain.sampling.base import SamplingParams
from selftrain.sampling.vllm_support import check_codec, check_installed
from selftrain.stages.sample import LABEL_TOLERANCE, SamplePlan
from selftrain.verify import open_verifier
from selftrain.weights import ResolvedWeights, resolve

STAGE = "sample"
BACKENDS = ("engine", "vllm")
COMPLETIONS_A_SLOT = 8  # in a shard: what a kill can cost at most, against how often slots run empty at its end
MAX_TEMPERATURE = 5.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to sample. `max_new_tokens` None: as the model's selftrain.json says, else 300."""

    samples: int
    temperature: float
    top_k: int
    top_p: float
    max_new_tokens: int | None
    seed: int
    slots: int
    calculator: bool
    backend: str

    @property
    def shard_questions(self) -> int:
        """Questions a shard, the unit of resume."""
        return max(1, COMPLETIONS_A_SLOT * self.slots // self.samples)


@dataclasses.dataclass(frozen=True)
class Job:
    """All that is known before weights are read. `config`: the model's, of transformers."""

    weights: ResolvedWeights
    codec: Codec
    sets: dict[str, list[Problem]]
    settings: Settings
    max_new_tokens: int
    config: Any
    device: str
    precision: str

    @functools.cached_property
    def prompts(self) -> dict[str, tuple[int, ...]]:
        """problem id -> ids of its prompt, for all sets."""
        return {p.id: self.codec.prompt(p.question) for problems in self.sets.values() for p in problems}

    @property
    def plan(self) -> SamplePlan:
        """What each set's stage is to do."""
        asked = self.settings
        params = SamplingParams(asked.temperature, asked.top_k, asked.top_p, self.max_new_tokens, asked.calculator)
        return SamplePlan(
            asked.samples, params, (asked.seed, STAGE), asked.shard_questions, self.codec.config.max_prompt_tokens,
            LABEL_TOLERANCE, STAGE, self.weights.digest,
        )  # fmt: skip

    @property
    def identity(self) -> dict[str, Any]:
        """What the file is made from, flat: two calls with the same go on with each other's work."""
        sets = {f"data.{name}": rows_digest(problems) for name, problems in self.sets.items()}
        sizes = {f"data.{name}.problems": len(problems) for name, problems in self.sets.items()}
        settings = self.codec.config.model_dump(mode="json", exclude_none=True)
        prompt = {f"prompt.{key}": value for key, value in settings.items()}
        asked = {**dataclasses.asdict(self.settings), "max_new_tokens": self.max_new_tokens}
        asked["shard_questions"] = self.settings.shard_questions
        return {"model": self.weights.digest, **sets, **sizes, **prompt, **asked, "precision": self.precision}


def check_settings(settings: Settings) -> None:
    """Refuse settings that cannot be.

    Raises:
        ConfigError: the first of them.
        VllmError: vLLM is asked for and not there.
    """
    tokens, temperature = settings.max_new_tokens, settings.temperature
    for name, value, fits, expected in (
        ("--samples", settings.samples, settings.samples >= 1, "at least 1 completion a problem"),
        ("--temperature", temperature, 0 <= temperature <= MAX_TEMPERATURE, f"0 (greedy) to {MAX_TEMPERATURE:g}"),
        ("--top-k", settings.top_k, settings.top_k >= 0, "0 (off) or more"),
        ("--top-p", settings.top_p, 0 < settings.top_p <= 1, "above 0, and at most 1 (off)"),
        ("--max-new-tokens", tokens, tokens is None or tokens >= 1, "at least 1 token"),
        ("--seed", settings.seed, settings.seed >= 0, "0 or more"),
        ("--slots", settings.slots, settings.slots >= 1, "at least 1 row"),
        ("--backend", settings.backend, settings.backend in BACKENDS, " or ".join(BACKENDS)),
    ):
        if not fits:
            raise ConfigError(f"{name}: expected {expected}, got {value!r}.")
    if temperature == 0 and settings.samples > 1:
        raise ConfigError(
            f"--temperature 0 is greedy: all {settings.samples} completions of a problem would be the same.",
            "Ask for one with -k 1, or raise the temperature.",
        )
    if settings.backend == "vllm":
        check_installed()


def load_sets(
    data: Sequence[str],
    take: int | None,
    say: Callable[[str], None],
    verify: str = "numeric",
    fields: Sequence[str] = (),
) -> dict[str, list[Problem]]:
    """name -> problems of each set, with or without answers; a name that comes twice gets a number.

    Raises:
        ConfigError: there is no such verifier.
        DataError: a set that cannot be read, or two problems of one id.
    """

    open_verifier(verify)
    columns = mapped_fields(fields)

    def read(text: str) -> tuple[str, list[Problem]]:
        spec = spec_of(text, verify).model_copy(update={"fields": columns})
        loaded = load(spec)
        for reason, count in loaded.skipped.items():
            say(f"{spec.label}: {count} rows skipped: {reason}")
        return spec.label, loaded.problems[:take]

    sets = named_sets(data, take, "sample", read)
    check_unique_ids(problem for problems in sets.values() for problem in problems)
    return sets


def spec_of(text: str, verify: str = "numeric") -> DataSpec:
    """`evaluate.parse_spec`, with rows of a file allowed to lack their answer."""
    spec = parse_spec(text, verify)
    return spec.model_copy(update={"params": {"unanswered": True}}) if spec.source == "file" else spec


def prepare(model: str, sets: dict[str, list[Problem]], settings: Settings, say: Callable[[str], None]) -> Job:
    """Find the model, and how it is asked; its weights are not read.

    Raises:
        ModelError: it cannot be found, has no usable config or tokenizer, or cannot be sampled.
        ConfigError: its tokenizer cannot write the calculator's annotations.
        VllmError: vLLM cannot sample it.
    """
    from selftrain.hardware import default_device, default_precision
    from selftrain.models import load_config, load_tokenizer
    from selftrain.sampling.paths import check_config

    weights = resolve(model, say=say)
    prompt, told_tokens = read_settings(weights.path)
    config = load_config(weights.path)
    codec = Codec.build(load_tokenizer(weights.path), prompt, config.is_encoder_decoder)
    if settings.backend == "vllm":
        check_codec(codec, model, settings.calculator)
    else:
        check_config(config)
    tokens, device = settings.max_new_tokens or told_tokens, default_device()
    return Job(weights, codec, sets, settings, tokens, config, device, default_precision(device))


def check_room(job: Job) -> str:
    """Refuse a job in which nothing can be sampled, or that does not fit the model's positions, or memory.

    Returns what storage it needs, in words; nothing where the backend is not ours.

    Raises:
        DataError: every prompt is over the limit.
        ConfigError: prompt and `max_new_tokens` are more than the model's positions, or its storage is more
            than the free memory.
    """
    from selftrain.models import DTYPES, max_positions
    from selftrain.sampling.paths import Shape, check_memory

    limit, tokens = job.codec.config.max_prompt_tokens, job.max_new_tokens
    lengths = [len(prompt) for prompt in job.prompts.values() if len(prompt) <= limit]
    if not lengths:
        raise DataError(f"All {len(job.prompts)} prompts are longer than {limit} tokens, the model's limit.")
    longest, positions = max(lengths), max_positions(job.config)
    if positions is not None and longest + tokens > positions:
        room = positions - longest
        raise ConfigError(
            f"The longest prompt has {longest} tokens and --max-new-tokens is {tokens}: {longest + tokens} do not fit "
            f"the model's {positions} positions.",
            f"Use --max-new-tokens {room} or less." if room > 0 else "Leave out questions that long.",
        )
    if job.settings.backend != "engine":
        return ""
    asked, largest = job.settings, max(map(len, job.sets.values()))
    rows = min(asked.slots, asked.samples * min(asked.shard_questions, largest))
    shape, dtype = Shape(rows, longest, tokens), DTYPES[job.precision]
    check_memory(job.config, dtype, job.device, shape)
    return shape.stated(job.config, dtype)
