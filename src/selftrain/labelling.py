"""Right and distinct completions become pseudo-labels, by the rules of the paper's code.

    labels, stats = select_labels({"q1": (gold, pool)}, config.labels, eos_id=2)

1. Of each question the strictly right completions are de-duplicated (`similarity.deduplicate`), the gold
   rationale first, so that its near-copies drop out.
2. All questions together give the cap: the percentile (linear between ranks) of the labels a question, gold
   included, truncated to an integer, at least 1. Questions with neither gold rationale nor right completion
   don't count.
3. A question keeps its gold rationale, then its completions in lexicographic order of text, up to the cap.

The gold rationales are in the training set anyway and not among the labels returned. With `gold_first` off only
exact copies of the gold rationale drop out (ours; the same row would be trained on twice); it counts all the same.

Leaves out: files, and making examples of the labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from selftrain.config import LabelsConfig
from selftrain.records import Completion
from selftrain.similarity import Gold, Kept, comparison_set, deduplicate

Labels = list[tuple[str, Completion]]


@dataclasses.dataclass(frozen=True, slots=True)
class LabelStats:
    """What became of the right completions: `num_labels` are kept, the others are lost as the fields say.

    `num_right = num_labels + num_exact + num_near + num_over_cap`. `num_yielding` questions gave a label, `cap`
    is the most rationales that a question may have, gold included.
    """

    num_questions: int
    num_completions: int
    num_solved: int
    num_right: int
    num_exact: int
    num_near: int
    num_over_cap: int
    num_labels: int
    num_yielding: int
    cap: int


def select_labels(
    problems: Mapping[str, tuple[Gold | None, Sequence[Completion]]], config: LabelsConfig, eos_id: int | None
) -> tuple[Labels, LabelStats]:
    """Pseudo-labels of all questions and the account of them.

    Args:
        problems: problem id -> its gold rationale (token ids with the end token, text) and its pooled, judged
            samples, whose order is irrelevant.
        config: the rules.
        eos_id: the end token, which no token set holds.

    Returns:
        (problem id, completion), questions in the order of `problems`, completions in that of their text.
    """
    right = {identity: _right(completions) for identity, (_, completions) in problems.items()}
    kept = {identity: _distinct(problems[identity][0], right[identity], config, eos_id) for identity in problems}
    has_gold = {identity: gold is not None for identity, (gold, _) in problems.items()}
    counts = [len(kept[identity].indices) + has_gold[identity] for identity in problems]
    cap = label_cap([count for count in counts if count], config.cap_percentile)
    labels = [
        (identity, right[identity][index])
        for identity in problems
        for index in kept[identity].indices[: cap - has_gold[identity]]
    ]
    stats = LabelStats(
        num_questions=len(problems),
        num_completions=sum(len(completions) for _, completions in problems.values()),
        num_solved=sum(map(bool, right.values())),
        num_right=sum(map(len, right.values())),
        num_exact=sum(found.num_exact for found in kept.values()),
        num_near=sum(found.num_near for found in kept.values()),
        num_over_cap=sum(len(found.indices) for found in kept.values()) - len(labels),
        num_labels=len(labels),
        num_yielding=len({identity for identity, _ in labels}),
        cap=cap,
    )
    return labels, stats


def label_cap(counts: Sequence[int], percentile: float) -> int:
    """The most rationales a question may have: a percentile of the counts, truncated, at least 1.

    >>> label_cap([1, 1, 2, 4], 90)  # 3.4
    3
    """
    return max(1, int(np.percentile(counts, percentile))) if counts else 1


def _right(completions: Sequence[Completion]) -> list[Completion]:
    """Strictly right completions, in the order of stage and sample index."""
    found = [c for c in completions if c.strict is not None and c.strict.outcome == "right"]
    return sorted(found, key=lambda c: (c.stage, c.k))


def _distinct(gold: Gold | None, right: Sequence[Completion], config: LabelsConfig, eos_id: int | None) -> Kept:
    """What de-duplication leaves of a question's right completions, as indices of `right`; gold is taken off."""
    written = [] if gold is None else [gold]
    written += [(c.token_ids, c.text) for c in right]
    texts = [text for _, text in written]
    sets = [comparison_set(config.similarity_on, ids, text, eos_id) for ids, text in written]
    if gold is None:
        return deduplicate(texts, sets, config.duplicate_similarity)
    if config.gold_first:
        kept = deduplicate(texts, sets, config.duplicate_similarity, gold=0)
        return dataclasses.replace(kept, indices=[index - 1 for index in kept.indices[1:]])
    others = [index for index in range(1, len(texts)) if texts[index] != gold[1]]
    kept = deduplicate([texts[i] for i in others], [sets[i] for i in others], config.duplicate_similarity)
    num_copies = len(right) - len(others)
    return Kept([others[index] - 1 for index in kept.indices], kept.num_exact + num_copies, kept.num_near)
