"""How alike two texts are: Jaccard similarity of sets of tokens, words or equations.

    jaccard(token_set(a.token_ids, eos_id), token_set(b.token_ids, eos_id))
    deduplicate(texts, sets, threshold=0.7, gold=0).indices
    nearest_neighbours(test_questions, training_questions)     # [0.31, 1.0, ...]

Rationales are compared by token sets in the paper's code; with one token a digit two rationales that differ in
numbers only look alike there, so words and equations are offered too (ours). Questions are compared by
normalised text and by word sets.

Leaves out: order and frequency of words, meaning. Where the paper re-tokenises text, stored token ids are taken.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selftrain.calculator.annotation import Style, find

ComparedOn = Literal["tokens", "words", "equations"]
Gold = tuple[tuple[int, ...], str]  # a gold rationale as the model would write it: token ids, text
Set = frozenset[Hashable]

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"), "-")
_APOSTROPHES = dict.fromkeys(map(ord, "'\u2018\u2019\u02bc"), "")
_WORD = re.compile(
    r"[0-9]+(?:[.,][0-9]+)*+|[^\W_]+"
    r"|[+*/=<>%^×÷]|-(?=\s?\$?[0-9(])|\((?=\s?[-(0-9])|(?:(?<=[0-9)])|(?<=[0-9)] ))\)"
)
_BEFORE_EQUALS = re.compile(r"[-+*/x×÷%.,$ 0-9()]*\Z")
_AFTER_EQUALS = re.compile(r" ?-?\$? ?([0-9][0-9.,]*|\.[0-9]+)")
_MAX_CHARS = 20_000  # of a rationale
_MAX_SIDE_CHARS = 80  # of an equation's side
_IN_EQUATION = str.maketrans({"x": "*", "×": "*", "÷": "/", " ": None, "$": None, ",": None})


def token_set(token_ids: Sequence[int], eos_id: int | None) -> Set:
    """The ids of a completion without the end token."""
    return frozenset(token_ids) - {eos_id}


def word_set(text: str) -> Set:
    """The words, numbers and operators of a normalised text."""
    return frozenset(normalise_question(text).split(" ")) - {""}


def equation_set(text: str) -> Set:
    """The equations of a rationale: annotated ones in both writings, and plain ones.

    >>> sorted(equation_set("He has 2 x 3 = <<2*3=6>>6 and 6 + 1 = 8."))
    ['2*3=6', '6+1=8']
    """
    text = text[:_MAX_CHARS]
    found: set[Hashable] = set()
    styles: tuple[Style, ...] = ("angle", "bracket")
    for style in styles:
        for annotation in reversed(find(text, style)):
            found.add(_equation(annotation.expression, annotation.result))
            text = text[: annotation.start] + text[annotation.end :]
    return frozenset(found | _plain_equations(text))


def comparison_set(on: ComparedOn, token_ids: Sequence[int], text: str, eos_id: int | None) -> Set:
    """The set by which a rationale is compared, as `similarity_on` names it."""
    if on == "tokens":
        return token_set(token_ids, eos_id)
    return word_set(text) if on == "words" else equation_set(text)


def jaccard(a: Set, b: Set) -> float:
    """Size of the intersection over size of the union; two empty sets are equal, so 1."""
    num_common = len(a & b)
    num_all = len(a) + len(b) - num_common
    return num_common / num_all if num_all else 1.0


def normalise_question(text: str) -> str:
    """A question's words in lower case with one space between; punctuation and thousands commas are gone.

    Operators stay, so that 3 - 5 and 3 + 5 differ. Two questions with the same result count as the same text.

    >>> normalise_question("Tom's  1,000 apples -- how many?"), normalise_question("What is 3-5?")
    ('toms 1000 apples how many', 'what is 3 - 5')
    """
    text = unicodedata.normalize("NFKC", text).casefold().translate(_DASHES).translate(_APOSTROPHES)
    return " ".join(word.replace(",", "") for word in _WORD.findall(text))


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """What `deduplicate` keeps: indices in sorted order (gold first), and how many it dropped, and why."""

    indices: list[int]
    num_exact: int
    num_near: int


def deduplicate(texts: Sequence[str], sets: Sequence[Set], threshold: float, gold: int | None = None) -> Kept:
    """Drop duplicates as the paper's code does: equal texts first, then greedily what is too alike.

    In lexicographic order of the texts each is kept unless its Jaccard similarity to one kept before is above
    `threshold`. The text at index `gold` goes first, so its copies and near-copies drop out. Of equal texts the
    one with the lowest index stays.
    """
    order = sorted(range(len(texts)), key=lambda index: (index != gold, texts[index], index))
    first_of = {texts[index]: index for index in reversed(order)}
    distinct = [index for index in order if first_of[texts[index]] == index]
    kept: list[int] = []
    for index in distinct:
        if all(jaccard(sets[index], sets[other]) <= threshold for other in kept):
            kept.append(index)
    return Kept(kept, len(texts) - len(distinct), len(distinct) - len(kept))


def nearest_neighbours(queries: Sequence[str], corpus: Sequence[str]) -> list[float]:
    """The highest word-set Jaccard similarity of each query to any text of the corpus; 0 for an empty corpus.

    By an inverted index: only texts that share a word are counted. A query that is in the corpus finds itself.
    """
    if not corpus:
        return [0.0] * len(queries)
    sets = [word_set(text) for text in corpus]
    sizes = np.array([len(words) for words in sets], dtype=np.int64)  # [C]
    index = _inverted(sets)
    return [_nearest(word_set(query), index, sizes) for query in queries]


def _inverted(sets: Sequence[Set]) -> dict[Hashable, NDArray[np.int64]]:
    """word -> the places of the texts that hold it, [n]."""
    places: dict[Hashable, list[int]] = collections.defaultdict(list)
    for place, words in enumerate(sets):
        for word in words:
            places[word].append(place)
    return {word: np.array(found, dtype=np.int64) for word, found in places.items()}


def _nearest(words: Set, index: Mapping[Hashable, NDArray[np.int64]], sizes: NDArray[np.int64]) -> float:
    found = [index[word] for word in words if word in index]
    if not found:
        return 1.0 if not words and not sizes.all() else 0.0
    num_common = np.bincount(np.concatenate(found), minlength=len(sizes))  # [C]
    return float(np.max(num_common / (sizes + len(words) - num_common)))


def _plain_equations(text: str) -> set[Hashable]:
    """Equations written out: an expression before `=` that has an operator, and a number after it."""
    found: set[Hashable] = set()
    for match in re.finditer("=", text):
        before = _BEFORE_EQUALS.search(text[max(0, match.start() - _MAX_SIDE_CHARS) : match.start()])
        after = _AFTER_EQUALS.match(text[match.end() : match.end() + _MAX_SIDE_CHARS])
        if before is None or after is None:
            continue
        expression = before.group().strip(" .,$x")
        if re.search(r"[0-9)%] ?[-+*/x×÷]", expression):
            found.add(_equation(expression, after.group().rstrip(".,")))
    return found


def _equation(left: str, right: str) -> str:
    return f"{left.translate(_IN_EQUATION)}={right.translate(_IN_EQUATION)}"
