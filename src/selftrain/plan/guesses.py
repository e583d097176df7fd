"""What the model will write is not known before a run: three guesses, and what they come to.

    LIKELY.length(mean_gold=75.0, limit=150), num_labels(LIKELY, ...), num_pairs(LIKELY, ...)

Lengths: a sample is as long as the mean gold rationale of its set (low: half, high: twice, at most the limit on new
tokens); the untrained base model writes up to the limit (low: half of it).

Share of right samples: each question's chance to be answered right is drawn from the arcsine law (half of the samples
right in all, most questions nearly always right or nearly always wrong, as both runs in docs/results show). With n
samples a question, C(2n, n) / 4^n of the questions are then all right, as many all wrong, and the rest mixed.

Labels: likely, each question with a right sample gives one label after de-duplication, and every second of those that
have a gold rationale too (its near-copies drop out). Low: none. High: each sample is right and distinct, up to the cap.
Pairs: likely, each mixed question gives one. Low: none. High: `pairs.per_question` everywhere.
Low and high are bounds for labels and pairs; for lengths they are guesses.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from selftrain.config import LabelsConfig, PairsConfig
from selftrain.labelling import label_cap


@dataclasses.dataclass(frozen=True)
class Guess:
    """How long samples are, as multiples, and how much comes of them."""

    name: Literal["low", "likely", "high"]
    of_gold: float  # a trained model's sample, in mean gold rationales
    of_limit: float  # the base model's answer, in the limit on new tokens

    def length(self, mean_gold: float, limit: int) -> float:
        """Tokens of a trained model's sample."""
        return min(self.of_gold * mean_gold, limit)


LOW, LIKELY, HIGH = Guess("low", 0.5, 0.5), Guess("likely", 1.0, 1.0), Guess("high", 2.0, 1.0)


def one_sided(num_samples: int) -> float:
    """The share of questions whose samples are all right; the same are all wrong.

    >>> one_sided(3)
    0.3125
    """
    return float(math.comb(2 * num_samples, num_samples) / 4**num_samples)


def num_labels(guess: Guess, config: LabelsConfig, num_samples: int, with_gold: int, without: int) -> int:
    """Pseudo-labels of a pool with so many samples a question, from questions with a gold rationale and without."""
    if guess.name == "low":
        return 0
    if guess.name == "likely":
        return round((1 - one_sided(num_samples)) * (without + with_gold / 2))
    cap = label_cap([num_samples + 1] * with_gold + [num_samples] * without, config.cap_percentile)
    return with_gold * min(num_samples, cap - 1) + without * min(num_samples, cap)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Questions with pairs, pairs of each, and distinct completions of each."""

    questions: int
    each: int
    completions: int

    @property
    def all(self) -> int:
        """Pairs."""
        return self.questions * self.each


def num_pairs(guess: Guess, config: PairsConfig, num_samples: int, with_gold: int, without: int) -> Pairs:
    """The pairs of a pool with so many samples a question."""
    if guess.name == "low":
        return Pairs(0, 0, 0)
    if guess.name == "likely":
        questions = with_gold + without
        if num_samples > 1:
            return Pairs(round((1 - 2 * one_sided(num_samples)) * questions), 1, 2)
        return Pairs(0 if config.gold_winner == "never" else with_gold // 2, 1, 2)
    gold = int(with_gold > 0 and config.gold_winner != "never")
    questions = with_gold * bool(num_samples + gold > 1) + without * bool(num_samples > 1)
    most = max(right * (num_samples + gold - right) for right in range(num_samples + gold + 1))
    each = min(config.per_question, most)
    return Pairs(questions, each, min(2 * each, num_samples + gold)) if each else Pairs(0, 0, 0)
