"""Stages that sample or train, each in a process of its own (`compute.isolation`): what one leaves in the device's
memory, or dies of, is not the next one's.

    runner.bench.apart = Apart(rundir, progress)    # then the bench calls apart("1-iteration/dpo") for its figures
    python -m selftrain.isolate FOLDER STAGE        # what that starts

The parent holds the lock and keeps the books. The child passes what is finished, does the work of one stage, and tells
its progress, figures or error as lines of JSON on what was its standard output; it shares the standard error. A signal
is handed on to the child, and the parent waits for its end. A child that was killed (signal 9, as by a system without
memory) is started once more. One whose parent was killed ends at its next word, and holds the lock until then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from selftrain import durable, errors, stopping
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, RunError, UserError
from selftrain.hardware import default_device
from selftrain.identity import from_yaml
from selftrain.offline import OFFLINE, go_offline
from selftrain.processes import ALONE, Team
from selftrain.progress import Progress
from selftrain.rundir import Figures, RunDir, StageResult, Work
from selftrain.runner import Runner

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes
LAST_CHARS = 10_000  # of an error's message


def is_isolated(config: RunConfig, num_processes: int) -> bool:
    """Whether stages get processes of their own.

    Raises:
        ConfigError: they are asked for, and a launcher has started several already.
    """
    asked = config.compute.isolation
    if asked == "process" and num_processes > 1:
        raise ConfigError(
            f"compute.isolation=process is for a run of one process, and this one has {num_processes}.",
            "Leave it at auto.",
        )
    if asked != "auto" or num_processes > 1:
        return asked == "process"
    if os.name == "nt":  # a child cannot hold the parent's lock there
        return False
    return (default_device() if config.compute.device == "auto" else config.compute.device) == "cuda"


class Apart:
    """Does a stage's work in a child; a signal that comes meanwhile is the child's too."""

    def __init__(self, rundir: RunDir, progress: Progress) -> None:
        self.rundir, self.progress = rundir, progress

    def __call__(self, stage: str) -> Figures:
        """The figures of a stage whose turn it is.

        Raises:
            UserError: the one of the child, or it was killed twice.
        """
        code, heard = self._carried_out(stage)
        if code == -signal.SIGKILL:
            message = "its process was killed (signal 9: often for want of memory) and was started once more"
            self.progress.say(f"warning: {stage}: {message}")
            self.rundir.journal("warning", stage=stage, message=message)
            durable.sweep(self.rundir.path / stage)
            code, heard = self._carried_out(stage)
        if "figures" in heard:
            return dict(heard["figures"][0])
        if "error" in heard:
            kind, message, hint = heard["error"]
            raise getattr(errors, kind)(message, hint)
        if code in STOPPED:
            raise KeyboardInterrupt
        if code < 0:
            raise RunError(
                f"{stage}: its process was killed by signal {-code} (9: often for want of memory).",
                "Give it more memory, or lower training.micro_batch_tokens, and run the same command again to go on.",
            )
        raise RuntimeError(f"{stage}: its process ended with exit code {code}, and without figures")

    def _carried_out(self, stage: str) -> tuple[int, dict[str, Sequence[Any]]]:
        """Start a child and wait for its end: its exit code, and what it told beside its progress."""
        heard: dict[str, Sequence[Any]] = {}
        was_asked_to_stop = False
        command = [sys.executable, "-m", "selftrain.isolate", str(self.rundir.path), stage]
        lock = [] if self.rundir.lock is None else [self.rundir.lock]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=lock, process_group=0
        ) as child:
            while True:
                try:
                    for line in cast(IO[bytes], child.stdout):
                        self._hear(line, heard)
                    code = child.wait()
                    break
                except KeyboardInterrupt:
                    was_asked_to_stop = True
                    child.send_signal(stopping.exit_code() - 128)
        if was_asked_to_stop:
            raise KeyboardInterrupt
        return code, heard

    def _hear(self, line: bytes, heard: dict[str, Sequence[Any]]) -> None:
        try:
            what, *said = json.loads(line)
        except ValueError:  # cut off by a signal, here or there
            return
        if what in ("figures", "error"):
            heard[what] = said
        else:
            getattr(self.progress, what)(*said)


class _Told:
    """The child's `Progress`: goes to the parent, once its stage has begun."""

    def __init__(self, pipe: int) -> None:
        self.pipe, self.awake = pipe, False

    def tell(self, what: str, *said: Any) -> None:
        if self.awake:
            os.write(self.pipe, json.dumps([what, *said]).encode() + b"\n")

    def begin(self, stage: str, total: int | None = None, unit: str = "") -> None:
        """See `progress.Progress`."""
        self.tell("begin", stage, total, unit)

    def advance(self, amount: int = 1, detail: str = "") -> None:
        """See `progress.Progress`."""
        self.tell("advance", amount, detail)

    def end(self, figure: str = "", skipped: bool = False) -> None:
        """See `progress.Progress`."""
        self.tell("end", figure, skipped)

    def say(self, message: str) -> None:
        """See `progress.Progress`."""
        self.tell("say", message)


class _OneStage(RunDir):
    """The parent's folder as the child has it: nothing is written down but by the work of one stage."""

    def __init__(self, path: Path, at: str, told: _Told) -> None:
        config = from_yaml((path / "config.yaml").read_text(encoding="utf-8"))
        super().__init__(path, None, config, Team(rank=1))  # who is not the main process writes nothing
        self.at, self.told = at, told

    def _stage_of_main(
        self, name: str, inputs: Mapping[str, str], settings: Mapping[str, Any], work: Work | None
    ) -> StageResult:
        """Of stages that are not finished: tell the figures of the one whose turn it is, and end."""
        if name != self.at or work is None:
            raise RunError(f"{name}: expected it to be finished before {self.at}.")
        # From here on as the main process: a model whose weights were released is trained again inside the stage.
        self.team, self.told.awake = ALONE, True
        self.told.tell("figures", work(self.path / name))
        raise SystemExit


def main() -> None:
    """The child: ends with 0 where it has told the stage's figures."""
    told = _Told(os.dup(1))
    os.dup2(2, 1)  # whatever a library prints is for people
    if OFFLINE in os.environ:
        go_offline()
    try:
        with stopping.handled():
            rundir = _OneStage(Path(sys.argv[1]), sys.argv[2], told)
            Runner(rundir.config, rundir, told).run()
    except UserError as error:
        told.awake = True
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
        told.tell("error", kind, error.message[:LAST_CHARS], error.hint)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(stopping.exit_code()) from None
    except BrokenPipeError:  # the parent is gone
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
