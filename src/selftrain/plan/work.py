"""What one stage of a run does, in rows, tokens, steps and bytes; of a finished one, as its manifest says."""

from __future__ import annotations

import dataclasses

from selftrain.cost import flops, stage_cost
from selftrain.report.account import data_facts
from selftrain.report.files import RunFiles

# Bytes on disk, as seen in the quickstart run of 2026-11-26: a token of a judged completion, a token id of an example
# or pair, a problem, a line of a training log.
COMPLETION_BYTES, ID_BYTES, PROBLEM_BYTES, STEP_BYTES = 10.7, 5.3, 420, 210


@dataclasses.dataclass(frozen=True)
class Work:
    """What one stage does. `prompt_tokens` are read by sampling, `forwarded_tokens` by DPO without gradient."""

    stage: str
    rows: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    sampled_tokens: int = 0
    trained_tokens: int = 0
    forwarded_tokens: int = 0
    steps: int = 0
    file_bytes: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.sampled_tokens + self.trained_tokens + self.forwarded_tokens

    def flops(self, parameters: int) -> int:
        """By the rule of cost.py."""
        read = self.prompt_tokens + self.sampled_tokens + self.forwarded_tokens
        return flops(parameters, trained_tokens=self.trained_tokens, forwarded_tokens=read)

    @property
    def kind(self) -> str:
        """training, sampling, or other."""
        return kind_of(self.stage)


def kind_of(stage: str) -> str:
    """What a stage spends its time on: training, sampling, or other.

    >>> kind_of("1-iteration/dpo"), kind_of("0-base/evaluate/svamp"), kind_of("1-iteration/pair")
    ('training', 'sampling', 'other')
    """
    last = stage.rpartition("/")[2]
    if last in ("sft", "dpo"):
        return "training"
    return "sampling" if "/evaluate" in stage or last == "validate" or last.startswith("sample-for-") else "other"


def done_work(run: RunFiles, stage: str) -> Work:
    """A finished stage, from its own figures."""
    figures = run.figures(stage)
    cost = stage_cost(stage, figures, seconds=0.0, parameters=None, headline=None)
    prompts = int(figures.get("prompt_tokens", 0))
    size = sum(file.stat().st_size for file in (run.folder / stage).glob("*.json*"))
    return Work(
        stage, rows=_rows(run, stage), samples=int(figures.get("completions", 0)), prompt_tokens=prompts,
        sampled_tokens=cost.sampled_tokens, trained_tokens=cost.trained_tokens,
        forwarded_tokens=cost.forwarded_tokens - prompts, steps=int(figures.get("steps", 0)), file_bytes=size,
    )  # fmt: skip


def _rows(run: RunFiles, stage: str) -> int:
    """Problems of a stage that samples, rows that were selected, pairs made, or those that were trained on."""
    if stage == "data":
        return sum(int(one["rows"]) for one in data_facts(run).values())
    made_by = stage.replace("/dpo", "/pair").replace("/sft", "/select")
    if "sft-matched/sft-matched" in stage:
        made_by = "0-warmup/select"
    figures = run.figures(made_by)
    if made_by.endswith("/select"):
        return int(figures["gold"]) + int(figures["pseudo_labels"])
    return int(figures.get("problems") or figures.get("pairs") or 0)
