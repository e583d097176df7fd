"""`selftrain export`: a run's pairs, or its training examples, as JSONL that other trainers read.

    done = export("runs/quickstart", "pairs", "trl", out="pairs.jsonl")
    done.stage, len(done.rows), done.read_otherwise

    what    format      columns
    pairs   trl         prompt, chosen, rejected: texts
    pairs   messages    prompt, chosen, rejected: lists of {role, content}
    sft     trl         prompt, completion: texts
    sft     messages    messages: a list of {role, content}

Texts are decoded from the ids that the run trained on, the end token left out: trainers add their own. In the trl
format a prompt is the run's template with the question in it, and what follows begins with the separator, so that the
two are one text; messages hold the bare question, which a chat template wraps, or what the run's own chat template
wrapped. Further columns say what each row is from. docs/guide/export.md says which trainer reads which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from selftrain import __version__
from selftrain.data.licences import licence_of
from selftrain.errors import ConfigError, RunError, nearest
from selftrain.judged import BROUGHT
from selftrain.models import config_is_encoder_decoder, load_tokenizer
from selftrain.outfile import OutFile
from selftrain.prompts import Codec
from selftrain.records import Example, Pair, Problem
from selftrain.report.files import RunFiles
from selftrain.stagefolder import read_sealed
from selftrain.weights import resolve, usable

KINDS = {"pairs": "pair", "sft": "select"}
FORMATS = ("trl", "messages")

Message = dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class PairRow:
    """A pair. `chosen_from` and `rejected_from` are "gold" or STAGE#K, the models digests of weights (gold: empty)."""

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    problem_id: str
    chosen_from: str
    rejected_from: str
    chosen_model: str
    rejected_model: str


@dataclasses.dataclass(frozen=True, slots=True)
class CompletionRow:
    """A training example as prompt and completion; `origin` is "gold" or STAGE#K, `model` the digest that wrote it."""

    prompt: str
    completion: str
    problem_id: str
    origin: str
    model: str


@dataclasses.dataclass(frozen=True, slots=True)
class MessagesRow:
    """A training example as a conversation; otherwise as `CompletionRow`."""

    messages: list[Message]
    problem_id: str
    origin: str
    model: str


Row = PairRow | CompletionRow | MessagesRow


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """The rows of a stage. `read_otherwise`: rows whose text, tokenised in one piece, gives other ids than were stored.

    `path` is the file, None where none was asked for.
    """

    stage: str
    rows: list[Row]
    read_otherwise: int
    path: Path | None


def export(
    run_folder: Path | str,
    what: str,
    form: str = "trl",
    *,
    iteration: int | None = None,
    out: Path | str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Exported:
    """The pairs or examples of an iteration of the run's own arm, in a file where one is named, whole or not at all.

    Args:
        run_folder: what `selftrain run` wrote, finished or not.
        what: "pairs" or "sft".
        form: "trl" or "messages".
        iteration: which; default: the newest that is there. 0 are the warm-up's examples.
        out: the file to make, with its manifest beside it.
        say: told of weights being fetched, where no tokenizer of the run is on this machine, and of a file that is
            there already, as this would make it.

    Raises:
        ConfigError: an unknown kind or format, or a method that makes no pairs.
        RunError: no such run, iteration or finished stage, or a file that cannot be written.
    """
    _check_names(what, form)
    run = RunFiles(Path(run_folder))
    stage = stage_of(run, what, iteration)
    target = OutFile(Path(out)) if out is not None else None
    if target is not None:
        target.check_place()
    codec = codec_of(run, say)
    questions = {problem.id: problem for name in ("train", "unlabelled") for problem in run.problems(name)}
    writer = _Writer(codec, questions, _models(run), as_messages=form == "messages")
    pairs, examples = (run.pairs(stage), []) if what == "pairs" else ([], run.examples(stage))
    if not pairs and not examples:
        raise RunError(f"{run.folder}: {stage} is finished and holds nothing to export.")
    rows = [*map(writer.pair, pairs), *map(writer.example, examples)]
    if target is not None:
        identity = {"what": what, "format": form, "stage": stage, "digest": run.manifests[stage]["digest"]}
        if target.finished(identity) is not None:
            say(f"{target.path} is finished already: nothing to do.")
        else:
            with target.open(identity):
                account = {
                    "read_otherwise": writer.read_otherwise, "run": run.config.name, "version": __version__,
                    "licences": _licences(run),
                }  # fmt: skip
                target.deliver(rows, identity, account)
    return Exported(stage, rows, writer.read_otherwise, target.path if target else None)


def _check_names(what: str, form: str) -> None:
    for name, known, expected in ((what, list(KINDS), "what to export"), (form, list(FORMATS), "--format")):
        if name not in known:
            close = nearest(name, known)
            hint = f"Did you mean {close!r}?" if close else None
            raise ConfigError(f"{expected}: expected {' or '.join(known)}, got {name!r}.", hint)


def stage_of(run: RunFiles, what: str, iteration: int | None) -> str:
    """The finished stage that holds an iteration's pairs or examples; None: the newest.

    Raises:
        ConfigError: the run's method makes no pairs.
        RunError: no such iteration, or it is not that far yet.
    """
    method = run.config.method
    if what == "pairs" and method != "dpo-st":
        raise ConfigError(f"{run.folder}: method {method} makes no pairs (dpo-st does).", "Export sft instead.")
    last = 0 if method == "sft" else run.config.schedule.iterations
    numbers = range(1 if what == "pairs" else 0, last + 1)
    stages = {n: f"{n}-iteration/{KINDS[what]}" if n else f"0-warmup/{KINDS[what]}" for n in numbers}
    done = [number for number in numbers if run.is_done(stages[number])]
    if iteration is not None and iteration not in numbers:
        raise RunError(f"{run.folder}: expected an iteration of {_listed(numbers)}, got {iteration}.")
    wanted = iteration if iteration is not None else (done or numbers)[-1]
    if wanted in done:
        return stages[wanted]
    raise RunError(
        f"{run.folder}: {stages[wanted]} is not finished.",
        f"Finished: iteration {_listed(done)}." if done else "Run the same `selftrain run` again to go on.",
    )


def _listed(numbers: range | list[int]) -> str:
    return ", ".join(map(str, numbers))


def codec_of(run: RunFiles, say: Callable[[str], None]) -> Codec:
    """The run's prompt settings with its tokenizer: of a model in its folder, of the base where it was, or found anew.

    Raises:
        ModelError: none of these is there.
    """
    base = (read_sealed(run.folder / "weights.json") or {}).get("path")
    places = [run.folder / "model", run.folder / "base", *([Path(base)] if base else [])]
    path = next((place for place in places if usable(place)), None) or resolve(run.config.model, say=say).path
    trust = run.config.compute.trust_remote_code
    return Codec.build(load_tokenizer(path, trust), run.config.prompt, config_is_encoder_decoder(path, trust))


def _licences(run: RunFiles) -> dict[str, str]:
    """source -> licence, of everything that rows may be made of."""
    sets = (run.config.data.train, run.config.data.unlabelled)
    sources = [*(spec.source for spec in sets if spec is not None), *([BROUGHT] if run.config.data.samples else [])]
    return {source: licence_of(source) for source in sources}


def _models(run: RunFiles) -> dict[str, str]:
    """stage -> digest of what wrote its samples: weights, or the file that they were brought in."""
    models = {
        stage: str(manifest["inputs"]["model"]) for stage, manifest in run.manifests.items()
        if "model" in manifest["inputs"]
    }  # fmt: skip
    return models | ({BROUGHT: str(run.figures(BROUGHT)["sha256"])} if run.is_done(BROUGHT) else {})


class _Writer:
    """Makes rows of records, and counts those that other trainers will read as other tokens."""

    def __init__(
        self, codec: Codec, questions: Mapping[str, Problem], models: Mapping[str, str], *, as_messages: bool
    ) -> None:
        self.codec, self.questions, self.models, self.as_messages = codec, questions, models, as_messages
        self.read_otherwise = 0

    def pair(self, pair: Pair) -> PairRow:
        """A pair's row."""
        self._count(pair.problem_id, pair.chosen_ids, pair.rejected_ids)
        question = self.questions[pair.problem_id].question
        return PairRow(
            [self._user(question)] if self.as_messages else self.codec.prompt_text(question),
            self._side(pair.chosen_ids),
            self._side(pair.rejected_ids),
            pair.problem_id,
            pair.chosen_from,
            pair.rejected_from,
            self._model_of(pair.chosen_from),
            self._model_of(pair.rejected_from),
        )

    def example(self, example: Example) -> CompletionRow | MessagesRow:
        """An example's row."""
        self._count(example.problem_id, example.target_ids)
        question = self.questions[example.problem_id].question
        told = (example.problem_id, example.origin, example.model)
        if self.as_messages:
            return MessagesRow([self._user(question), _assistant(self.codec.text(example.target_ids))], *told)
        return CompletionRow(self.codec.prompt_text(question), self.codec.continuation(example.target_ids), *told)

    def _user(self, question: str) -> Message:
        content = question if self.codec.config.chat_template is None else self.codec.message(question)
        return {"role": "user", "content": content}

    def _side(self, ids: tuple[int, ...]) -> str | list[Message]:
        return [_assistant(self.codec.text(ids))] if self.as_messages else self.codec.continuation(ids)

    def _model_of(self, origin: str) -> str:
        return self.models.get(origin.rpartition("#")[0], "")

    def _count(self, problem_id: str, *sides: tuple[int, ...]) -> None:
        """One more row; it reads otherwise where prompt and text, tokenised in one piece, give other ids."""
        prompt = "" if self.codec.encoder_decoder else self.codec.prompt_text(self.questions[problem_id].question)
        self.read_otherwise += not all(self._reads_back(prompt, ids) for ids in sides)

    def _reads_back(self, prompt: str, ids: tuple[int, ...]) -> bool:
        encode, eos_id = self.codec.tokenizer.encode, self.codec.eos_id
        stored = ids[:-1] if ids and ids[-1] == eos_id else ids
        whole = encode(prompt + self.codec.continuation(ids), add_special_tokens=False)
        return list(whole) == [*encode(prompt, add_special_tokens=False), *stored]


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}
