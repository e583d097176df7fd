"""Which completions become pseudo-labels: each rule by hand, and all of them against the paper's code told again."""

from __future__ import annotations

import random

import numpy as np
import pytest

from selftrain.config import LabelsConfig
from selftrain.labelling import label_cap, select_labels
from selftrain.records import Completion, Outcome, Verdict
from selftrain.similarity import Gold

EOS = 1
ALL = LabelsConfig(cap_percentile=100)


def ids_of(text: str) -> tuple[int, ...]:
    """One token a character, and the end token."""
    return (*map(ord, text), EOS)


def sample(problem_id: str, k: int, text: str, outcome: Outcome = "right") -> Completion:
    return Completion(problem_id, k, ids_of(text), text, "eos", stage="s", strict=Verdict(outcome))


def question(problem_id: str, gold: str | None, *texts: str) -> tuple[str, tuple[Gold | None, list[Completion]]]:
    """A question, its gold rationale and right samples of these texts."""
    written = None if gold is None else (ids_of(gold), gold)
    return problem_id, (written, [sample(problem_id, k, text) for k, text in enumerate(texts)])


def texts_of(labels: list[tuple[str, Completion]]) -> list[tuple[str, str]]:
    return [(identity, completion.text) for identity, completion in labels]


def test_only_right_ones_and_in_order_of_text() -> None:
    pool = [
        sample("q", 0, "xyz"),
        sample("q", 1, "abc"),
        sample("q", 2, "mno", "wrong"),
        sample("q", 3, "", "unparsed"),
    ]
    labels, stats = select_labels({"q": (None, pool)}, ALL, EOS)
    assert texts_of(labels) == [("q", "abc"), ("q", "xyz")]
    assert labels[0][1] is pool[1]
    assert (stats.num_completions, stats.num_right, stats.num_labels, stats.cap) == (4, 2, 2, 2)


def test_unjudged_and_timed_out_are_not_right() -> None:
    pool = [Completion("q", 0, (5, EOS), "x", "eos"), sample("q", 1, "abc", "timeout")]
    labels, stats = select_labels({"q": (None, pool)}, ALL, EOS)
    assert labels == []
    assert (stats.num_solved, stats.num_yielding, stats.cap) == (0, 0, 1)


def test_near_copies_of_gold_drop_out() -> None:
    # With abcdefghij: abcdefgh shares 8 of 10 tokens, abcdefg 7 of 10, which is not above 0.7; then one exact copy.
    one = question("q", "abcdefghij", "abcdefgh", "abcdefg", "abcdefghij")
    labels, stats = select_labels(dict([one]), ALL, EOS)
    assert texts_of(labels) == [("q", "abcdefg")]
    assert (stats.num_right, stats.num_exact, stats.num_near, stats.num_labels) == (3, 1, 1, 1)


def test_gold_not_first_keeps_near_copies_but_no_exact_ones() -> None:
    one = question("q", "abcdefghij", "abcdefghij", "abcdefgh", "abcdefghij")
    labels, stats = select_labels(dict([one]), ALL.model_copy(update={"gold_first": False}), EOS)
    assert texts_of(labels) == [("q", "abcdefgh")]
    assert (stats.num_exact, stats.num_near, stats.cap) == (2, 0, 2)


def test_greedy_among_samples() -> None:
    # abcdefgh is near abcdefg (7/8) and kept last but one in order; zzz stands alone.
    labels, _ = select_labels(dict([question("q", None, "zzz", "abcdefgh", "abcdefg")]), ALL, EOS)
    assert texts_of(labels) == [("q", "abcdefg"), ("q", "zzz")]


@pytest.mark.parametrize(
    ("counts", "percentile", "cap"),
    [
        ([1, 1, 2, 4], 90, 3),  # rank 2.7 of 0..3: 2 + 0.7 * 2 = 3.4
        ([1, 2, 3, 4], 50, 2),  # 2.5
        ([1, 2, 3, 4], 100, 4),
        ([1], 90, 1),
        ([], 90, 1),
        ([1] * 9 + [9], 90, 1),  # 1 + 0.1 * 8 = 1.8
        ([1] * 8 + [9, 9], 90, 9),
    ],
)
def test_label_cap(counts: list[int], percentile: float, cap: int) -> None:
    assert label_cap(counts, percentile) == cap


def test_the_cap_counts_gold_and_cuts_in_order_of_text() -> None:
    """Counts with gold 1, 1, 2, 4: the cap is 3, so q4 keeps gold and two labels."""
    problems = dict(
        [question("q1", "a"), question("q2", "a"), question("q3", "a", "b"), question("q4", "a", "d", "c", "b")]
    )
    labels, stats = select_labels(problems, LabelsConfig(cap_percentile=90), EOS)
    assert texts_of(labels) == [("q3", "b"), ("q4", "b"), ("q4", "c")]
    assert (stats.cap, stats.num_over_cap, stats.num_yielding, stats.num_solved) == (3, 1, 2, 2)


def test_without_gold_the_cap_is_all_samples() -> None:
    """Counts 3, 3 and 1: the 50th percentile is 3; q2 has no gold and keeps three, q1 gold and two."""
    problems = dict([question("q1", "a", "b", "c"), question("q2", None, "d", "e", "f"), question("q3", "a")])
    labels, _ = select_labels(problems, LabelsConfig(cap_percentile=50), EOS)
    assert texts_of(labels) == [("q1", "b"), ("q1", "c"), ("q2", "d"), ("q2", "e"), ("q2", "f")]


def test_questions_with_nothing_do_not_lower_the_cap() -> None:
    problems = dict([question("q1", None, "a", "b"), *(question(f"n{i}", None) for i in range(20))])
    _, stats = select_labels(problems, LabelsConfig(cap_percentile=90), EOS)
    assert (stats.cap, stats.num_labels, stats.num_questions) == (2, 2, 21)


def test_a_cap_of_one_leaves_gold_alone() -> None:
    problems = dict([question(f"q{i}", "a") for i in range(30)] + [question("z", "a", "b")])
    labels, stats = select_labels(problems, LabelsConfig(), EOS)
    assert labels == []
    assert (stats.cap, stats.num_over_cap) == (1, 1)


def test_the_order_of_samples_is_irrelevant() -> None:
    identity, (gold, pool) = question("q", "abc", "xyz", "xyz", "mno", "mnop", "klm")
    forth = select_labels({identity: (gold, pool)}, ALL, EOS)
    assert select_labels({identity: (gold, pool[::-1])}, ALL, EOS) == forth
    assert forth[0][-1][1].k == 0  # of equal texts the first sample


def test_words_tell_apart_what_tokens_do_not() -> None:
    one = question("q", "2 pens cost 31", "2 pens cost 13", "31 cost 2 pens")
    assert select_labels(dict([one]), ALL, EOS)[0] == []
    by_words = ALL.model_copy(update={"similarity_on": "words"})
    assert texts_of(select_labels(dict([one]), by_words, EOS)[0]) == [("q", "2 pens cost 13")]


def papers_rules(problems: dict[str, tuple[str | None, list[str]]]) -> list[tuple[str, str]]:
    """What the published make_rft_data keeps, told again in its own steps, gold taken off."""

    def alike(one: str, other: str) -> float:
        a, b = set(one), set(other)
        return float(len(a.intersection(b))) / float(len(a.union(b)))

    def selection(limit: int) -> dict[str, list[str]]:
        out = {}
        for identity, (gold, samples) in problems.items():
            positives = sorted(set(samples + ([] if gold is None else [gold])))
            if not positives:
                continue
            kept = [positives[0] if gold is None else gold]
            for text in positives:
                if not any(alike(text, other) > 0.7 for other in kept):
                    kept.append(text)
            out[identity] = kept[: limit or 100]
        return out

    limit = int(np.percentile([len(kept) for kept in selection(0).values()], 90))
    return [(i, text) for i, kept in selection(limit).items() for text in kept if text != problems[i][0]]


def test_against_the_papers_code() -> None:
    draw = random.Random(0)
    for _ in range(60):
        problems: dict[str, tuple[str | None, list[str]]] = {
            f"q{i}": (
                draw.choice([None, "abcd", "aceg"]),
                ["".join(draw.choices("abcdefgh", k=draw.randint(3, 9))) for _ in range(draw.randint(0, 8))],
            )
            for i in range(12)
        }
        problems["gold"] = ("abc", [])
        given = dict(question(identity, gold, *texts) for identity, (gold, texts) in problems.items())
        labels, stats = select_labels(given, LabelsConfig(), EOS)
        assert texts_of(labels) == papers_rules(problems)
        assert stats.num_right == stats.num_labels + stats.num_exact + stats.num_near + stats.num_over_cap
