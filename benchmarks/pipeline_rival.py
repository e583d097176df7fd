"""How each goes through the iteration: ours by `selftrain.run`, the rival by transformers' `generate` and TRL.

    found = iterate(setup, file, repetition=0)      # in a process of its own; `setup.rows` is the rival's batch

Ours starts in a folder with data and warm-up copied into it, so that it goes on after these; the seconds are those
that the run itself noted of each stage. The DPO model is in memory already when its samples for labels are drawn,
since its evaluation comes before, so loading it is measured afterwards and added.

The rival is what a user would put together, phase by phase: load, work, save, and all of that is timed. It samples
as the paper does (`rivals`: one pass a sample index, the calculator in a logits processor), pairs and labels are
chosen by our own code from our verifier's verdicts, and DPO (reference computed before training) and SFT (no packing:
every row keeps its step) are TRL's.

The rival's optimiser steps are those of our plan. TRL gets each distinct row once, and a batch sampler gives it the
plan's effective batches, one whole batch a forward: gradients are never accumulated, so a batch of fewer rows is a
step of its own and not filled up from the next, DPO's mean is over the batch's pairs and SFT's over its tokens, as
ours. So an effective batch must fit in memory at once. The schedule is transformers' `cosine_warmup_with_min_lr`,
which gives the rate of our own `learning_rate` at every step.

Both delivered models are evaluated here, greedily by our engine with the calculator; that is not timed.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks import measure
from benchmarks.pipeline_work import (
    AT,
    DELIVERED,
    OURS,
    PHASES,
    IterationTask,
    Json,
    folder_of,
    judging,
    load_iteration_task,
    work_done,
)
from benchmarks.rivals import open_system
from benchmarks.systems import Ids, Setup
from benchmarks.training_work import TrainingTask, objective_of, step_rows
from benchmarks.trl_parts import (
    PACKAGES,
    common_arguments,
    dataset_of,
    in_batches,
    indexed,
    schedule,
    trainer_of,
    with_pad_token,
)
from benchmarks.work import Question, Task
from selftrain.config import OptimizerConfig, RunConfig
from selftrain.hardware import forget_peak_memory
from selftrain.judged import COMPLETIONS, right_by_problem
from selftrain.models import load_model, load_tokenizer, save_model, set_dropout
from selftrain.progress import Silent
from selftrain.prompts import Codec
from selftrain.records import Completion, Example, Pair, Problem, read_jsonl, write_jsonl
from selftrain.rundir import RunDir
from selftrain.seeding import derive_seed
from selftrain.stagefolder import read_json
from selftrain.stages.data import load_sets
from selftrain.stages.pair import PAIRS, run_pair
from selftrain.stages.sample import LABEL_TOLERANCE
from selftrain.stages.select import read_examples, run_select
from selftrain.stages.train import MODEL
from selftrain.training.dpo import Question as DPOQuestion
from selftrain.training.dpo import group_pairs
from selftrain.use import Tutor
from selftrain.verify import judge
from selftrain.weights import weights_digest

STARTS = ("data", "0-base", "0-warmup", "base")  # of a run folder: what the iteration starts from


def iterate(setup: Setup, file: Path, repetition: int) -> Json:
    """Carry out the iteration in this process, and say what it took and what came of it."""
    task, folder = load_iteration_task(file), folder_of(file, setup.system, repetition)
    shutil.rmtree(folder, ignore_errors=True)
    forget_peak_memory()
    go = _ours if setup.system == OURS else _theirs
    said = go(setup, task, folder, repetition)
    peak = measure.peak_memory_bytes(setup.device)
    return {
        **said,
        "peak_memory_bytes": peak,
        "verdicts": verdicts(setup, task, folder / DELIVERED),
        "versions": measure.versions(PACKAGES),
    }


def verdicts(setup: Setup, task: IterationTask, model: Path) -> str:
    """A 1 or a 0 for each problem of the test set: whether the model's greedy answer is right."""
    config, problems = task.settings(), judging(task)
    loaded = load_model(model, digest="", device=setup.device, precision=setup.precision)
    codec = Codec.build(loaded.tokenizer, config.prompt, encoder_decoder=False)
    tokens = config.evaluation.max_new_tokens or config.sampling.max_new_tokens
    right = right_by_problem(Tutor(loaded, codec, tokens).evaluate(problems))
    return "".join("1" if right[problem.id] else "0" for problem in problems)


# --- Ours ---


def _ours(setup: Setup, task: IterationTask, folder: Path, repetition: int) -> Json:
    import selftrain
    from selftrain.terminal import make_progress

    config = task.settings()
    with RunDir.open(folder, config):
        for name in STARTS:
            if (Path(task.run) / name).is_dir():
                shutil.copytree(Path(task.run) / name, folder / name)
    selftrain.run(config, out=folder, progress=make_progress())
    manifests = {phase: read_json(folder / AT / phase / "manifest.json") for phase in PHASES}
    missing = [phase for phase, manifest in manifests.items() if manifest is None]
    if missing:
        raise RuntimeError(f"the iteration has no {', '.join(missing)}: there was no pair to learn from")
    if manifests["dpo"]["figures"]["start_weights"] != task.digest:
        raise RuntimeError("the warm-up came out with other weights than the rival starts from")
    phases = {phase: manifest["seconds"] for phase, manifest in manifests.items()}
    loading = _loading_s(setup, folder / AT / "dpo" / MODEL)
    phases["sample-for-labels"] += loading
    steps = {phase: manifests[phase]["figures"]["steps"] for phase in ("dpo", "sft")}
    settings = {"layout": manifests["sft"]["figures"]["layout"], "loading_added_s": round(loading, 3)}
    return {"phases": phases, "work": work_done(folder, steps), "settings": settings}


def _loading_s(setup: Setup, model: Path) -> float:
    started = time.perf_counter()
    load_model(model, digest="", device=setup.device, precision=setup.precision)
    return time.perf_counter() - started


# --- The rival ---


def _theirs(setup: Setup, task: IterationTask, folder: Path, repetition: int) -> Json:
    """The six phases, into a folder laid out as a run's."""
    for is_dpo in (True, False):
        trainer_of(is_dpo)  # imports are not timed, as ours are not
    config, sets, place = task.settings(), load_sets(Path(task.run) / "data"), folder / AT
    warm_up = (Path(task.model), task.digest)
    codec = Codec.build(load_tokenizer(warm_up[0]), config.prompt, encoder_decoder=False)
    shared: Json = {"config": config, "codec": codec, "progress": Silent()}
    phases = measure.Stopwatch(setup.device)
    trained: dict[str, Json] = {}
    scripts = _Scripts(setup, config, codec, sets.questions, repetition)
    with phases.of("sample-for-pairs"):
        for_pairs = scripts.sample(warm_up, config.sampling.samples_for_pairs, place / "sample-for-pairs")
    with phases.of("pair"):
        run_pair(place / "pair", f"{AT}/pair", sets.questions, [for_pairs], **shared)
    with phases.of("dpo"):
        pairs = scripts.dpo_task(warm_up, place / "pair" / PAIRS)
        trained["dpo"] = train(setup, pairs, place / "dpo" / MODEL, repetition)
    sampler = (place / "dpo" / MODEL, weights_digest(place / "dpo" / MODEL))
    with phases.of("sample-for-labels"):
        for_labels = scripts.sample(sampler, config.sampling.samples_for_labels, place / "sample-for-labels")
    with phases.of("select"):
        run_select(place / "select", f"{AT}/select", sets.train, sets.questions, [for_labels], **shared)
    start = (Path(task.base), task.base_digest) if config.schedule.start_from == "base" else warm_up
    with phases.of("sft"):
        trained["sft"] = train(setup, scripts.sft_task(start, place / "select"), folder / DELIVERED, repetition)
    steps = {name: said["steps"] for name, said in trained.items()}
    settings = {"rows": setup.rows, **{name: said["settings"] for name, said in trained.items()}}
    return {"phases": phases.seconds, "work": work_done(folder, steps), "settings": settings}


Weights = tuple[Path, str]  # folder and digest


@dataclasses.dataclass
class _Scripts:
    """What a user's scripts would do."""

    setup: Setup
    config: RunConfig
    codec: Codec
    questions: Sequence[Problem]
    repetition: int

    def sample(self, model: Weights, num_samples: int, folder: Path) -> Path:
        """Load a model, sample every question, judge, write: the file."""
        sampling, name = self.config.sampling, folder.name
        prompts = {problem.id: self.codec.prompt(problem.question) for problem in self.questions}
        limit = self.config.prompt.max_prompt_tokens
        asked = [problem for problem in self.questions if len(prompts[problem.id]) <= limit]
        work = tuple(Question(problem.id, prompts[problem.id], problem.answer, "") for problem in asked)
        task = Task(
            name, str(model[0]), model[1], self.config.prompt.model_dump(), num_samples, sampling.temperature,
            sampling.max_new_tokens, work, (),
        )  # fmt: skip
        setup = dataclasses.replace(self.setup, system="hf-calculator", samples=num_samples)
        answers = open_system(setup, task, work)(derive_seed("benchmark", self.repetition, name)).token_ids
        completions: list[Completion] = []
        for number, problem in enumerate(asked):
            own = answers[number * num_samples : (number + 1) * num_samples]
            written = [self._completion(problem, k, ids, model, name) for k, ids in enumerate(own)]
            completions += judge(problem, written, tolerance=LABEL_TOLERANCE)
        write_jsonl(folder / COMPLETIONS, completions)
        return folder / COMPLETIONS

    def _completion(self, problem: Problem, k: int, ids: Ids, model: Weights, name: str) -> Completion:
        stop: Literal["eos", "length"] = "eos" if ids and ids[-1] == self.codec.eos_id else "length"
        return Completion(problem.id, k, ids, self.codec.text(ids), stop, model=model[1], stage=f"{AT}/{name}")

    def dpo_task(self, start: Weights, pairs: Path) -> TrainingTask:
        """The pairs, as our stage would train on them."""
        prompts = {problem.id: self.codec.prompt(problem.question) for problem in self.questions}
        questions = tuple(group_pairs(read_jsonl(pairs, Pair), prompts))
        return self._training("dpo", start, self.config.training.dpo, questions, ())

    def sft_task(self, start: Weights, examples: Path) -> TrainingTask:
        """The examples, as our stage would train on them."""
        return self._training("sft", start, self.config.training.sft, (), tuple(read_examples(examples)))

    def _training(
        self,
        name: str,
        start: Weights,
        settings: OptimizerConfig,
        questions: tuple[DPOQuestion, ...],
        examples: tuple[Example, ...],
    ) -> TrainingTask:
        return TrainingTask(
            name, str(start[0]), start[1], questions, examples, settings.model_dump(mode="json"),
            derive_seed(self.config.seed, name, AT), self.config.training.micro_batch_tokens, encoder_decoder=False,
        )  # fmt: skip


def train(setup: Setup, task: TrainingTask, out: Path, seed: int) -> Json:
    """Load a model, train it on the task's steps by TRL, save it: how many steps, and what TRL was told."""
    model = load_model(Path(task.model), digest=task.digest, device=setup.device)  # fp32: master weights
    set_dropout(model.module, task.settings.get("dropout"))
    rows, batches = indexed(step_rows(objective_of(task, model.pad_id, "rows")))
    kind, config = trainer_of(is_dpo=bool(task.questions))
    settings = trl_arguments(task, len(batches))
    with tempfile.TemporaryDirectory() as folder:
        trainer = in_batches(kind, batches)(
            model=model.module,
            args=config(output_dir=folder, seed=seed, **(common_arguments(setup, task.settings) | settings)),
            train_dataset=dataset_of(rows),
            processing_class=with_pad_token(model.tokenizer),
        )
        if len(trainer.train_dataset) != len(rows):
            raise RuntimeError(f"{len(rows)} rows were given, and TRL has {len(trainer.train_dataset)}")
        trainer.train()
    save_model(model, out)
    return {"steps": int(trainer.state.global_step), "settings": settings}


def trl_arguments(task: TrainingTask, num_steps: int) -> Json:
    """What TRL is told of the task beside `common_arguments`."""
    settings = task.settings
    found = {
        "per_device_train_batch_size": settings["batch_size"],  # of the reference pass; steps have their own sampler
        "gradient_accumulation_steps": 1,
        "max_length": None,
        **schedule(settings, num_steps),
    }
    if task.questions:
        return {**found, "precompute_ref_log_probs": True, "beta": settings["beta"]}
    return {**found, "packing": False}
