"""The work of `pipeline`: one DPO-ST iteration after a given warm-up, and what came of it.

    task = iteration_task("quickstart", run, {"device": "cpu", "precision": "fp32", "threads": 2}, work, say)
    folder_of(file, "iteration", 0)       # where a process puts its files, as a run folder has them
    work_done(folder, steps)              # completions, pairs, labels: counts
    compare(own, theirs, problems)        # accuracies and the paired interval

The run's configuration is kept but for this: one iteration, no baselines, the first test set alone, no validation set
and no guard (no decision: both do the same work), weights kept. Warm-up and data are made once, in a folder outside
the checkout, and used again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.work import WARM_UP, Portable, Say
from selftrain.config import OptimizerConfig, RunConfig
from selftrain.errors import ConfigError, RunError
from selftrain.identity import identity
from selftrain.judged import COMPLETIONS, is_right
from selftrain.metrics import paired_difference
from selftrain.models import config_is_encoder_decoder
from selftrain.recipe import load_config
from selftrain.records import Completion, Pair, Problem, read_jsonl
from selftrain.rundir import RunDir
from selftrain.stagefolder import digest_of, read_json
from selftrain.stages.data import load_sets
from selftrain.stages.pair import PAIRS
from selftrain.stages.select import read_examples
from selftrain.stages.train import MODEL
from selftrain.weights import weights_digest

OURS, RIVAL = "iteration", "iteration-hf"
AT = "1-iteration"
PHASES = ("sample-for-pairs", "pair", "dpo", "sample-for-labels", "select", "sft")
DELIVERED = Path(AT) / "sft" / MODEL
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class IterationTask(Portable):
    """An iteration: `model` is the warm-up's; `run` the folder that holds data and warm-up; `config` a RunConfig."""

    run: str
    data: str  # digest of the sets
    base: str  # folder
    base_digest: str
    config: dict[str, Any]

    def fingerprint(self) -> str:
        """Digest of all that decides the result, not of where things lie."""
        return digest_of({**dataclasses.asdict(self), "model": "", "run": "", "base": ""})[:16]

    def facts(self) -> Json:
        """What results say of the task; no paths."""
        config, sets = self.settings(), load_sets(Path(self.run) / "data")
        sampling, training = config.sampling, config.training
        return {
            "fingerprint": self.fingerprint(),
            "weights": self.digest,
            "base_weights": self.base_digest,
            "labelled": len(sets.train),
            "questions": len(sets.questions),
            "test": [{"name": name, "rows": len(problems)} for name, problems in sets.tests.items()],
            "samples": [sampling.samples_for_pairs, sampling.samples_for_labels],
            "temperature": sampling.temperature,
            "max_new_tokens": sampling.max_new_tokens,
            "batch_sizes": [training.dpo.batch_size, training.sft.batch_size],
        }

    def settings(self) -> RunConfig:
        """The configuration."""
        return RunConfig.model_validate(self.config)


def load_iteration_task(path: Path) -> IterationTask:
    """The task that `save` wrote."""
    return IterationTask(**json.loads(path.read_text(encoding="utf-8")))


def folder_of(file: Path, system: str, repetition: int) -> Path:
    """Where a repetition of a saved task puts its files: beside the tasks, by their name."""
    return file.parents[1] / "pipeline" / f"{file.stem}-{system}-{repetition}"


def judging(task: IterationTask) -> list[Problem]:
    """The problems of the test set."""
    return next(iter(load_sets(Path(task.run) / "data").tests.values()))


# --- What is carried out, from a run or a recipe ---


def iteration_task(recipe: str, run: Path | None, compute: Mapping[str, Any], work: Path, say: Say) -> IterationTask:
    """The iteration of a recipe, or of a run's configuration; its warm-up is made where it is not there.

    Args:
        run: a run folder; its warm-up weights are taken where they were kept.
        compute: device, precision and threads, for both.

    Raises:
        RunError: the folder holds no run.
        ConfigError: a configuration that the rival cannot carry out.
    """
    if run is not None and not (run / "config.yaml").is_file():
        raise RunError(f"{run} holds no run.", "Give the folder of a run, or leave --run out.")
    config = one_iteration(load_config(recipe if run is None else str(run / "config.yaml")), compute)
    refuse_what_differs(config)
    folder = _warm_up(config, run, work, say)
    model, known = folder / WARM_UP, read_json(folder / "weights.json")
    base = folder / "base" if known is None else Path(known["path"])  # a toy lies in the run
    if config_is_encoder_decoder(model):
        raise ConfigError(f"{config.model} is an encoder-decoder, and TRL's trainers take decoder-only models.")
    return IterationTask(
        name="iteration",
        model=str(model),
        digest=weights_digest(model),
        run=str(folder),
        data=read_json(folder / "data" / "manifest.json")["digest"],
        base=str(base),
        base_digest=weights_digest(base),
        config=config.model_dump(mode="json"),
    )


def one_iteration(config: RunConfig, compute: Mapping[str, Any]) -> RunConfig:
    """The configuration that both carry out; the module says what is changed."""
    return config.model_copy(
        update={
            "method": "dpo-st",
            "baselines": [],
            "data": config.data.model_copy(update={"test": config.data.test[:1], "validation": None}),
            "schedule": config.schedule.model_copy(update={"iterations": 1, "patience": None}),
            "guard": config.guard.model_copy(update={"enabled": False}),
            "evaluation": config.evaluation.model_copy(update={"without_calculator_rows": 0}),
            "compute": config.compute.model_copy(update=dict(compute)),
            "checkpoints": config.checkpoints.model_copy(update={"keep": "all"}),
        }
    )


def refuse_what_differs(config: RunConfig) -> None:
    """See to it that the rival can be told the same.

    Raises:
        ConfigError: names every setting that it has no counterpart of.
    """
    sampling, dpo, sft = config.sampling, config.training.dpo, config.training.sft
    plain: tuple[OptimizerConfig, ...] = (dpo, sft)
    wrong = {
        "data.test (none)": not config.data.test,
        "sampling.calculator (off)": not sampling.calculator,
        "sampling.top_k": sampling.top_k != 0,
        "sampling.top_p": sampling.top_p != 1.0,
        "sampling.backend": sampling.backend != "engine",
        "training.dpo.loss": dpo.loss != "dpo",
        "training.dpo.length_normalised": dpo.length_normalised,
        "training.dpo.nll_alpha": dpo.nll_alpha != 0,
        "forced_tokens (off)": not all(settings.forced_tokens for settings in plain),
        "training.lora.rank": config.training.lora.rank != 0,
    }
    named = [name for name, is_wrong in wrong.items() if is_wrong]
    if named:
        raise ConfigError(f"The rival has no counterpart of {', '.join(named)}.", "Give another run or recipe.")


def _warm_up(config: RunConfig, run: Path | None, work: Path, say: Say) -> Path:
    """The folder of a finished run of the warm-up alone, with its data."""
    alone = config.model_copy(update={"method": "sft"})
    folder = work / f"{config.name}-pipeline-{digest_of(identity(alone))[:8]}"
    if (folder / WARM_UP).is_dir() and (folder / MODEL).is_dir():  # delivered: it is finished
        return folder
    trained = WARM_UP.parent
    if run is not None and (run / WARM_UP).is_dir() and not (folder / trained).exists():
        with RunDir.open(folder, alone):  # its key says whether it is the same training; else it is done again
            _copy_whole(run / trained, folder / trained)
    import selftrain
    from selftrain.terminal import make_progress

    say(f"Making the warm-up model of {config.name}; it is kept for the next time.")
    selftrain.run(alone, out=folder, progress=make_progress())
    return folder


def _copy_whole(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(target)


# --- What came of it ---


def work_done(folder: Path, steps: Mapping[str, int]) -> Json:
    """Counts of each phase, read from the files that both write alike; `steps` of the two trainings."""
    found: Json = {}
    for phase in ("sample-for-pairs", "sample-for-labels"):
        completions = read_jsonl(folder / AT / phase / COMPLETIONS, Completion)
        found[phase] = {
            "completions": len(completions),
            "tokens": sum(len(completion.token_ids) for completion in completions),
            "right": sum(map(is_right, completions)),
            "cut": sum(completion.stop == "length" for completion in completions),
        }
    examples = read_examples(folder / AT / "select")
    found["pair"] = {"pairs": len(read_jsonl(folder / AT / "pair" / PAIRS, Pair))}
    found["select"] = {"examples": len(examples), "labels": sum(row.origin != "gold" for row in examples)}
    return {**found, **{phase: {"steps": count} for phase, count in steps.items()}}


def compare(own: Mapping[str, Json], theirs: Mapping[str, Json], problems: Sequence[Problem]) -> Json | None:
    """Accuracies of the delivered models and the paired interval of ours minus theirs; None without both.

    Args:
        own, theirs: repetition -> record, with `verdicts`, a 1 or 0 a problem. Repetitions that both have are pooled.

    Problems that share a group count together, and so do a problem's repetitions.
    """
    both = sorted(own.keys() & theirs.keys(), key=int)
    if not both:
        return None
    sides = [
        {
            f"{number}/{problem.id}": verdict == "1"
            for number in both
            for problem, verdict in zip(problems, side[number]["verdicts"], strict=True)
        }
        for side in (own, theirs)
    ]
    shared = len({problem.group for problem in problems}) > 1
    groups = {
        f"{number}/{problem.id}": (problem.group if shared else None) or (problem.id if len(both) > 1 else None)
        for number in both
        for problem in problems
    }
    accuracies = [sum(side.values()) / max(len(side), 1) for side in sides]
    test = dataclasses.asdict(paired_difference(sides[0], sides[1], groups))
    return {"repetitions": len(both), "accuracies": accuracies, **test}
