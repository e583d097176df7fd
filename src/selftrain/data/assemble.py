"""The sets of a run from its `DataConfig`: drawn, kept apart from each other, counted.

    sets = assemble(config.data, config.seed, count_tokens)
    sets.train, sets.unlabelled, sets.validation, sets.tests["svamp"], sets.report

For each set, in this order: load the source (once for all sets that read the same), keep the groups asked for,
leave out problems that are too long, order them (`shuffle`), pass over `skip`, then take `take`. So sets with equal
filters and `shuffle`, and `skip`s apart, are disjoint. Tests are taken first, as they come. Validation rows that
are test questions, and training rows that are test or validation questions or were taken before, are passed over
*before* counting towards `take`; so are near-copies of test rows where `drop_near_duplicates` says so. "Same
question" is by normalised text, "near-copy" by Jaccard similarity of word sets.

Departs from the paper, whose U is L's own questions: `data.unlabelled` are further ones, and their gold rationales
are always dropped. The sets do not depend on the run's seed, so runs of several seeds are comparable.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from selftrain.config import DataConfig, DataSpec
from selftrain.data.base import (
    LoadedSet,
    check_unique_ids,
    load_key,
    load_source,
    narrow,
    rows_digest,
)
from selftrain.data.gold import formats_of, gold_hint, prove_gold
from selftrain.data.reasoning_gym import check_apart
from selftrain.errors import DataError
from selftrain.records import Problem
from selftrain.seeding import derive_seed
from selftrain.similarity import nearest_neighbours, normalise_question

CountTokens = Callable[[Problem], tuple[int, int]]

TEST_QUESTION = "same question as a test row"
VALIDATION_QUESTION = "same question as a validation row"
TAKEN_QUESTION = "same question as a row taken before"
NEAR_COPY = "near-copy of a test row"
NO_RATIONALE = "no rationale"
TOO_LONG = "too many tokens"
_WAYS_OUT = {
    TOO_LONG: "raise the limits on tokens",
    **dict.fromkeys((TEST_QUESTION, VALIDATION_QUESTION, TAKEN_QUESTION), "bring further questions"),
    NEAR_COPY: "set data.drop_near_duplicates: false",
    NO_RATIONALE: "write more rationales",
}


@dataclasses.dataclass(frozen=True)
class Assembled:
    """The sets of a run, and a JSON-ready account of where each came from and what was left out."""

    train: list[Problem]
    unlabelled: list[Problem]
    validation: list[Problem]
    tests: dict[str, list[Problem]]
    report: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Pool:
    """A set before anything is taken: its ordered candidates, and how it was made."""

    role: str
    spec: DataSpec
    loaded: LoadedSet
    candidates: list[Problem]
    num_too_long: int


@dataclasses.dataclass(frozen=True)
class _Taken:
    """A set: its problems, why others were passed over, how many of it are near-copies across test and training."""

    problems: list[Problem]
    passed_over: dict[str, int]
    num_near_copies: int = 0


def assemble(
    config: DataConfig, seed: int, count_tokens: CountTokens | None = None, *, offline: bool = False
) -> Assembled:
    """Load and draw every set of a run.

    Args:
        config: which sets.
        seed: the run's; written into the report, no set depends on it.
        count_tokens: problem -> (prompt tokens, rationale tokens); needed where a set limits tokens.
        offline: use no network.

    Raises:
        DataError: a source that cannot be used, a set that cannot be filled, training rows without rationales,
            rows without answers, gold answers that their own verifier does not accept.
    """
    specs = _specs(config)
    if not config.train.rationales:
        raise DataError(
            "data.train: expected rationales, got rationales: false.", "SFT needs worked answers to imitate."
        )
    check_apart([spec for _, spec in specs])
    cache: dict[str, LoadedSet] = {}
    pools = {role: _pool(role, spec, cache, count_tokens, offline) for role, spec in specs}
    taken = _take_all(pools, config)
    taken = _with_neighbours(taken, config.near_duplicate)
    for role, found in taken.items():
        _check(role, found.problems)
    check_unique_ids([*taken["train"].problems, *_problems(taken, "unlabelled")])
    sets = {role: _account(pools[role], found, count_tokens) for role, found in taken.items()}
    tests = {spec.label: taken[role].problems for role, spec in specs if role.startswith("test/")}
    report = {"seed": seed, "near_duplicate": config.near_duplicate, "sets": sets}
    return Assembled(
        taken["train"].problems, _problems(taken, "unlabelled"), _problems(taken, "validation"), tests, report
    )


def _specs(config: DataConfig) -> list[tuple[str, DataSpec]]:
    """Role and spec of every set; tests first, since all others are kept apart from them."""
    named = [(f"test/{spec.label}", spec) for spec in config.test]
    others = (("validation", config.validation), ("train", config.train), ("unlabelled", config.unlabelled))
    return [*named, *((role, spec) for role, spec in others if spec is not None)]


def _problems(taken: dict[str, _Taken], role: str) -> list[Problem]:
    return taken[role].problems if role in taken else []


def _pool(
    role: str, spec: DataSpec, cache: dict[str, LoadedSet], count_tokens: CountTokens | None, offline: bool
) -> _Pool:
    """The candidates of a set, in order, from after `skip` on.

    Lengths are counted before rationales are dropped, so that sets with and without them have one pool.
    """
    key = load_key(spec)
    if key not in cache:
        cache[key] = load_source(spec, offline=offline)
    loaded = narrow(cache[key], spec.model_copy(update={"rationales": True}))
    kept = [problem for problem in loaded.problems if _fits(problem, spec, count_tokens)]
    ordered = shuffled(kept, spec.shuffle)[spec.skip :]
    if not spec.rationales or role == "unlabelled":
        ordered = [dataclasses.replace(problem, rationale=None) for problem in ordered]
    return _Pool(role, spec, loaded, ordered, len(loaded.problems) - len(kept))


def _fits(problem: Problem, spec: DataSpec, count_tokens: CountTokens | None) -> bool:
    if spec.max_tokens is None and spec.max_prompt_tokens is None:
        return True
    if count_tokens is None:
        raise ValueError("a set limits tokens, so assemble needs count_tokens")
    prompt, rationale = count_tokens(problem)
    if spec.max_prompt_tokens is not None and prompt > spec.max_prompt_tokens:
        return False
    return spec.max_tokens is None or prompt + rationale <= spec.max_tokens


def shuffled(problems: list[Problem], shuffle: int | None) -> list[Problem]:
    """Ordered by a hash of (seed, id): the order of two problems does not depend on which others are there."""
    if shuffle is None:
        return problems
    return sorted(problems, key=lambda problem: (derive_seed("data", shuffle, problem.id), problem.id))


def _take_all(pools: dict[str, _Pool], config: DataConfig) -> dict[str, _Taken]:
    """Take from each pool in turn: tests, validation, train, unlabelled."""
    taken: dict[str, _Taken] = {}
    barred: dict[str, str] = {}
    tests: list[Problem] = []
    for role, pool in pools.items():
        if role.startswith("test/"):
            taken[role] = _take(pool, {}, {}, repeats=True)
            tests.extend(taken[role].problems)
            barred.update(_keys(taken[role], TEST_QUESTION))
        elif role == "validation":
            taken[role] = _take(pool, barred, {}, repeats=True)
            barred = {**_keys(taken[role], VALIDATION_QUESTION), **barred}
        else:
            near = _near_copies(pool.candidates, tests, config.near_duplicate)
            found = _take(pool, barred, near if config.drop_near_duplicates else {}, repeats=False)
            taken[role] = dataclasses.replace(found, num_near_copies=sum(row.id in near for row in found.problems))
            barred = {**_keys(taken[role], TAKEN_QUESTION), **barred}
    return taken


def _keys(found: _Taken, reason: str) -> dict[str, str]:
    return {normalise_question(problem.question): reason for problem in found.problems}


def _near_copies(candidates: Sequence[Problem], tests: Sequence[Problem], threshold: float) -> dict[str, str]:
    """Ids of candidates that are near-copies of a test row."""
    nearest = _similarities(candidates, tests)
    return {
        problem.id: NEAR_COPY
        for problem, similarity in zip(candidates, nearest, strict=True)
        if similarity >= threshold
    }


def _take(pool: _Pool, barred: dict[str, str], near: dict[str, str], *, repeats: bool) -> _Taken:
    """The first `take` candidates that nothing speaks against; `repeats` allows equal questions inside the set."""
    problems: list[Problem] = []
    passed_over: collections.Counter[str] = collections.Counter()
    seen: set[str] = set()
    for problem in pool.candidates:
        if pool.spec.take is not None and len(problems) == pool.spec.take:
            break
        text = normalise_question(problem.question)
        reason = barred.get(text) or near.get(problem.id)
        if reason is None and not repeats and text in seen:
            reason = TAKEN_QUESTION
        if reason is None and pool.role == "train" and problem.rationale is None:
            reason = NO_RATIONALE
        if reason is not None:
            passed_over[reason] += 1
            continue
        seen.add(text)
        problems.append(problem)
    _check_filled(pool, problems, passed_over)
    return _Taken(problems, dict(passed_over))


def _check_filled(pool: _Pool, problems: list[Problem], passed_over: dict[str, int]) -> None:
    wanted = pool.spec.take or 1
    if len(problems) >= wanted:
        return
    usable = len(pool.loaded.problems)
    lost = {TOO_LONG: pool.num_too_long, "skipped": min(pool.spec.skip, usable - pool.num_too_long), **passed_over}
    detail = "".join(f"; {count} {reason}" for reason, count in lost.items() if count)
    if pool.role == "train" and passed_over.get(NO_RATIONALE) and not problems:
        hint = "Training needs worked answers: use a source that has them, or map a rationale column."
    else:
        ways = ["lower take or skip"] if pool.spec.take is not None or pool.spec.skip else []
        ways += [way for reason, way in _WAYS_OUT.items() if lost.get(reason)]
        hint = ", or ".join(dict.fromkeys(ways or ["bring rows that can be used"])).capitalize() + "."
    raise DataError(f"data.{pool.role}: expected {wanted} problems, got {len(problems)} of {usable}{detail}.", hint)


def _similarities(problems: Sequence[Problem], others: Sequence[Problem]) -> list[float]:
    """The highest word-set Jaccard similarity of each problem to any other; 0 without others."""
    return nearest_neighbours([problem.question for problem in problems], [other.question for other in others])


def _with_neighbours(taken: dict[str, _Taken], threshold: float) -> dict[str, _Taken]:
    """Test rows with `neighbour`: their highest similarity to any question that is learned from."""
    learned = [*taken["train"].problems, *_problems(taken, "unlabelled")]
    out = dict(taken)
    for role, found in taken.items():
        if role.startswith("test/"):
            nearest = _similarities(found.problems, learned)
            rows = [
                dataclasses.replace(problem, neighbour=round(similarity, 4))
                for problem, similarity in zip(found.problems, nearest, strict=True)
            ]
            num_near = sum(similarity >= threshold for similarity in nearest)
            out[role] = dataclasses.replace(found, problems=rows, num_near_copies=num_near)
    return out


def _check(role: str, problems: Sequence[Problem]) -> None:
    """Every row has an answer, and its verifier accepts it."""
    without = [problem.id for problem in problems if not problem.answer]
    if without:
        raise DataError(f"data.{role}: {len(without)} rows have no answer, the first is {without[0]}.")
    failures = prove_gold(problems)
    if failures:
        shown = "; ".join(failures[:3])
        raise DataError(
            f"data.{role}: {len(failures)} of {len(problems)} gold answers do not pass their own verifier: {shown}"
            f"{formats_of(problems)}.",
            gold_hint(problems),
        )


def _account(pool: _Pool, found: _Taken, count_tokens: CountTokens | None) -> dict[str, Any]:
    """Where a set came from and what was left out, for the report."""
    spec = pool.spec
    tokens = [count_tokens(problem) for problem in found.problems] if count_tokens is not None else []
    return {
        "rows": len(found.problems),
        "with_rationale": sum(problem.rationale is not None for problem in found.problems),
        "groups": len({problem.group for problem in found.problems if problem.group is not None}),
        "source": spec.source,
        "path": spec.path,
        "params": spec.params,
        "source_sha256": pool.loaded.digest,
        "rows_sha256": rows_digest(found.problems),
        "usable": len(pool.loaded.problems),
        "unusable": pool.loaded.skipped,
        "too_long": pool.num_too_long,
        "skip": spec.skip,
        "passed_over": found.passed_over,
        "near_copies": found.num_near_copies,
        "mean_prompt_tokens": _mean([prompt for prompt, _ in tokens]),
        "mean_rationale_tokens": _mean([rationale for _, rationale in tokens if rationale]),
        "notes": pool.loaded.notes,
    }


def _mean(values: Sequence[int]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None
