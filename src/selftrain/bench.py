"""What every stage of a run is made with, and how a stage is bound to its folder.

`Bench.prepare` brings models, codec, problems and samples made elsewhere; samplebench.py adds the stages that sample,
workbench.py those that select and train. A stage's key is the digest of its inputs (the digests of earlier stages or
weights) and of the settings that it reads. Stages in `beyond` are not begun: `Stopped` ends the run there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from selftrain.config import RunConfig
from selftrain.data.reading import open_path
from selftrain.errors import SelftrainError
from selftrain.hardware import (
    device_memory_bytes,
    device_note,
    folder_bytes,
    forget_peak_memory,
    matrix_flops,
    peak_memory,
)
from selftrain.judged import BROUGHT
from selftrain.memory import check_training_room
from selftrain.models import load_config, load_tokenizer
from selftrain.modelstore import ModelStore
from selftrain.progress import Progress
from selftrain.prompts import Codec
from selftrain.report.expected import expected_stages
from selftrain.rundir import Figures, RunDir, StageResult, Work
from selftrain.sampling.paths import check_config
from selftrain.sampling.vllm_support import check_model
from selftrain.stagefolder import file_digest, read_manifest
from selftrain.stages.brought import EXPECTED_FILE, run_brought
from selftrain.stages.data import load_sets, run_data
from selftrain.userpath import user_path


class Stopped(SelftrainError):
    """The run was asked to begin no stage from this one on."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


class Bench:
    """Config, folder, models, codec and problems of one run."""

    def __init__(
        self, config: RunConfig, rundir: RunDir, progress: Progress, beyond: Collection[str] = frozenset()
    ) -> None:
        self.config, self.rundir, self.progress, self.beyond = config, rundir, progress, beyond
        rundir.say = progress.say
        self.models = ModelStore(config, rundir, progress)
        self.peak_flops: float | None = None  # of matrix products, before the stage at hand; the main process's alone
        self.apart: Callable[[str], Figures] | None = None  # does a stage's work in a process of its own (isolate.py)

    def prepare(self) -> None:
        """Weights, codec, the sets of problems, and the samples made elsewhere."""
        if self.config.compute.threads:
            import torch

            torch.set_num_threads(self.config.compute.threads)
        self.base = self.models.base()
        trust = self.config.compute.trust_remote_code
        self.model_config = load_config(self.base.path, trust)
        self.codec = Codec.build(
            load_tokenizer(self.base.path, trust), self.config.prompt, bool(self.model_config.is_encoder_decoder)
        )
        if self.config.sampling.backend == "engine":
            check_config(self.model_config)
        self._check_room()
        check_model(self.config.sampling, self.config.model, self.codec)
        self.own_warmup = self.models.own_warmup(self.base)
        self.progress.say(
            f"{self.config.name}: {self.config.method} with {self.config.model}, {self.models.device}, "
            f"{self.models.precision}; run folder {self.rundir.path}"
        )
        if note := device_note(self.models.device):
            self.progress.say(note)
        result = self.stage(
            "data",
            inputs={"tokenizer": self.base.digest},
            settings={
                "data": self.config.data.model_dump(mode="json", exclude={"samples"}),
                "prompt": self.config.prompt.model_dump(exclude_none=True),
                "targets": self.config.training.max_target_tokens,
            },
            work=lambda folder: run_data(folder, self.config, self.codec, self.progress),
        )
        self.sets = load_sets(result.folder)
        self.data_digest = result.digest
        self._brought = self._bring()

    def _check_room(self) -> None:
        """Refuse a run whose trainings cannot fit, as long as one of them is ahead."""
        trainings = [stage for stage in expected_stages(self.config) if stage.endswith(("/sft", "/dpo"))]
        if all(read_manifest(self.rundir.path / stage) for stage in trainings):
            return
        check_training_room(
            self.model_config,
            self.config.training,
            device_memory_bytes(self.models.device),
            num_processes=self.rundir.team.size,
            precision=self.models.precision,
        )

    def _bring(self) -> StageResult | None:
        """The samples made elsewhere as a stage, judged and tokenised; None where the run has none."""
        spec = self.config.data.samples
        if spec is None:
            return None
        file, made = user_path(spec.path), read_manifest(self.rundir.path / BROUGHT)
        if made is None or file.exists():
            digest = file_digest(open_path(spec.path, EXPECTED_FILE))
        else:  # the run was moved to where the file is not; its rows are in the stage
            digest = made["inputs"]["file"]
        result = self.stage(
            BROUGHT,
            inputs={"data": self.data_digest, "file": digest},
            settings={},
            work=lambda folder: run_brought(
                folder, file, self.sets.questions, codec=self.codec, progress=self.progress
            ),
        )
        for message in result.figures["warnings"]:
            self.warn(message, BROUGHT)
        return result

    def brought_for(self, use: str) -> list[StageResult]:
        """The samples made elsewhere that join a pool, "pairs" or "labels"."""
        spec = self.config.data.samples
        joins = spec is not None and spec.use in ("both", use)
        return [self._brought] if joins and self._brought is not None else []

    def warn(self, message: str, stage: str) -> None:
        """Say it now and keep it for the report; nothing where the message is empty."""
        if message:
            self.rundir.warn(message, stage)

    def stage(
        self,
        name: str,
        *,
        inputs: dict[str, str],
        settings: dict[str, Any],
        work: Work,
        together: bool = False,
        scratch: Sequence[str] = (),
    ) -> StageResult:
        """A stage's result; it runs where it is not finished. What its figures note is warned of.

        `together`: the stage computes on the device, and all processes of a team take part. `scratch`: see
        `RunDir.stage`.

        Raises:
            Stopped: it lies beyond the point where the run is to stop, and is not finished.
        """

        def timed(folder: Path) -> Figures:
            if together and self.apart is not None:
                return self.apart(name)
            if not (together and self.rundir.team.is_main):
                return work(folder)
            self.peak_flops = matrix_flops(self.models.device, self.models.precision)
            self.rundir.journal("speed", stage=name, flops=round(self.peak_flops))
            forget_peak_memory()
            before = peak_memory()
            figures = work(folder)
            # The system counts pages late, so what it calls the peak may lie a little below what was held before.
            memory = {kind: max(most, before.get(kind, 0)) for kind, most in peak_memory().items()}
            self.rundir.journal("peak", stage=name, memory=memory, before=before, disk=folder_bytes(self.rundir.path))
            return figures

        if name in self.beyond and self.rundir.team.any(self.rundir.finished(name, inputs, settings) is None):
            raise Stopped(name)
        result = self.rundir.stage(
            name, inputs=inputs, settings=settings, work=timed, together=together, scratch=scratch
        )
        if result.skipped:
            self.progress.begin(name)
            self.progress.end(skipped=True)
        for note in result.figures.get("notes", ()):
            self.warn(note, name)
        return result


def digests(pool: Sequence[StageResult]) -> dict[str, str]:
    """name -> digest of each stage of a pool."""
    return {result.name: result.digest for result in pool}
