"""The models of one run: found, loaded, handed over, released, and made again when a released one is wanted.

Models travel between stages as `ModelRef`s; weights are read where they are used, one model in memory at a time.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selftrain import durable
from selftrain.card import write_settings
from selftrain.config import RunConfig
from selftrain.errors import ModelError, RunError, listed
from selftrain.hardware import default_device, default_precision
from selftrain.models import LanguageModel, config_is_encoder_decoder, load_model, load_tokenizer, written
from selftrain.progress import Progress
from selftrain.report.card import write_card
from selftrain.report.collect import collect
from selftrain.report.files import RunFiles
from selftrain.rundir import RunDir
from selftrain.stagefolder import read_sealed, write_sealed
from selftrain.toy import NAMES as TOYS
from selftrain.toy import make_toy
from selftrain.training.fit import Precision
from selftrain.weights import default_cache, resolve, settings_digests, weights_digest

BASE = "base"
OWN_WARMUP = "0-warmup/own"  # names the user's model where stages name theirs; no stage of that name runs


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
        self._seen: set[str] = set()  # digests of weights that were compared with what is on the disk

    def base(self) -> ModelRef:
        """f0: its weights are resolved once a run; path and digest are kept in weights.json.

        Raises:
            ModelError: they cannot be found.
            RunError: they are not the weights, or not the config and tokenizer, that the run was started with.
        """
        if self.config.model in TOYS:
            return self._by_main(self._toy)
        return self._by_main(lambda: self._resolved(self.config.model, BASE, "weights"))

    def own_warmup(self, base: ModelRef) -> ModelRef | None:
        """The user's own f' (`warmup_model`), resolved once a run as the base is; None where the run trains it.

        Raises:
            ModelError: it cannot be found, or has other tokens than the base model.
            RunError: it has other weights than when the run was started.
        """
        name = self.config.warmup_model
        if name is None:
            return None
        found = self._by_main(lambda: self._resolved(name, OWN_WARMUP, "warmup-weights"))
        check_same_tokens(found.path, base.path, self.config.compute.trust_remote_code)
        return found

    def _by_main(self, find: Callable[[], ModelRef]) -> ModelRef:
        """What the main process finds first, and then the others."""
        team = self.rundir.team
        found = find() if team.is_main else None
        team.wait()
        return found or find()

    def _resolved(self, name: str, stage: str, event: str) -> ModelRef:
        note = self.rundir.path / f"{event}.json"
        known = self._noted(note)
        if known is not None and _holds(Path(known["path"]), known["digest"]):
            path = Path(known["path"])
            if changed := _changed_settings(known, path):
                raise RunError(
                    f"{path}: {listed(changed, 3)} is gone or is not what it was when the run was started.",
                    "Bring that back, or start a run in another folder with --out.",
                )
            return self._note(note, stage, path, known["digest"])
        found = resolve(name, say=self.progress.say)
        if known is not None and found.digest != known["digest"]:
            raise RunError(
                f"{name} has other weights now ({found.digest[:12]}, from {found.source}) than when the run was "
                f"started ({known['digest'][:12]}).",
                "Bring those back, or start a run in another folder with --out.",
            )
        if known is not None and (changed := _changed_settings(known, found.path)):
            there = f"{found.path} (the run was started with {known['path']})"
            self.rundir.warn(f"{name} is in {there} now, and {listed(changed, 3)} is not the same there", stage)
        self.rundir.journal(event, name=found.name, source=found.source, digest=found.digest)
        return self._note(note, stage, found.path, found.digest)

    def _noted(self, note: Path) -> dict[str, Any] | None:
        """Path and digests of a model, as the run noted them; None where there is no such note."""
        known = read_sealed(note)
        if known is not None and {"path", "digest"} <= known.keys():
            return known
        if note.exists():
            self.rundir.warn(f"{note.name} is not what was written; the model is looked for again", "start")
        return None

    def _note(self, note: Path, stage: str, path: Path, digest: str) -> ModelRef:
        now = {"path": str(path.absolute()), "digest": digest, "settings": settings_digests(path)}
        if self.rundir.team.is_main and read_sealed(note) != now:
            write_sealed(note, now)
        return ModelRef(stage, path, digest)

    def _toy(self) -> ModelRef:
        folder, note = self.rundir.path / BASE, self.rundir.path / "weights.json"
        known = self._noted(note)
        if folder.is_dir() and known is not None and not _is_as_noted(known, folder):
            self.rundir.warn(f"{BASE} is not what was written; it is made again from its seed", "start")
            durable.remove(folder)
        if not folder.is_dir():
            with written(folder) as temporary:
                make_toy(self.config.model, temporary, self.config.seed)
        return self._note(note, BASE, folder, weights_digest(folder))

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
            if model.digest in self._seen or weights_digest(model.path) == model.digest:
                self._seen.add(model.digest)
                return
            if model.stage not in self._makers:
                raise RunError(f"{model.path}: the weights are not those that the run began with.", "Bring those back.")
            self.progress.say(f"{model.stage}: its weights are not what was written; training it once more.")
        else:
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
        """Put a model into `model/`: a plain transformers folder, how to ask it, and a card of what is known now."""
        self.restore(model)
        if not self.rundir.team.is_main:
            return
        with written(self.rundir.path / "model") as temporary:
            shutil.copytree(model.path, temporary, copy_function=durable.link_or_copy)
            write_settings(temporary, self.config, style)
            write_card(temporary, collect(RunFiles(self.rundir.path)), model.digest)
        self.rundir.journal("delivered", stage=model.stage, digest=model.digest)


def check_same_tokens(own: Path, base: Path, trust_remote_code: bool = False) -> None:
    """Refuse a warm-up model that reads or ends text otherwise than the base model: all stages share token ids.

    Raises:
        ModelError: another vocabulary (with both sizes), end token or family.
    """
    mine, theirs = (load_tokenizer(path, trust_remote_code) for path in (own, base))
    differing = sorted(token for token, _ in mine.get_vocab().items() ^ theirs.get_vocab().items())
    if differing:
        raise ModelError(
            f"warmup_model {own}: its vocabulary has {len(mine)} tokens, the base model's {len(theirs)}; they differ, "
            f"such as in {differing[0]!r}.",
            "Expected the same tokens: name as `model` the base that it was trained from.",
        )
    if mine.eos_token_id != theirs.eos_token_id:
        raise ModelError(
            f"warmup_model {own}: it ends its text with {mine.eos_token!r}, the base model with {theirs.eos_token!r}.",
            "Set `eos_token` in one of the two tokenizer_config.json, so that both end alike.",
        )
    families = [config_is_encoder_decoder(path, trust_remote_code) for path in (own, base)]
    if families[0] != families[1]:
        raise ModelError(f"warmup_model {own}: it and the base model are not of one family (encoder-decoder or not).")


def _is_as_noted(known: Mapping[str, Any], folder: Path) -> bool:
    return weights_digest(folder) == known["digest"] and not _changed_settings(known, folder)


def _changed_settings(known: Mapping[str, Any], folder: Path) -> list[str]:
    """Files that were noted and are gone, or differ; an older version noted none."""
    now = settings_digests(folder)
    return [name for name, digest in known.get("settings", {}).items() if now.get(name) != digest]


def _holds(folder: Path, digest: str) -> bool:
    return folder.is_dir() and weights_digest(folder, default_cache()) == digest
