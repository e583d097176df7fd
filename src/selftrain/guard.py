"""What a run says of a DPO step: that it learned little, changed next to nothing, or broke the model.

Each function gives a sentence, or an empty string where there is nothing to say. Sources of the limits: `GuardConfig`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from selftrain.config import GuardConfig
from selftrain.evidence import change_over_seeds, verdict
from selftrain.metrics import Groups


def learned_little(reward_accuracy: float, guard: GuardConfig) -> str:
    """A warning where DPO hardly tells its own pairs apart.

    >>> learned_little(0.55, GuardConfig(min_reward_accuracy=0.6)).split(":")[0]
    "DPO's reward accuracy on its own pairs is 55%, below 60%"
    """
    if reward_accuracy >= guard.min_reward_accuracy:
        return ""
    return (
        f"DPO's reward accuracy on its own pairs is {reward_accuracy:.0%}, below {guard.min_reward_accuracy:.0%}: "
        "it learned little (raise training.dpo.learning_rate or steps)."
    )


def unmoved(changed: float, guard: GuardConfig) -> str:
    """A warning where nearly all samples are what the SFT model wrote at equal seeds."""
    if changed >= guard.min_changed_fraction:
        return ""
    return f"only {changed:.1%} of the samples differ after DPO at equal seeds: it did next to nothing."


def fewer_right(
    before: Mapping[str, float], after: Mapping[str, float], groups: Groups | None = None, *, gold_wins: bool = True
) -> str:
    """A warning where the DPO model's samples are right less often than the SFT model's, beyond chance.

    Args:
        before, after: problem id -> the share of its samples that is right, for pairs (f') and for labels (f_d).
        gold_wins: gold rationales are winners in pairs, which may be why (docs/guide/training.md).
    """
    common = before.keys() & after.keys()
    change = {name: after[name] - before[name] for name in common}
    if not common or verdict(change_over_seeds([change], groups)) != "worse":
        return ""
    was, now = (sum(shares[name] for name in common) / len(common) for shares in (before, after))
    return (
        f"DPO made a worse sampler: {was:.1%} of the samples were right before it and {now:.1%} after it "
        f"({'pairs.gold_winner=never or ' if gold_wins else ''}a lower training.dpo.learning_rate may help)."
    )


def lost_right_answers(chosen_change_per_token: float, guard: GuardConfig) -> str:
    """Why a DPO model must not sample: its right answers became unlikely."""
    lost = -chosen_change_per_token
    return f"right answers lost {lost:.2f} nats a token" if lost > guard.max_chosen_drop else ""


def lost_accuracy(before: float, after: float, num_problems: int, guard: GuardConfig) -> str:
    """Why a DPO model must not sample: validation accuracy fell by more standard errors than allowed."""
    rows = max(num_problems, 1)
    error = math.sqrt(max(before * (1 - before), 1 / rows) / rows)
    if before - after <= guard.max_accuracy_drop_se * error:
        return ""
    return f"validation accuracy fell from {before:.1%} to {after:.1%}"
