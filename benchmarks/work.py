"""The tasks: which model samples what. Everything made here lies in a folder outside the checkout and is used again.

    task = main_task(settings)      # the warm-up model of a recipe on new problems
    task.work, task.search          # questions as prompt ids: those that are timed, and others to find a batch size

main    the recipe's warm-up model; half the problems from the recipe's training source with a fresh seed (same
        templates, any length whose prompt is within the limit), half from GSM8K, where a file is given
smoke   the two-layer model of the recipe `smoke` after its warm-up, on made-up problems
t5      random weights of Flan-T5-small's shape (`t5.py`)

A task travels to the processes that sample it as a JSON file, prompts as ids, so all systems get the same ids.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.config import DataSpec, PromptConfig, RunConfig
from selftrain.data import load
from selftrain.errors import DataError, RunError
from selftrain.identity import identity
from selftrain.recipe import load_config
from selftrain.records import Problem
from selftrain.sampling.base import Request, SamplingParams
from selftrain.seeding import derive_seed
from selftrain.stagefolder import digest_of, write_json
from selftrain.weights import weights_digest

if TYPE_CHECKING:
    from selftrain.prompts import Codec

WORK_SEED, SEARCH_SEED = 81_000_000, 82_000_000  # of made-up problems; no recipe uses them
SMOKE = ("training.sft.epochs=64",)
WARM_UP = Path("0-warmup") / "sft" / "model"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Question:
    """A prompt to complete; `answer` is None where there is nothing to judge."""

    id: str
    prompt: tuple[int, ...]
    answer: str | None
    source: str


@dataclasses.dataclass(frozen=True)
class Portable:
    """A piece of work with its model, as it travels to the processes that do it."""

    name: str
    model: str  # folder
    digest: str  # of its weights

    def save(self, folder: Path) -> Path:
        """Write it for the processes that do it."""
        path = folder / "tasks" / f"{self.name}-{self.fingerprint()}.json"
        write_json(path, dataclasses.asdict(self))
        return path

    def fingerprint(self) -> str:
        """Digest of all that decides the result, not of where the model lies."""
        return digest_of({**dataclasses.asdict(self), "model": ""})[:16]

    def facts(self) -> dict[str, Any]:
        """What results say of it; no paths and no text."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Task(Portable):
    """What a system samples: `samples` completions of each question of `work`."""

    prompt: dict[str, Any]  # settings of the codec
    samples: int
    temperature: float
    max_new_tokens: int
    work: tuple[Question, ...]
    search: tuple[Question, ...]
    notes: tuple[str, ...] = ()
    forced_length: bool = False  # every completion must have `max_new_tokens`

    def facts(self) -> dict[str, Any]:
        """What results say of the task; no paths."""
        sources: dict[str, int] = {}
        for question in self.work:
            sources[question.source] = sources.get(question.source, 0) + 1
        return {
            "fingerprint": self.fingerprint(),
            "weights": self.digest,
            "questions": sources,
            "samples": self.samples,
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "mean_prompt_tokens": round(sum(len(q.prompt) for q in self.work) / max(len(self.work), 1), 1),
            "notes": list(self.notes),
        }


def load_task(path: Path) -> Task:
    """The task that `Task.save` wrote."""
    row = json.loads(path.read_text(encoding="utf-8"))
    parts = {
        part: tuple(Question(**{**question, "prompt": tuple(question["prompt"])}) for question in row[part])
        for part in ("work", "search")
    }
    return Task(**{**row, **parts, "notes": tuple(row["notes"])})


def codec_of(task: Task) -> Codec:
    """Texts and ids of the task's model, as it was trained."""
    from selftrain.models import config_is_encoder_decoder, load_tokenizer
    from selftrain.prompts import Codec

    folder = Path(task.model)
    prompt = PromptConfig.model_validate(task.prompt)
    return Codec.build(load_tokenizer(folder), prompt, config_is_encoder_decoder(folder))


def sampling_params(task: Task, calculator: bool) -> SamplingParams:
    """The task's, for our own samplers."""
    return SamplingParams(task.temperature, 0, 1.0, task.max_new_tokens, calculator)


def requests_of(questions: Sequence[Question], samples: int, seed: int) -> list[Request]:
    """As the sampling stage makes them: short prompts first, a question's samples side by side."""
    ordered = sorted(questions, key=lambda question: (len(question.prompt), question.id))
    return [
        Request(question.id, k, question.prompt, derive_seed("benchmark", seed, question.id, k))
        for question in ordered
        for k in range(samples)
    ]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the tasks are made from; see the options of `sampling.py`."""

    recipe: str
    run: Path | None
    work: Path
    gsm8k: str | None
    num_problems: int
    num_search: int
    samples: int
    max_new_tokens: int
    only_gsm8k: bool = False


def main_task(settings: Settings, say: Say) -> Task:
    """The task that the headline comes from.

    Raises:
        RunError: a run folder without a configuration.
        DataError: problems that can't be had.
    """
    config, model = _warm_up(settings.recipe, settings.run, settings.work, say)
    codec = _codec(model, config)
    parts, notes = _mixed(config, codec, settings)
    return Task(
        "main", str(model), weights_digest(model), config.prompt.model_dump(), settings.samples,
        config.sampling.temperature, settings.max_new_tokens, parts[0], parts[1], notes,
    )  # fmt: skip


def smoke_task(settings: Settings, say: Say, num_problems: int = 4096, samples: int = 4) -> Task:
    """The two-layer model of `smoke`, trained longer so that it writes annotations: nothing hides the calculator."""
    config, model = _warm_up("smoke", None, settings.work, say, SMOKE)
    codec = _codec(model, config)
    work = _made_up(config, codec, num_problems, WORK_SEED)
    return Task(
        "smoke", str(model), weights_digest(model), config.prompt.model_dump(), samples, config.sampling.temperature,
        config.sampling.max_new_tokens, work, (),
    )  # fmt: skip


def _warm_up(
    recipe: str, run: Path | None, work: Path, say: Say, overrides: Sequence[str] = ()
) -> tuple[RunConfig, Path]:
    """A recipe's configuration and the folder of its warm-up model, which is made where it is not there."""
    if run is not None and not (run / "config.yaml").is_file():
        raise RunError(f"{run} holds no run.", "Give the folder of a run of the recipe, or leave --run out.")
    alone = ["method=sft", "baselines=[]", "evaluation.without_calculator_rows=0", *overrides]
    config = load_config(recipe if run is None else str(run / "config.yaml"), alone)
    if run is not None:
        if (run / WARM_UP).is_dir():
            return config, run / WARM_UP
        say("The run's warm-up weights were removed (checkpoints.keep); its warm-up is run once more.")
    folder = work / f"{config.name}-{digest_of(identity(config))[:8]}"
    if not (folder / WARM_UP).is_dir():
        import selftrain
        from selftrain.terminal import make_progress

        say(f"Making the warm-up model of {config.name}; it is kept for the next time.")
        selftrain.run(config, out=folder, progress=make_progress())
    return config, folder / WARM_UP


def _codec(model: Path, config: RunConfig) -> Codec:
    from selftrain.models import config_is_encoder_decoder, load_tokenizer
    from selftrain.prompts import Codec

    return Codec.build(load_tokenizer(model), config.prompt, config_is_encoder_decoder(model))


def _mixed(
    config: RunConfig, codec: Codec, settings: Settings
) -> tuple[tuple[tuple[Question, ...], tuple[Question, ...]], tuple[str, ...]]:
    """Questions to time and questions to search with, half of each from GSM8K where its file is given."""
    counts = (settings.num_problems, settings.num_search)
    if settings.gsm8k is None:
        if settings.only_gsm8k:
            raise DataError("This work is GSM8K's, and no file of it is given.", "Give --gsm8k PATH.")
        own = [
            _made_up(config, codec, count, seed) for count, seed in zip(counts, (WORK_SEED, SEARCH_SEED), strict=True)
        ]
        return (own[0], own[1]), ("no GSM8K file was given: made-up problems instead of its half",)
    shares = [count if settings.only_gsm8k else count // 2 for count in counts]
    found = _gsm8k(settings.gsm8k, codec, sum(shares))
    theirs = (found[: shares[0]], found[shares[0] :])
    if settings.only_gsm8k:
        return theirs, ()
    mixed = [
        (*_made_up(config, codec, count - share, seed), *part)
        for count, share, seed, part in zip(counts, shares, (WORK_SEED, SEARCH_SEED), theirs, strict=True)
    ]
    return (mixed[0], mixed[1]), ()


def _made_up(config: RunConfig, codec: Codec, count: int, seed: int) -> tuple[Question, ...]:
    """New problems of the recipe's training source: another seed, the same templates, no limit on the rationale."""
    spec = config.data.train
    if "seed" not in spec.params:
        raise DataError(
            f"Recipe {config.name}: its training problems are not made up from a seed, so there are no new ones.",
            "Use a recipe whose data.train has params.seed, such as quickstart.",
        )
    fresh = DataSpec(
        source=spec.source, params={**spec.params, "seed": seed, "size": max(64, 4 * count)}, groups=spec.groups,
        group_split=spec.group_split, rationales=False,
    )  # fmt: skip
    return _taken(load(fresh).problems, codec, count, spec.label)


def _gsm8k(path: str, codec: Codec, count: int) -> tuple[Question, ...]:
    return _taken(load(DataSpec(source="gsm8k", path=path, rationales=False)).problems, codec, count, "gsm8k")


def _taken(problems: Sequence[Problem], codec: Codec, count: int, source: str) -> tuple[Question, ...]:
    """The first `count` by the hash of their id whose prompt is within the limit."""
    shuffled = sorted(problems, key=lambda problem: derive_seed("benchmark", problem.id))
    prompts = ((problem, codec.prompt(problem.question)) for problem in shuffled)
    limit = codec.config.max_prompt_tokens
    kept = [Question(p.id, prompt, p.answer, source) for p, prompt in prompts if len(prompt) <= limit][:count]
    if len(kept) < count:
        raise DataError(f"{source}: expected {count} problems with short enough prompts, got {len(kept)}.")
    return tuple(kept)
