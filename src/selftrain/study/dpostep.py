"""What the DPO step did to the model that samples, by iteration: pass@k and distinct right answers, before and after.

    dpo_steps(study, runs, there, 0.95)
      -> [{"arm": "dpo-st", "iteration": 1, "passes": [{"k": 1, "before": 0.361, "after": 0.365, ...}], ...}]

Before and after drew answers to the same questions of U, and are compared question by question. pass@k
is the unbiased estimate from all that were drawn; distinct right texts are counted at the k that both drew. Iterations
whose DPO model did not sample (no pairs, or the guard) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.evidence import change_over_seeds, verdict
from selftrain.judged import is_right
from selftrain.metrics import pass_at_k
from selftrain.report.files import RunFiles
from selftrain.report.learning import Samples, by_question, distinct_right, question_groups
from selftrain.study.answers import figures_of
from selftrain.study.spec import Study, StudyRun

Json = dict[str, Any]
Both = tuple[StudyRun, Samples, Samples]


def dpo_steps(study: Study, runs: Sequence[StudyRun], there: Mapping[Path, RunFiles], confidence: float) -> list[Json]:
    """One entry an arm with runs of its own and iteration that was sampled before and after, JSON-ready."""
    rows = []
    for arm in study.arms:
        own = [run for run in runs if run.arm == arm and run.config.method == "dpo-st"]
        numbers = range(1, max((run.config.schedule.iterations for run in own), default=0) + 1)
        for number in numbers:
            drawn = [_drawn(run, there[run.folder], number) for run in own if run.folder in there]
            found = [one for one in drawn if one is not None]
            if found:
                groups = question_groups(there[found[0][0].folder])
                rows.append({"arm": arm, "iteration": number, **_row(found, groups, confidence)})
    return rows


def _drawn(run: StudyRun, files: RunFiles, number: int) -> Both | None:
    """What was sampled before and after the DPO step; None where either is not there or DPO's model did not sample."""
    at = f"{number}-iteration"
    before, after = (by_question(files.completions(f"{at}/sample-for-{kind}")) for kind in ("pairs", "labels"))
    models = {completion.model for rows in after.values() for completion in rows}
    if not before or models != {files.figures(f"{at}/dpo").get("weights")}:
        return None
    return run, before, after


def _row(found: Sequence[Both], groups: Mapping[str, str], confidence: float) -> Json:
    k = min(len(rows) for _, *both in found for samples in both for rows in samples.values())
    counts = [[distinct_right(samples, k) for samples in both] for _, *both in found]
    return {
        "k": k,
        "passes": [_pass(found, each, groups, confidence) for each in sorted({1, k})],
        "distinct": [sum(column) / len(counts) for column in zip(*counts, strict=True)],
        "runs": [run.title for run, *_ in found],
    }


def _pass(found: Sequence[Both], k: int, groups: Mapping[str, str], confidence: float) -> Json:
    """pass@k before and after, a mean over seeds, and the change with its interval."""
    values = [tuple(_by_question(samples, k) for samples in both) for _, *both in found]
    changes = [{name: after[name] - before[name] for name in before.keys() & after.keys()} for before, after in values]
    means = [[sum(side.values()) / len(side) for side in seed] for seed in values]
    change = change_over_seeds(changes, groups, confidence)
    before, after = (sum(column) / len(means) for column in zip(*means, strict=True))
    return {"k": k, "before": before, "after": after, "change": figures_of(change), "verdict": verdict(change)}


def _by_question(samples: Samples, k: int) -> dict[str, float]:
    return {name: pass_at_k(len(rows), sum(map(is_right, rows)), k) for name, rows in samples.items()}
