"""What a study found, from its run folders alone, finished or not: one JSON-ready dict.

    results = study_results(study, runs)
    results["sets"][0]["arms"][1]["comparison"]["verdict"]

Every figure names the runs and stages that it was counted from. A run that is not there, or not yet, leaves its place
empty; what cannot be compared says why. Shares are fractions, but for `paper`, which is as the paper has it, in %.
What a study does not `show` is not counted. No correction is made for the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain.errors import RunError
from selftrain.evidence import difference_over_seeds, mean_over_seeds, sentence, verdict
from selftrain.identity import identity
from selftrain.metrics import wilson
from selftrain.report.account import pending_stages, run_facts
from selftrain.report.collect import warnings_of
from selftrain.report.files import RunFiles
from selftrain.report.write import PAGE
from selftrain.study.answers import Answer, answer_of, figures_of
from selftrain.study.comparable import samples_drawn, sft_steps, why_not
from selftrain.study.dpostep import dpo_steps
from selftrain.study.lines import lines_of, paper_figure
from selftrain.study.spec import Study, StudyRun
from selftrain.study.speed import speed_of
from selftrain.study.steps import wrong_steps

FORMAT = 1  # raised when a key changes its meaning
PENDING, MISSING, NOT_ASKED = "not there yet", "test set is missing", "not evaluated"
Json = dict[str, Any]


def study_results(study: Study, runs: Sequence[StudyRun]) -> Json:
    """The results of a study.

    Raises:
        ConfigError: a run folder of another version.
        DataError: a damaged file of a finished stage.
    """
    files = {run.folder: _files(run) for run in runs}
    there = {folder: found for folder, found in files.items() if isinstance(found, RunFiles)}
    configs = [found.config for found in there.values()] or [run.config for run in runs]
    wanted = [*(run.config for run in runs), *configs]
    names = dict.fromkeys(spec.label for config in wanted for spec in config.data.test)
    model = study.runs_behind(study.reference, runs)[0].config.model
    confidence = max(config.evaluation.confidence for config in configs)
    results: Json = {
        "format": FORMAT,
        "study": study.model_dump(mode="json"),
        "model": model,
        "confidence": confidence,
        "runs": [_run(run, files[run.folder]) for run in runs],
        "paper_says": study.paper_says.get(model),
    }
    results["sets"] = [_set(study, name, runs, there, results) for name in names]
    results["dpo_steps"] = dpo_steps(study, runs, there, confidence) if "dpo-step" in study.show else []
    results["finished"] = all(run["state"] == "finished" for run in results["runs"])
    return results


def _files(run: StudyRun) -> RunFiles | str:
    """The run's files; in words why there are none that count."""
    try:
        there = RunFiles(run.folder)
    except RunError:
        return "not begun"
    wanted, found = identity(run.config), identity(there.config)
    own = [key for key in sorted(wanted) if key == "seed" or key.startswith(tuple(run.varies))]
    other = [key for key in own if wanted[key] != found.get(key)]
    return f"made with other settings ({', '.join(other)})" if other else there


def _run(run: StudyRun, files: RunFiles | str) -> Json:
    """A run in short; `page` says whether its folder has a report."""
    told: Json = {
        "arm": run.arm, "seed": run.seed, "run": run.title, "state": files, "next": None, "warnings": [],
        "weights": None, "page": False,
    }  # fmt: skip
    if isinstance(files, str):
        return told
    pending = [] if files.is_finished else pending_stages(files)
    return {
        **told,
        "state": "finished" if files.is_finished else "not finished",
        "next": pending[0] if pending else None,
        "weights": run_facts(files)["weights"],
        "warnings": [f"{row['message']} ({row['stage']})" for row in warnings_of(files)],
        "page": (run.folder / PAGE).is_file(),
    }


def _set(study: Study, name: str, runs: Sequence[StudyRun], there: Mapping[Path, RunFiles], results: Json) -> Json:
    """One test set: a row for each arm, and a line for each where lines are shown."""
    holders = [found for found in there.values() if name in found.test_sets and found.problems(f"test-{name}")]
    problems = holders[0].problems(f"test-{name}") if holders else []
    groups = {problem.id: problem.group for problem in problems if problem.group is not None}
    answers = {
        arm: [
            answer_of(run, there.get(run.folder), study.arms[arm].model, name) for run in study.runs_behind(arm, runs)
        ]
        for arm in study.arms
    }
    confidence, reference, model = results["confidence"], answers[study.reference], results["model"]
    lacking = [run.title for run in runs if run.folder in there and name not in there[run.folder].test_sets]
    rows = []
    for arm, found in answers.items():
        empty = [_empty(side, lacking, there) for side in (found, reference)]
        row = {**_row(arm, study, found, groups, confidence), "empty": empty[0]}
        if arm != study.reference:
            compared = _compared(found, reference, name, groups, confidence, (arm, study.reference))
            reasons = (reason for reason in (MISSING, NOT_ASKED, PENDING) if reason in empty)
            row |= compared or {"not_compared": next(reasons)}
        paper = paper_figure(study.paper.get(model, {}).get(arm, {}).get(name))
        rows.append({**row, "paper": paper, "paper_band": _band(paper, len(problems), confidence)})
    num_groups = len(set(groups.values())) if len(set(groups.values())) < len(groups) else 0
    has_lines = {"iterations", "compute"} & set(study.show)
    lines = lines_of(study, name, runs, there, groups, confidence, model) if has_lines else []
    return {
        "name": name, "rows": len(problems), "groups": num_groups, "missing_in": lacking, "arms": rows, "lines": lines,
    }  # fmt: skip


def _empty(answers: Sequence[Answer], lacking: Sequence[str], there: Mapping[Path, RunFiles]) -> str:
    """Why an arm has no figure, where it has none."""
    if all(answer.run.title in lacking for answer in answers):
        return MISSING
    done = [answer.run.folder in there and there[answer.run.folder].is_finished for answer in answers]
    return NOT_ASKED if all(done) else PENDING


def _row(arm: str, study: Study, answers: Sequence[Answer], groups: Mapping[str, str], confidence: float) -> Json:
    """An arm's own figures."""
    counted = [answer for answer in answers if answer.verdicts]
    mean = mean_over_seeds([a.verdicts or {} for a in counted], groups, confidence) if counted else None
    return {
        "arm": arm,
        "model": study.arms[arm].model,
        "runs": [_counted(answer) for answer in counted],
        "pending": [answer.run.title for answer in answers if not answer.verdicts],
        "mean": figures_of(mean) if mean else None,
        "comparison": None,
        "not_compared": "",
        "steps": [_steps(answer, confidence) for answer in counted] if "calculator" in study.show else [],
        "speed": speed_of(counted) if "speed" in study.show else None,
    }


def _counted(answer: Answer) -> Json:
    """A seed's own figures, and where they come from."""
    verdicts = answer.verdicts or {}
    budget = (samples_drawn(answer.side), sft_steps(answer.side)) if answer.side else (None, None)
    return {
        "seed": answer.run.seed, "run": answer.run.title, "stage": answer.stage, "right": sum(verdicts.values()),
        "rows": len(verdicts), "samples": budget[0], "steps": budget[1],
    }  # fmt: skip


def _steps(answer: Answer, confidence: float) -> Json:
    """Right answers with a wrong step, at one seed."""
    found = wrong_steps(answer.completions, answer.side.model.extraction if answer.side else "strict")
    low, high = wilson(found.wrong_step, found.right, confidence)
    return {
        "run": answer.run.title, "stage": answer.stage, "right": found.right, "wrong_step": found.wrong_step,
        "low": low, "high": high,
    }  # fmt: skip


def _compared(
    ours: Sequence[Answer],
    theirs: Sequence[Answer],
    test_set: str,
    groups: Mapping[str, str],
    confidence: float,
    names: tuple[str, str],
) -> Json:
    """An arm against the reference at the seeds where both have answered, or why not; empty where there is none."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.verdicts and b.verdicts]
    if not pairs:
        return {}
    for a, b in pairs:
        reason = why_not(a.side, b.side, test_set) if a.side and b.side else ""
        if reason:
            return {"not_compared": reason}
    gain = difference_over_seeds([a.verdicts or {} for a, _ in pairs], [b.verdicts or {} for _, b in pairs],
                                 groups, confidence)  # fmt: skip
    told = sentence(gain, *names)
    return {
        "comparison": {
            **figures_of(gain), "against": names[1], "p_value": gain.p_value, "verdict": verdict(gain),
            "sentence": f"On {test_set}, {told[:1].lower() if told.startswith('A difference') else told[:1]}{told[1:]}",
            "runs": [[a.run.title, b.run.title] for a, b in pairs],
        }
    }  # fmt: skip


def _band(paper: float | None, rows: int, confidence: float) -> list[float] | None:
    """Where an accuracy of that size would lie on so many rows, in % (Wilson): the paper's is of one seed."""
    if paper is None or not rows:
        return None
    return [100 * bound for bound in wilson(paper / 100 * rows, rows, confidence)]
