"""Which stages two runs of a study will share, told from their configurations before either is begun.

    shared_stages(first, second)      # of the second run: those that it will find finished in the first

sharing.py takes a stage by its key when it is there. Here the keys are not known yet, so it is said which settings each
kind of stage reads, and what follows from what. Where that is not certain a stage counts as not shared.
"""

from __future__ import annotations

from selftrain.config import RunConfig
from selftrain.identity import identity
from selftrain.report.expected import expected_stages
from selftrain.sharing import may_share

DECODED = tuple(f"sampling.{name}" for name in ("max_new_tokens", "slots", "shard_questions", "backend", "vllm"))
DRAWN = (*DECODED, *(f"sampling.{name}" for name in ("temperature", "top_k", "top_p", "calculator")))
ANSWERED = (*DECODED, "evaluation.max_new_tokens")
READS: dict[str, tuple[str, ...]] = {  # the last part of a stage's name -> the settings that it reads
    "data": (),
    "samples": (),
    "select": ("labels.",),
    "sft": ("training.sft.",),
    "pair": ("pairs.",),
    "dpo": ("training.dpo.",),
    "sample-for-pairs": ("sampling.samples_for_pairs", "method", *DRAWN),
    "sample-for-labels": (
        "sampling.samples_for_labels",
        "labels.reuse_samples_for_pairs",
        "method",
        "guard.",
        *DRAWN,
    ),  # fmt: skip
}
LOOP = ("schedule.start_from", "schedule.reference", "schedule.patience")
LENGTH = ("schedule.iterations", "schedule.patience", "method")  # which model is the last


def shared_stages(first: RunConfig, second: RunConfig) -> frozenset[str]:
    """The stages of `second` that come out as in `first`."""
    if not may_share(first, second):
        return frozenset()
    mine, theirs = identity(first), identity(second)
    differing = [key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)]
    there = set(expected_stages(first))
    same: set[str] = set()
    changed: set[str] = set()  # chains
    lasting = {"0-warmup/select"}  # it has the gold rationales alone, whatever the settings
    for stage in expected_stages(second):
        chain, reads = _chain(stage), _reads(stage)
        if any(key.startswith(reads) for key in differing) or changed & {chain, *_upstream(chain)}:
            if not _is_evaluation(stage) and stage not in lasting:
                changed.add(chain)
        elif stage in there:
            same.add(stage)
    return frozenset(same)


def _reads(stage: str) -> tuple[str, ...]:
    """The settings that a stage reads."""
    chain, last = _chain(stage), stage.rpartition("/")[2]
    if _is_evaluation(stage):
        rows = ("evaluation.without_calculator_rows",) if "/evaluate-without-calculator/" in stage else ()
        return (*ANSWERED, *rows, *(LENGTH if chain == "final" else ()))
    reads = READS[last]
    if chain == "baseline-sft-matched":
        return (*reads, *LENGTH)
    if chain == "baseline-st-matched" and last == "sample-for-labels":
        return (*reads, "sampling.samples_for_pairs")
    return (*reads, *LOOP) if chain not in ("data", "samples", "0-base", "0-warmup") else reads


def _is_evaluation(stage: str) -> bool:
    """Whether nothing is made from it."""
    return "/evaluate" in stage or stage.endswith("/validate")


def _chain(stage: str) -> str:
    """Stages that follow from one another: the warm-up's, those of the run's own loop, those of a baseline."""
    first = stage.partition("/")[0]
    return "loop" if first.endswith("-iteration") else first


def _upstream(chain: str) -> tuple[str, ...]:
    """The chains that a chain begins with."""
    if chain in ("final", "baseline-sft-matched"):
        return "0-warmup", "loop"
    return ("0-warmup",) if chain == "loop" or chain.startswith("baseline-") else ()
