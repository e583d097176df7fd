"""What the DPO step did, and how the samples fared: per iteration, counted from samples, pairs and examples.

Before and after DPO are compared at the first k draws of each question, k the smaller of the two numbers of samples.
They are draws at equal seeds, but with `labels.reuse_samples_for_pairs`, where the DPO model's are further ones.
"Distinct right" counts texts that are right and differ, per question. A question is all right when each of its samples
is right (it gives no loser), all wrong when none is (only its gold rationale can win), else mixed.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selftrain.judged import BROUGHT, changed_fraction, is_right, num_timeouts
from selftrain.metrics import maj_at_k, mean_pass_at_k
from selftrain.records import Completion
from selftrain.report.accuracy import accuracy_of, counts
from selftrain.report.files import RunFiles

Samples = Mapping[str, Sequence[Completion]]  # problem id -> its completions, by k
FINAL = ("loss", "reward_accuracy", "margin", "chosen_change_per_token", "rejected_change_per_token")


def iterations_of(run: RunFiles) -> list[tuple[str, int, str]]:
    """(arm, number, folder) of every iteration that the configuration asks for; arm "" is the run's own method."""
    numbers = range(1, run.config.schedule.iterations + 1)
    arms = [("", "")] if run.config.method != "sft" else []
    arms += [(arm, f"baseline-{arm}/") for arm in run.config.baselines if arm != "sft-matched"]
    return [(arm, number, f"{prefix}{number}-iteration") for arm, prefix in arms for number in numbers]


def learning_results(run: RunFiles) -> dict[str, Any]:
    """`dpo` and `selection`, one entry an iteration that has anything finished, JSON-ready."""
    dpo, selection = [], []
    for arm, number, at in iterations_of(run):
        before = by_question(run.completions(f"{at}/sample-for-pairs"))
        after = by_question(run.completions(f"{at}/sample-for-labels"))
        if before and not arm:
            dpo.append({"iteration": number, "stage": f"{at}/dpo", **_dpo(run, at, before, after)})
        if before or after:
            selection.append(
                {"arm": arm or run.config.method, "iteration": number, **_selection(run, at, before, after)}
            )
    return {"dpo": dpo, "selection": selection}


def by_question(completions: Iterable[Completion] | None) -> dict[str, list[Completion]]:
    """Completions by problem, each problem's in order of k."""
    found: dict[str, list[Completion]] = collections.defaultdict(list)
    for completion in completions or ():
        found[completion.problem_id].append(completion)
    return {name: sorted(rows, key=lambda completion: completion.k) for name, rows in found.items()}


def _dpo(run: RunFiles, at: str, before: Samples, after: Samples) -> dict[str, Any]:
    stage = f"{at}/dpo"
    figures, log = run.figures(stage), run.steps(stage)
    pairs = run.pairs(f"{at}/pair")
    groups, confidence = question_groups(run), run.config.evaluation.confidence
    common = min((len(rows) for samples in (before, after) for rows in samples.values()), default=0)
    return {
        "done": run.is_done(stage),
        "pairs": len(pairs) if run.is_done(f"{at}/pair") else None,
        "steps": figures.get("steps", len(log) or None),
        "after_training": {name: figures.get(name) for name in FINAL} if figures else None,
        "changed_fraction": changed_fraction(_flat(before), _flat(after)) if after else None,
        "sampled_from_dpo": _sampled_from(after) == figures.get("weights") if after and figures else None,
        "common_k": common,
        "before": drawn(before, common, groups, confidence),
        "after": drawn(after, common, groups, confidence) if after else None,
        "collapse": _events(run, "collapse", at, "reason"),
        "no_pairs": bool(_events(run, "no-pairs", at, "stage")),
        "warnings": _events(run, "warning", at, "message"),
    }


def question_groups(run: RunFiles) -> dict[str, str]:
    """problem id -> group, of the questions that are trained on and sampled."""
    problems = (*run.problems("train"), *run.problems("unlabelled"))
    return {problem.id: problem.group for problem in problems if problem.group is not None}


def _flat(samples: Samples) -> list[Completion]:
    return [completion for rows in samples.values() for completion in rows]


def _sampled_from(samples: Samples) -> str | None:
    """Digest of the model that wrote the samples; None where there are several."""
    digests = {completion.model for completion in _flat(samples)}
    return digests.pop() if len(digests) == 1 else None


def _events(run: RunFiles, kind: str, at: str, field: str) -> list[str]:
    """What the journal says of an iteration, each thing once (a resumed run says it again)."""
    told = [str(event.get(field, "")) for event in run.events(kind) if _is_under(str(event.get("stage", "")), at)]
    return list(dict.fromkeys(told))


def _is_under(stage: str, at: str) -> bool:
    return stage == at or stage.startswith(f"{at}/")


def drawn(samples: Samples, common: int, groups: Mapping[str, str], confidence: float = 0.95) -> dict[str, Any]:
    """pass@k and maj@k of samples, at the k that is compared and at the K that was drawn, and distinct right texts.

    `pass_at` and `maj_at` are lists of {k, value, low, high}; pass@k is the unbiased estimate from all K.
    """
    drawn_k = min((len(rows) for rows in samples.values()), default=0)
    num_right = {name: (len(rows), sum(map(is_right, rows))) for name, rows in samples.items()}
    shared = groups if len(set(groups.values())) > 1 else None
    passes, majorities = [], []
    for k in sorted({1, common, drawn_k} - {0}):
        estimate = mean_pass_at_k(num_right, k, shared, confidence)
        passes.append({"k": k, "value": estimate.value, "low": estimate.low, "high": estimate.high})
    for k in sorted({common, drawn_k} - {0}):
        voted = accuracy_of({name: _majority(rows[:k]) for name, rows in samples.items()}, shared, confidence)
        majorities.append({"k": k, "value": voted["accuracy"], "low": voted["low"], "high": voted["high"]})
    return {
        "questions": len(samples),
        "k": drawn_k,
        "pass_at": passes,
        "maj_at": majorities,
        "distinct_right": distinct_right(samples, common),
    }


def distinct_right(samples: Samples, k: int) -> int:
    """Texts that are right and differ, of the first k of each question."""
    return sum(len({c.text.strip() for c in rows[:k] if is_right(c)}) for rows in samples.values())


def _majority(rows: Sequence[Completion]) -> bool:
    """Whether the vote of these samples is right."""
    answers = [None if c.strict is None else c.strict.extracted for c in rows]
    return maj_at_k(answers, [is_right(c) for c in rows])


def _selection(run: RunFiles, at: str, before: Samples, after: Samples) -> dict[str, Any]:
    return {
        "at": at,
        "sampled_for_pairs": health(before) if before else None,
        "sampled_for_labels": health(after) if after else None,
        "pairing": _pairing(run, f"{at}/pair") if run.is_done(f"{at}/pair") else None,
        "labelling": _labelling(run, f"{at}/select") if run.is_done(f"{at}/select") else None,
    }


def health(samples: Samples) -> dict[str, Any]:
    """How the samples of an iteration's questions fared."""
    rows = _flat(samples)
    all_right = sum(all(map(is_right, found)) for found in samples.values())
    all_wrong = sum(not any(map(is_right, found)) for found in samples.values())
    num, right = len(samples), sum(map(is_right, rows))
    written = counts(rows)
    return {
        "questions": num,
        "completions": len(rows),
        "right": right,
        "yield": right / max(len(rows), 1),
        "all_right": all_right,
        "all_wrong": all_wrong,
        "mixed": num - all_right - all_wrong,
        "all_right_share": all_right / max(num, 1),
        "all_wrong_share": all_wrong / max(num, 1),
        "mixed_share": (num - all_right - all_wrong) / max(num, 1),
        "unparsed": sum(c.strict is None or c.strict.outcome == "unparsed" for c in rows),
        "timeouts": num_timeouts(rows),
        "forced_share": written["forced_tokens"] / max(written["tokens"], 1),
        **written,
    }


def _pairing(run: RunFiles, stage: str) -> dict[str, Any]:
    """Pairs, counted; what was lost before there were pairs is what the stage noted (None where it did not)."""
    pairs, noted = run.pairs(stage), run.figures(stage)
    questions = len({pair.problem_id for pair in pairs})
    return {
        "pairs": len(pairs),
        "questions_with_pairs": questions,
        "pairs_per_question": len(pairs) / max(questions, 1),
        "gold_winner_pairs": sum(pair.chosen_from == "gold" for pair in pairs),
        "gold_winner_questions": len({pair.problem_id for pair in pairs if pair.chosen_from == "gold"}),
        "lost_exact": noted.get("num_exact"),
        "lost_near": noted.get("num_near"),
        "over_limit": noted.get("over_limit"),
        "brought": _num_brought(run, (f"{pair.chosen_from} {pair.rejected_from}" for pair in pairs)),
    }


def _labelling(run: RunFiles, stage: str) -> dict[str, Any]:
    """Training examples, counted; what was lost before is what the stage noted, over the whole pool of samples."""
    examples, noted = run.examples(stage), run.figures(stage)
    pseudo = [example for example in examples if example.origin != "gold"]
    return {
        "gold": len(examples) - len(pseudo),
        "kept": len(pseudo),
        "questions_with_labels": len({example.problem_id for example in pseudo}),
        "right_in_pool": noted.get("num_right"),
        "lost_exact": noted.get("num_exact"),
        "lost_near": noted.get("num_near"),
        "lost_to_cap": noted.get("num_over_cap"),
        "cap": noted.get("cap"),
        "over_limit": noted.get("over_limit"),
        "brought": _num_brought(run, (example.origin for example in pseudo)),
    }


def _num_brought(run: RunFiles, origins: Iterable[str]) -> int | None:
    """How many of these hold a sample made elsewhere; None in a run without such samples."""
    return sum(f"{BROUGHT}#" in origin for origin in origins) if run.config.data.samples else None
