"""One repetition of one system, in a process of its own: so its memory is its own, and a rival can run elsewhere.

    result = launch(job, python=sys.executable, folder=work, limit_s=3600)     # in the parent
    python -m benchmarks.child JOB.json                                        # the child

The child loads (timed in a whole iteration only), samples or trains (timed), and writes ids or counts, seconds and
peak memory to the file that the job names. Whatever it prints goes to a log beside that file.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.systems import VLLM, Setup
from benchmarks.work import load_task
from selftrain.errors import SelftrainError
from selftrain.hardware import forget_peak_memory
from selftrain.stagefolder import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
LAST_CHARS = 300  # of a child's log, in a reason


class ChildError(SelftrainError):
    """A repetition that did not come to its end; says why in one line without paths."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a child is to do: `kind` "sample" samples `part` ("work" or "search") of a task, "train" trains on one,
    "iteration" carries one out whole, and "peak" measures the machine."""

    setup: Setup
    task: str  # file
    part: str
    seed: int
    kind: str = "sample"

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.setup.system}-{self.part}-{self.setup.rows}-{self.seed}"


Launch = Callable[[Job, str, Path, float], dict[str, Any]]


def launch(job: Job, python: str, folder: Path, limit_s: float) -> dict[str, Any]:
    """Run a job in a child process and give back what it wrote.

    Raises:
        ChildError: it failed, or ran longer than `limit_s`.
    """
    order, result, log = (folder / "jobs" / f"{job.name}.{kind}" for kind in ("job.json", "result.json", "log"))
    write_json(order, dataclasses.asdict(job))
    result.unlink(missing_ok=True)
    with log.open("wb") as stream:
        command = [python, "-m", "benchmarks.child", str(order), str(result)]
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env=child_environment(job.setup.threads), timeout=limit_s, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ChildError(f"not done after {limit_s:.0f} s") from None
    found = read_json(result)
    if code != 0 or found is None:
        raise ChildError(f"ended with code {code}: {_last_line(log)}")
    return dict(found)


def child_environment(threads: int) -> dict[str, str]:
    """Ours, with the threads and the places that children import from."""
    import selftrain

    places = [str(ROOT), str(Path(selftrain.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    defaults = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_LOGGING_LEVEL": "WARNING"}
    return {
        **defaults,
        **os.environ,
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return measure.without_paths(lines[-1])[-LAST_CHARS:] if lines else "it wrote nothing"


def run_job(job: Job) -> dict[str, Any]:
    """Do a job in this process."""
    setup = job.setup
    if setup.system not in VLLM:  # vLLM sees to its threads itself
        import torch

        torch.set_num_threads(setup.threads)
    if job.kind == "peak":
        return {name: measure.matrix_peak(setup.device, name) for name in ("fp32", "bf16")}
    if job.kind == "train":
        from benchmarks.training_rivals import train

        return train(setup, Path(job.task))
    if job.kind == "iteration":
        from benchmarks.pipeline_rival import iterate

        return iterate(setup, Path(job.task), job.seed)
    return _sampled(job)


def _sampled(job: Job) -> dict[str, Any]:
    setup, task = job.setup, load_task(Path(job.task))
    questions = task.work if job.part == "work" else task.search
    if setup.system in VLLM:
        from benchmarks.vllm_rival import open_vllm as open_system
    else:
        from benchmarks.rivals import open_system
    started = time.perf_counter()
    generate = open_system(setup, task, questions)
    loaded = time.perf_counter()
    own_memory = setup.system not in VLLM  # vLLM takes as much as it is told to
    if own_memory:
        forget_peak_memory()
    began = time.perf_counter()
    answers = generate(job.seed)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "loading_seconds": loaded - started,
        "peak_memory_bytes": measure.peak_memory_bytes(setup.device) if own_memory else None,
        "versions": measure.versions(),
        "token_ids": answers.token_ids,
        **answers.said,
    }


def job_from(row: dict[str, Any]) -> Job:
    """The job that was written as JSON."""
    return Job(**{**row, "setup": Setup(**row["setup"])})


def main(arguments: list[str]) -> None:
    """Read a job, do it, write its result."""
    order, result = arguments
    write_json(Path(result), run_job(job_from(read_json(Path(order)))))
    sys.stdout.flush()
    os._exit(0)  # libraries that linger (vLLM's threads, continuous batching's) hold nobody up


if __name__ == "__main__":
    main(sys.argv[1:])
