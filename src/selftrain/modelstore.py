"""The models of one run: found, loaded, handed over, released, and made again when a released one is wanted.

Models travel between stages as `ModelRef`s; weights are read where they are used, one model in memory at a time.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from selftrain.card import write_card
from selftrain.config import RunConfig
from selftrain.errors import RunError
from selftrain.hardware import default_device, default_precision
from selftrain.models import LanguageModel, load_model
from selftrain.progress import Progress
from selftrain.rundir import RunDir, read_json, write_json
from selftrain.toy import NAMES as TOYS
from selftrain.toy import make_toy
from selftrain.training.fit import Precision
from selftrain.weights import default_cache, resolve, weights_digest

BASE = "base"
WEIGHTS = "weights.json"


@dataclasses.dataclass(frozen=True)
class ModelRef:
    """A model by what it is: the stage that made it, its folder, the digest of its weights, its optimiser steps."""

    stage: str
    path: Path
    digest: str
    steps: int = 0


class ModelStore:
    """Knows how each model of the run was made."""

    def __init__(self, config: RunConfig, rundir: RunDir, progress: Progress) -> None:
        self.config, self.rundir, self.progress = config, rundir, progress
        self.device = default_device() if config.compute.device == "auto" else config.compute.device
        asked = config.compute.precision
        self.precision: Precision = default_precision(self.device) if asked == "auto" else asked
        self._makers: dict[str, Callable[[], ModelRef]] = {}
        self._sampling: LanguageModel | None = None

    def base(self) -> ModelRef:
        """f0: its weights are resolved once a run; path and digest are kept in weights.json.

        Raises:
            ModelError: they cannot be found.
            RunError: they are not the weights that the run was started with.
        """
        team = self.rundir.team
        found = self._base() if team.is_main else None
        team.wait()
        return found or self._base()

    def _base(self) -> ModelRef:
        if self.config.model in TOYS:
            return self._toy()
        known = read_json(self.rundir.path / WEIGHTS)
        if known is not None and _holds(Path(known["path"]), known["digest"]):
            return ModelRef(BASE, Path(known["path"]), known["digest"])
        found = resolve(self.config.model, say=self.progress.say)
        if known is not None and found.digest != known["digest"]:
            raise RunError(
                f"{self.config.model} has other weights now ({found.digest[:12]}, from {found.source}) than when "
                f"the run was started ({known['digest'][:12]}).",
                "Bring those back, or start a run in another folder with --out.",
            )
        write_json(self.rundir.path / WEIGHTS, {"path": str(found.path.absolute()), "digest": found.digest})
        self.rundir.journal("weights", name=found.name, source=found.source, digest=found.digest)
        return ModelRef(BASE, found.path, found.digest)

    def _toy(self) -> ModelRef:
        folder = self.rundir.path / BASE
        if not folder.is_dir():
            temporary = self.rundir.path / f".{BASE}.{os.getpid()}.tmp"
            make_toy(self.config.model, temporary, self.config.seed)
            os.replace(temporary, folder)
        return ModelRef(BASE, folder, weights_digest(folder))

    def make(self, stage: str, maker: Callable[[], ModelRef]) -> ModelRef:
        """Make a model by running its stage (skipped when finished), and remember how."""
        self._makers[stage] = maker
        self._sampling = None
        return maker()

    def open(self, model: ModelRef, precision: str) -> LanguageModel:
        """Load a model; one whose weights were released is trained again first, and must come out the same."""
        self.restore(model)
        return load_model(
            model.path,
            digest=model.digest,
            device=self.device,
            precision=precision,
            trust_remote_code=self.config.compute.trust_remote_code,
        )

    def open_to_sample(self, model: ModelRef) -> LanguageModel:
        """Load a model in the run's precision; stages that follow each other share it."""
        if self._sampling is None or self._sampling.digest != model.digest:
            self._sampling = None
            self._sampling = self.open(model, self.precision)
        return self._sampling

    def restore(self, model: ModelRef) -> None:
        """See to it that the model's weights are on disk.

        Raises:
            RunError: training again gave other weights.
        """
        if model.path.is_dir():
            return
        self.progress.say(f"{model.stage}: weights were released and are wanted again; training it once more.")
        self.rundir.forget(model.stage)
        again = self._makers[model.stage]()
        if again.digest != model.digest:
            raise RunError(
                f"{model.stage} gave other weights than the first time ({again.digest[:12]}, was {model.digest[:12]}).",
                "Another machine, thread count or version of torch can do that. Start the run again in another folder.",
            )

    def release_all_but(self, *kept: ModelRef) -> None:
        """Delete weights that no stage needs any more (`checkpoints.keep`)."""
        self.rundir.team.wait()
        if self.config.checkpoints.keep == "all":
            return
        for stage in self._makers:
            if stage not in {model.stage for model in kept}:
                self.rundir.release(stage)

    def deliver(self, model: ModelRef, style: str) -> None:
        """Put a model into `model/`: a plain transformers folder with a card and how to ask it."""
        self.restore(model)
        if not self.rundir.team.is_main:
            return
        target = self.rundir.path / "model"
        temporary = self.rundir.path / f".model.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(model.path, temporary, copy_function=_link_or_copy)
        write_card(temporary, self.config, model.digest, style)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        self.rundir.journal("delivered", stage=model.stage, digest=model.digest)


def _holds(folder: Path, digest: str) -> bool:
    return folder.is_dir() and weights_digest(folder, default_cache()) == digest


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
