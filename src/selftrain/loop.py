"""Algorithms 1 (ST) and 2 (DPO-ST) of Wang, Li, Lu (ACL 2024), to be read beside the paper.

`work` does the stages (runner.py): each call is one stage of the run folder, skipped when it is finished.
Departures: the loop may stop on validation accuracy (`schedule.patience`); a DPO model that collapsed, or an
iteration without a single pair, leaves the sampling to the SFT model (the iteration degrades to ST); a user's own
SFT model may stand for the warm-up's (`warmup_model`), samples made elsewhere join the pools (`data.samples`), and the
right samples for pairs may become labels too (`labels.reuse_samples_for_pairs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selftrain.modelstore import ModelRef
    from selftrain.runner import Arm, Runner


def self_train(work: Runner, arm: Arm) -> ModelRef:
    """Train one arm of a run to its end and return the delivered model, f'."""
    base = work.base()  # f0
    work.evaluate(base, "0-base")
    labelled = work.gold()  # L
    model = work.warm_up(base, labelled)  # f' = SFT(f0, L)
    work.evaluate(model, "0-warmup")
    if arm.method == "sft":
        return work.sft_matched(base, labelled, arm) if arm.matched else model

    samples_for_pairs, samples_for_labels = [], []  # they pool over iterations
    for iteration in work.iterations(arm):
        sampler = model
        if arm.method == "dpo-st":
            samples_for_pairs.append(work.sample(model, iteration, "sample-for-pairs"))  # K_dpo of each in U, from f'
            pairs = work.pair(samples_for_pairs, iteration)  # right against wrong
            sampler = work.dpo(model, pairs, iteration)  # f_d = DPO(f', pairs), reference f'
        samples_for_labels.append(work.sample(sampler, iteration, "sample-for-labels"))  # K_sft, from f_d (ST: f')
        pseudo_labelled = work.select(samples_for_labels, samples_for_pairs, iteration)  # right, distinct; and gold
        model = work.sft(work.start(base, model), pseudo_labelled, iteration.name)  # from f0, never continued
        work.evaluate(model, iteration.name)
    return work.best(arm, model)
