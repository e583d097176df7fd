"""Which completions become pairs: each rule by hand, and all of them against a plain re-telling of the paper's code."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from selftrain.config import PairsConfig
from selftrain.pairing import build_pairs
from selftrain.records import NO_GOLD, Completion, Outcome, Verdict

EOS = 1


def ids_of(text: str) -> tuple[int, ...]:
    """One token a character, and the end token."""
    return (*map(ord, text), EOS)


def sample(
    k: int,
    text: str,
    outcome: Outcome,
    *,
    stage: str = "s",
    stop: Literal["eos", "length"] = "eos",
    source: str = "gold",
) -> Completion:
    return Completion("q", k, ids_of(text), text, stop, stage=stage, strict=Verdict(outcome, source=source))


def gold_of(text: str) -> tuple[tuple[int, ...], str]:
    return ids_of(text), text


CONFIG = PairsConfig()


def test_one_right_one_wrong() -> None:
    pairs, stats = build_pairs("q", None, [sample(0, "abc", "right"), sample(1, "cde", "wrong")], CONFIG, EOS)
    (pair,) = pairs
    assert (pair.chosen_ids, pair.rejected_ids) == (ids_of("abc"), ids_of("cde"))
    assert (pair.chosen_from, pair.rejected_from, pair.problem_id) == ("s#0", "s#1", "q")
    assert pair.similarity == 1 / 5  # the end token is in no set
    assert (stats.num_right, stats.num_wrong, stats.num_pairs, stats.gold_winner_used) == (1, 1, 1, False)
    assert not stats.is_all_right
    assert not stats.is_all_wrong


def test_unparsed_loses_and_timeout_is_neither() -> None:
    pool = [sample(0, "abc", "right"), sample(1, "def", "unparsed"), sample(2, "ghi", "timeout")]
    pairs, stats = build_pairs("q", None, pool, CONFIG, EOS)
    assert [pair.rejected_from for pair in pairs] == ["s#1"]
    assert (stats.num_wrong, stats.num_unparsed, stats.num_neither) == (1, 1, 1)


def test_without_a_gold_answer_nobody_loses() -> None:
    pool = [sample(0, "abc", "unparsed", source=NO_GOLD)]
    pairs, stats = build_pairs("q", gold_of("xyz"), pool, CONFIG, EOS)
    assert pairs == []
    assert (stats.num_wrong, stats.num_neither) == (0, 1)


def test_gold_makes_pairs_where_all_is_wrong() -> None:
    pool = [sample(0, "abc", "wrong"), sample(1, "mno", "wrong", stop="length")]
    pairs, stats = build_pairs("q", gold_of("xyz"), pool, CONFIG, EOS)
    assert {(pair.chosen_from, pair.rejected_from) for pair in pairs} == {("gold", "s#0"), ("gold", "s#1")}
    assert stats.is_all_wrong
    assert (stats.num_cut, stats.num_gold_pairs, stats.gold_winner_used) == (1, 2, True)


def test_no_loser_no_pair() -> None:
    pairs, stats = build_pairs("q", gold_of("xyz"), [sample(0, "abc", "right")], CONFIG, EOS)
    assert pairs == []
    assert stats.is_all_right
    assert (stats.num_losers, stats.gold_winner_used) == (0, False)


@pytest.mark.parametrize(
    ("rule", "with_right", "without_right"),
    [("always", {"gold", "s#0"}, {"gold"}), ("if_none", {"s#0"}, {"gold"}), ("never", {"s#0"}, set())],
)
def test_gold_winner(
    rule: Literal["always", "if_none", "never"], with_right: set[str], without_right: set[str]
) -> None:
    config = PairsConfig(gold_winner=rule)
    right, wrong = sample(0, "abc", "right"), sample(1, "mno", "wrong")
    pairs, _ = build_pairs("q", gold_of("xyz"), [right, wrong], config, EOS)
    assert {pair.chosen_from for pair in pairs} == with_right
    pairs, _ = build_pairs("q", gold_of("xyz"), [wrong], config, EOS)
    assert {pair.chosen_from for pair in pairs} == without_right


def test_a_question_without_gold_rationale_lacks_it() -> None:
    pairs, stats = build_pairs("q", None, [sample(0, "mno", "wrong")], CONFIG, EOS)
    assert pairs == []
    assert stats.num_winners == 0


def test_near_copies_of_gold_drop_out() -> None:
    # abcdefgh and abcdefghij share 8 of 10 tokens; abcdefg and abcdefghij 7 of 10, which is not above 0.7.
    pool = [sample(0, "abcdefgh", "right"), sample(1, "abcdefg", "right"), sample(2, "mno", "wrong")]
    pairs, stats = build_pairs("q", gold_of("abcdefghij"), pool, CONFIG, EOS)
    assert {pair.chosen_from for pair in pairs} == {"gold", "s#1"}
    assert (stats.num_exact, stats.num_near, stats.num_winners) == (0, 1, 2)


def test_winners_and_losers_are_deduplicated_apart() -> None:
    same = "abcdef"
    pool = [
        sample(0, same, "right"),
        sample(1, same, "right"),
        sample(2, same + "x", "wrong"),
        sample(3, same, "wrong"),
    ]
    pairs, stats = build_pairs("q", None, pool, CONFIG, EOS)
    assert [(pair.chosen_from, pair.rejected_from, pair.similarity) for pair in pairs] == [("s#0", "s#3", 1.0)]
    assert (stats.num_exact, stats.num_near) == (1, 1)


def test_the_least_similar_are_taken() -> None:
    wrong = ["abx", "acy", "auv", "pqr", "axyz"]  # Jaccard with abc: 2/4, 2/4, 1/5, 0, 1/6
    pool = [sample(0, "abc", "right"), *(sample(k, text, "wrong") for k, text in enumerate(wrong, start=1))]
    pairs, _ = build_pairs("q", None, pool, CONFIG, EOS)
    assert [(pair.rejected_from, pair.similarity) for pair in pairs] == [("s#4", 0.0), ("s#5", 1 / 6), ("s#3", 1 / 5)]
    pairs, _ = build_pairs("q", None, pool, PairsConfig(per_question=1), EOS)
    assert [pair.rejected_from for pair in pairs] == ["s#4"]


def test_ties_go_by_the_shuffle_and_not_by_the_order_given() -> None:
    right = [sample(k, chr(97 + k) * 3, "right") for k in range(6)]
    wrong = [sample(10 + k, chr(110 + k) * 3, "wrong") for k in range(6)]

    def chosen(pool: list[Completion], seed: int) -> list[tuple[str, str]]:
        pairs, _ = build_pairs("q", None, pool, PairsConfig(shuffle_seed=seed), EOS)
        return [(pair.chosen_from, pair.rejected_from) for pair in pairs]

    assert chosen(right + wrong, 0) == chosen(wrong[::-1] + right[::-1], 0)
    assert len({tuple(chosen(right + wrong, seed)) for seed in range(8)}) > 1


def test_pools_of_several_stages() -> None:
    pool = [sample(0, "abc", "right", stage="2-iteration/x"), sample(0, "abc", "right", stage="1-iteration/x")]
    pairs, _ = build_pairs("q", None, [*pool, sample(1, "xyz", "wrong", stage="1-iteration/x")], CONFIG, EOS)
    assert [(pair.chosen_from, pair.rejected_from) for pair in pairs] == [("1-iteration/x#0", "1-iteration/x#1")]


def test_similarity_on_equations() -> None:
    gold = gold_of("She has <<1+2=3>>3 pens.")
    pool = [
        sample(0, "He owns <<1+2=3>>3 of them", "right"),  # the same equation, other words
        sample(1, "She has <<2+1=3>>3 pens.", "right"),  # another equation, the same words
        sample(2, "She has <<1+1=2>>2 pens.", "wrong"),
    ]
    pairs, _ = build_pairs("q", gold, pool, PairsConfig(similarity_on="equations"), EOS)
    assert {pair.chosen_from for pair in pairs} == {"gold", "s#1"}


@pytest.mark.parametrize(
    "completion",
    [Completion("other", 0, (5, EOS), "x", "eos", strict=Verdict("right")), Completion("q", 0, (5, EOS), "x", "eos")],
)
def test_it_refuses_what_was_not_judged_for_this_question(completion: Completion) -> None:
    with pytest.raises(ValueError, match="expected judged completions of q"):
        build_pairs("q", None, [completion], CONFIG, EOS)


def papers_rules(gold: str | None, right: list[str], wrong: list[str]) -> list[float]:
    """Similarities of the pairs that the published make_dpo_data picks, told again in its own steps."""

    def alike(one: str, other: str) -> float:
        a, b = set(one), set(other)
        return float(len(a.intersection(b))) / float(len(a.union(b)))

    def distinct(texts: list[str]) -> list[str]:
        kept = texts[:1]
        for text in texts[1:]:
            if not any(alike(text, other) > 0.7 for other in kept):
                kept.append(text)
        return kept

    if not wrong:
        return []
    winners = distinct(([] if gold is None else [gold]) + sorted(set(right)))
    losers = distinct(sorted(set(wrong)))
    return sorted(alike(winner, loser) for winner in winners for loser in losers)[:3]


def test_against_the_papers_code() -> None:
    draw = random.Random(0)
    for _ in range(300):
        texts = ["".join(draw.choices("abcdefgh", k=draw.randint(3, 9))) for _ in range(draw.randint(1, 10))]
        judged: list[tuple[str, Outcome]] = [(text, draw.choice(["right", "wrong", "unparsed"])) for text in texts]
        gold = draw.choice([None, "abcd", "aceg"])
        pool = [sample(k, text, outcome) for k, (text, outcome) in enumerate(judged)]
        pairs, stats = build_pairs("q", None if gold is None else gold_of(gold), pool, CONFIG, EOS)
        right = [text for text, outcome in judged if outcome == "right"]
        wrong = [text for text, outcome in judged if outcome != "right"]
        assert [pair.similarity for pair in pairs] == papers_rules(gold, right, wrong)
        num_given = stats.num_right + stats.num_wrong + (gold is not None)
        assert stats.num_winners + stats.num_losers + stats.num_exact + stats.num_near == num_given
