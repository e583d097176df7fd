"""Right and wrong completions of one question become preference pairs, by the rules of the paper's code.

    pairs, stats = build_pairs("q1", gold=(ids, text), completions=pool, config=config.pairs, eos_id=2)

1. Winners are the strictly right completions, losers the wrong and the unparsed ones; a verdict of `timeout`, or
   one given without a gold answer, makes neither.
2. Winners and losers are de-duplicated apart (`similarity.deduplicate`). `gold_winner` says when the gold
   rationale is a winner; it is kept first, so its near-copies drop out.
3. All winner x loser combinations are shuffled, stably sorted by similarity, and the least similar are taken.

So a question with no right completion still gives pairs from its gold rationale, and one with no wrong completion
gives none. Losers cut at the length limit are kept, as in the paper, and counted. Departs from the paper's code:
the shuffle has a stream of its own for each question (the code shuffles winners and losers from one stream over all
questions), so a question's pairs don't depend on the others; it decides between equal similarities only.

Leaves out: files, and the limit on target length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from selftrain.config import PairsConfig
from selftrain.records import NO_GOLD, Completion, Pair
from selftrain.seeding import stream
from selftrain.similarity import Gold, Set, comparison_set, deduplicate, jaccard


@dataclasses.dataclass(frozen=True, slots=True)
class PairStats:
    """What became of one question's completions.

    `num_wrong` holds the unparsed ones, of which there are `num_unparsed`; `num_cut` losers ended at the length
    limit. `num_exact` and `num_near` are lost to de-duplication on both sides, copies of the gold rationale
    included. `num_winners` and `num_losers` are what is left, gold included. `gold_winner_used`: gold was a
    winner and there was a loser; `num_gold_pairs` of the pairs have it. `num_neither`: rule 1's last clause.
    """

    problem_id: str
    num_right: int
    num_wrong: int
    num_unparsed: int
    num_cut: int
    num_neither: int
    num_exact: int
    num_near: int
    num_winners: int
    num_losers: int
    num_pairs: int
    num_gold_pairs: int
    gold_winner_used: bool

    @property
    def is_all_right(self) -> bool:
        """Every sample that counts was right: no loser, so no pair."""
        return self.num_right > 0 and self.num_wrong == 0

    @property
    def is_all_wrong(self) -> bool:
        """Every sample that counts was wrong: no winner but the gold rationale."""
        return self.num_wrong > 0 and self.num_right == 0


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A rationale that may enter a pair: its ids and text, its origin ("gold" or "STAGE#K"), the set compared."""

    token_ids: tuple[int, ...]
    text: str
    origin: str
    compared: Set


def build_pairs(
    problem_id: str,
    gold: Gold | None,
    completions: Sequence[Completion],
    config: PairsConfig,
    eos_id: int | None,
) -> tuple[list[Pair], PairStats]:
    """The pairs of one question and the account of them; the order of `completions` is irrelevant.

    Args:
        problem_id: the question.
        gold: token ids (end token included) and text of its gold rationale, as the model would write it.
        completions: the pooled, judged samples of this question.
        config: the rules.
        eos_id: the end token, which no token set holds.

    Raises:
        ValueError: a completion of another problem, or one that was not judged.
    """
    right, wrong = _sides(problem_id, completions)
    use_gold = gold is not None and (config.gold_winner == "always" or (config.gold_winner == "if_none" and not right))
    winners, dropped_winners = _distinct(gold if use_gold else None, right, config, eos_id)
    losers, dropped_losers = _distinct(None, wrong, config, eos_id)
    pairs = _least_similar(problem_id, winners, losers, config)
    stats = PairStats(
        problem_id,
        num_right=len(right),
        num_wrong=len(wrong),
        num_unparsed=sum(c.strict is not None and c.strict.outcome == "unparsed" for c in wrong),
        num_cut=sum(c.stop == "length" for c in wrong),
        num_neither=len(completions) - len(right) - len(wrong),
        num_exact=dropped_winners[0] + dropped_losers[0],
        num_near=dropped_winners[1] + dropped_losers[1],
        num_winners=len(winners),
        num_losers=len(losers),
        num_pairs=len(pairs),
        num_gold_pairs=sum(pair.chosen_from == "gold" for pair in pairs),
        gold_winner_used=use_gold and bool(losers),
    )
    return pairs, stats


def _sides(problem_id: str, completions: Sequence[Completion]) -> tuple[list[Completion], list[Completion]]:
    """Right and wrong completions, in the order of stage and sample index."""
    right: list[Completion] = []
    wrong: list[Completion] = []
    for completion in sorted(completions, key=lambda c: (c.stage, c.k)):
        verdict = completion.strict
        if completion.problem_id != problem_id or verdict is None:
            raise ValueError(f"expected judged completions of {problem_id}, got {completion.problem_id}#{completion.k}")
        if verdict.outcome == "right":
            right.append(completion)
        elif verdict.outcome in ("wrong", "unparsed") and verdict.source != NO_GOLD:
            wrong.append(completion)
    return right, wrong


def _distinct(
    gold: Gold | None, completions: Sequence[Completion], config: PairsConfig, eos_id: int | None
) -> tuple[list[Candidate], tuple[int, int]]:
    """One side without duplicates, and how many were lost as exact and as near ones."""
    written = [] if gold is None else [(*gold, "gold")]
    written += [(c.token_ids, c.text, f"{c.stage}#{c.k}") for c in completions]
    candidates = [
        Candidate(ids, text, origin, comparison_set(config.similarity_on, ids, text, eos_id))
        for ids, text, origin in written
    ]
    kept = deduplicate(
        [candidate.text for candidate in candidates],
        [candidate.compared for candidate in candidates],
        config.duplicate_similarity,
        gold=None if gold is None else 0,
    )
    return [candidates[index] for index in kept.indices], (kept.num_exact, kept.num_near)


def _least_similar(
    problem_id: str, winners: Sequence[Candidate], losers: Sequence[Candidate], config: PairsConfig
) -> list[Pair]:
    """The `per_question` least similar combinations; ties in shuffled order."""
    combinations = [(jaccard(w.compared, r.compared), w, r) for w in winners for r in losers]
    stream(config.shuffle_seed, "pairs", problem_id).shuffle(combinations)
    combinations.sort(key=lambda combination: combination[0])
    return [
        Pair(problem_id, winner.token_ids, loser.token_ids, winner.origin, loser.origin, similarity)
        for similarity, winner, loser in combinations[: config.per_question]
    ]
