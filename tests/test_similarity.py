"""Sets, Jaccard similarity, de-duplication, nearest neighbours."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.similarity import (
    Kept,
    comparison_set,
    deduplicate,
    equation_set,
    jaccard,
    nearest_neighbours,
    normalise_question,
    token_set,
    word_set,
)


def test_jaccard() -> None:
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 2 / 4
    assert jaccard(frozenset("ab"), frozenset("cd")) == 0
    assert jaccard(frozenset(), frozenset("a")) == 0
    assert jaccard(frozenset(), frozenset()) == 1


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Tom has  1,000\tapples,\n and 3.5 pears!", "tom has 1000 apples and 3.5 pears"),
        ("Tom\u2019s \u201cpears\u201d -- they're here.", "toms pears theyre here"),
        ("A twenty-five-year-old; 5-year plan", "a twenty five year old 5 year plan"),
        ("What is (3 - 5)*2?", "what is ( 3 - 5 ) * 2"),
        ("It costs $5 (five).", "it costs 5 five"),
        ("\uff26\uff35\uff2c\uff2c caf\u0065\u0301", "full caf\u00e9"),
        ("?!", ""),
    ],
)
def test_normalise_question(text: str, normal: str) -> None:
    assert normalise_question(text) == normal
    assert normalise_question(normal) == normal


def test_operators_tell_questions_apart() -> None:
    texts = ["What is 3 - 5?", "What is 3 + 5?", "What is 3 * 5?", "What is 3 5?", "What is 35?"]
    assert len({normalise_question(text) for text in texts}) == len(texts)
    assert normalise_question("What is 3-5?") == normalise_question("what is  3 \u2212 5 ?")


def test_sets() -> None:
    assert token_set((5, 7, 7, 2), 2) == {5, 7}
    assert token_set((5, 7, 2), None) == {5, 7, 2}
    assert word_set("The cat, the DOG.") == {"the", "cat", "dog"}
    assert word_set("...") == frozenset()


@pytest.mark.parametrize(
    ("text", "equations"),
    [
        ("6 * 7 = <<6*7=42>>42 pens\n#### 42", {"6*7=42"}),
        ("[ 6 * 7 = 42 ] 42. #### 42.", {"6*7=42"}),
        ("She pays $1,000 / 4 = $250 each.", {"1000/4=250"}),
        ("2 x 3 = 6, so 6 + 1 = 7.", {"2*3=6", "6+1=7"}),
        ("<<2*3=6>>6 and then 6 - 2 = 5", {"2*3=6", "6-2=5"}),  # wrong ones too
        ("x = 5 and y=6, 48=48", set()),
        ("no equation ==== = 5 =", set()),
    ],
)
def test_equation_set(text: str, equations: set[str]) -> None:
    assert equation_set(text) == equations


def test_comparison_set() -> None:
    text = "<<2*3=6>>6"
    assert comparison_set("tokens", (4, 5, 2), text, 2) == {4, 5}
    assert comparison_set("words", (4, 5, 2), text, 2) == word_set(text)
    assert comparison_set("equations", (4, 5, 2), text, 2) == {"2*3=6"}


def sets_of(*texts: str) -> list[frozenset[str]]:
    return [frozenset(text) for text in texts]


def test_exact_copies_go_first() -> None:
    texts = ["b", "a", "b", "a", "a"]
    assert deduplicate(texts, sets_of(*texts), 0.7) == Kept([1, 0], num_exact=3, num_near=0)


def test_greedy_in_sorted_order() -> None:
    # abcd-bcde 3/5, bcde-cdef 3/5, abcd-cdef 2/6: the middle one drops out, its neighbour stays.
    texts = ["cdef", "bcde", "abcd"]
    assert deduplicate(texts, sets_of(*texts), 0.5) == Kept([2, 0], num_exact=0, num_near=1)


def test_gold_goes_first_whatever_its_place() -> None:
    texts = ["abcd", "cdef", "bcde"]
    assert deduplicate(texts, sets_of(*texts), 0.5, gold=2) == Kept([2], num_exact=0, num_near=2)


def test_a_copy_of_gold_drops_out_and_not_gold() -> None:
    texts = ["b", "a", "b"]
    assert deduplicate(texts, sets_of(*texts), 0.5, gold=2) == Kept([2, 1], num_exact=1, num_near=0)


def test_only_above_the_threshold_is_a_duplicate() -> None:
    seven_of_ten = [frozenset(range(7)), frozenset(range(10))]
    assert jaccard(*seven_of_ten) == 0.7
    assert len(deduplicate(["a", "b"], seven_of_ten, 0.7).indices) == 2
    assert len(deduplicate(["a", "b"], seven_of_ten, 0.699).indices) == 1


def test_nothing_to_deduplicate() -> None:
    assert deduplicate([], [], 0.7) == Kept([], 0, 0)


TEXTS = st.lists(st.lists(st.sampled_from("abcdef12+?"), max_size=6).map(" ".join), max_size=8)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(TEXTS, TEXTS)
def test_nearest_neighbours_against_all_pairs(queries: list[str], corpus: list[str]) -> None:
    expected = [max((jaccard(word_set(a), word_set(b)) for b in corpus), default=0.0) for a in queries]
    assert nearest_neighbours(queries, corpus) == expected


def test_nearest_neighbours_at_the_size_of_a_data_set() -> None:
    draw = random.Random(0)
    words = [f"w{i}" for i in range(3000)]
    weights = [1 / (i + 1) for i in range(3000)]
    texts = [" ".join(draw.choices(words, weights, k=35)) for _ in range(8000)]
    nearest = nearest_neighbours(texts, texts[:1000])
    assert nearest[:1000] == [1.0] * 1000
    assert all(0 < value < 1 for value in nearest[1000:])
