"""Direct preference optimisation, by question: each distinct completion is forwarded once a question and step.

    questions = group_pairs(pairs, prompts)
    objective = DPOObjective(questions, config.training.dpo, seed=7, pad_id=0, encoder_decoder=False)
    result = fit(module, objective, folder=folder)

The reference is the module itself before step 1: its log-probabilities are measured once, by the same
forward on the same micro-batches that training uses, so that margins start at 0; no second model is held.
Dropout is off throughout (paper). Departure: the paper shuffles pairs singly; here a question's pairs stay
in one effective batch of about `batch_size` pairs (`batches.group_batches`), since 3 pairs from 2 + 2
completions then cost 4 forwards and not 6; with `layout="trees"` they share the prompt's forward too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from selftrain.config import DPOConfig
from selftrain.errors import DataError
from selftrain.forwards import Layout, Tree
from selftrain.models import checkpoints_activations, set_dropout
from selftrain.records import Pair
from selftrain.training.batches import ItemShape, MicroBatch, Plan, group_batches
from selftrain.training.losses import chosen_nll, preference_loss, reward_accuracy, sum_by_row
from selftrain.training.objective import Forced, Forward, Measure, Stats, json_digest, target_log_probs, token_counts

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A prompt, its distinct completions, and pairs (winner, loser, weight) among them by index.

    >>> Question("q1", (5, 6), ((7, 2), (8, 2)), ((0, 1, 1.0),)).completions[0]
    (7, 2)
    """

    problem_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    pairs: tuple[tuple[int, int, float], ...]


def group_pairs(pairs: Iterable[Pair], prompts: Mapping[str, Sequence[int]]) -> list[Question]:
    """Pairs grouped by problem, in order of first appearance, completions de-duplicated by their ids.

    Args:
        prompts: problem id -> prompt token ids.

    Raises:
        DataError: a pair without a prompt, with an empty or equal side, or with a weight not above 0.
    """
    completions: dict[str, dict[Ids, int]] = {}
    found: dict[str, list[tuple[int, int, float]]] = {}
    for pair in pairs:
        _check(pair, prompts)
        index = completions.setdefault(pair.problem_id, {})
        winner = index.setdefault(tuple(pair.chosen_ids), len(index))
        loser = index.setdefault(tuple(pair.rejected_ids), len(index))
        found.setdefault(pair.problem_id, []).append((winner, loser, pair.weight))
    return [Question(name, tuple(prompts[name]), tuple(completions[name]), tuple(found[name])) for name in found]


def _check(pair: Pair, prompts: Mapping[str, Sequence[int]]) -> None:
    if not prompts.get(pair.problem_id):
        raise DataError(f"pair of {pair.problem_id}: no prompt is known for this problem.")
    if not pair.chosen_ids or not pair.rejected_ids or tuple(pair.chosen_ids) == tuple(pair.rejected_ids):
        raise DataError(f"pair of {pair.problem_id}: expected two different, non-empty completions.")
    if not pair.weight > 0:
        raise DataError(f"pair of {pair.problem_id}: expected a weight above 0, got {pair.weight}.")


class DPOObjective:
    """Weighted mean of the pairs' DPO losses over an effective batch; an item is a `Question`.

    `forced`, where given, finds tokens of a completion that count for nothing, neither in sums nor in lengths.
    Questions that no step reaches (`max_steps`, `max_epochs`) are left out at once, so nothing is measured on them.

    Raises:
        DataError: no pairs at all.
    """

    name = "dpo"
    stat_names: tuple[str, ...] = (
        "pairs", "margin", "right", "chosen_tokens", "chosen_log_prob", "chosen_change", "rejected_tokens",
        "rejected_log_prob", "rejected_change",
    )  # fmt: skip

    def __init__(
        self,
        questions: Sequence[Question],
        config: DPOConfig,
        *,
        seed: int,
        pad_id: int,
        encoder_decoder: bool,
        micro_batch_tokens: int = 2048,
        layout: Layout = "rows",
        forced: Forced | None = None,
    ) -> None:
        if not questions:
            raise DataError("DPO needs at least one pair, got none.")
        sizes = [len(question.pairs) for question in questions]
        batches = group_batches(sizes, config.batch_size, config.max_epochs, config.max_steps, seed)
        used = sorted({item for batch in batches for item in batch})
        place = {item: index for index, item in enumerate(used)}
        batches = [[place[item] for item in batch] for batch in batches]
        questions = [questions[item] for item in used]
        self.questions, self.config, self.seed, self.pad_id = questions, config, seed, pad_id
        shapes = [ItemShape.of(len(q.prompt_ids), [len(ids) for ids in q.completions]) for q in questions]
        weights = [sum(weight for _, _, weight in q.pairs) for q in questions]
        self.plan = Plan(batches, shapes, weights, micro_batch_tokens, encoder_decoder, layout)
        self.counts = [[token_counts(ids, forced) for ids in question.completions] for question in questions]
        self.reference: list[Tensor] = []  # a question: [completions]

    @property
    def forward_tokens(self) -> int:
        """Real tokens of the reference pass and of the pass after training."""
        return 2 * sum(micro_batch.tokens for micro_batch in self.plan.covering())

    def digest(self) -> str:
        """SHA-256 of prompts, completions and pairs, in order."""
        return json_digest([[q.prompt_ids, q.completions, q.pairs] for q in self.questions])

    def set_mode(self, module: nn.Module) -> None:
        """No dropout, neither in the policy nor in the reference.

        Gradient checkpointing works in training mode only.
        """
        if checkpoints_activations(module):
            set_dropout(module, 0.0)
            module.train()
        else:
            module.eval()

    def log_probs(self, module: nn.Module, micro_batch: MicroBatch) -> Tensor:
        """log pi(y|x), summed over tokens, of every completion of the micro-batch's questions in order [R]."""
        trees = self.trees(micro_batch.items)
        values, rows = target_log_probs(module, trees, self.pad_id, self.plan.layout)
        counts = [count for item in micro_batch.items for completion in self.counts[item] for count in completion]
        return sum_by_row(values * values.new_tensor(counts), rows, sum(len(tree.targets) for tree in trees))

    def loss(self, module: nn.Module, micro_batch: MicroBatch) -> tuple[Tensor, Stats]:
        """This micro-batch's part of the weighted mean over the effective batch's pairs."""
        return self._compare(self.log_probs(module, micro_batch), micro_batch)

    def _compare(self, policy: Tensor, micro_batch: MicroBatch) -> tuple[Tensor, Stats]:
        """The loss's part, and the sums that `report` divides."""
        if len(self.reference) != len(self.questions):
            raise RuntimeError("the reference has not been measured: call before() and restore() first")
        reference = torch.cat([self.reference[item] for item in micro_batch.items]).to(policy)  # [R]
        chosen, rejected, weights, lengths = self._pairs(micro_batch, policy.device)
        config, ratios = self.config, policy - reference
        scaled = ratios / lengths if config.length_normalised else ratios
        losses = preference_loss(config.loss, scaled[chosen] - scaled[rejected], config.beta)
        loss = (weights * losses).sum() / micro_batch.denominator
        if config.nll_alpha:
            of = micro_batch.denominator if config.nll_norm == "sequence" else self._winner_tokens(micro_batch.batch)
            loss = loss + config.nll_alpha * chosen_nll(policy[chosen], lengths[chosen], weights, config.nll_norm, of)
        change = ratios.detach()
        margins = config.beta * (change[chosen] - change[rejected])
        stats = {
            "pairs": weights.new_tensor(len(weights)),
            "margin": margins.sum(),
            "right": reward_accuracy(margins) * len(weights),
        }
        for side, index in (("chosen", chosen), ("rejected", rejected)):
            stats[f"{side}_tokens"] = lengths[index].sum()
            stats[f"{side}_log_prob"] = policy.detach()[index].sum()
            stats[f"{side}_change"] = change[index].sum()
        return loss, stats

    def _winner_tokens(self, items: Iterable[int]) -> float:
        """The winners' tokens, each pair with its weight."""
        pairs = [
            (self.counts[item][winner], weight) for item in items for winner, _, weight in self.questions[item].pairs
        ]
        return math.fsum(weight * sum(counts) for counts, weight in pairs)

    def _pairs(self, micro_batch: MicroBatch, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each pair the row of its winner [P] and loser [P] and its weight [P]; of each row its tokens [R]."""
        chosen: list[int] = []
        rejected: list[int] = []
        weights: list[float] = []
        lengths: list[float] = []
        for item in micro_batch.items:
            first = len(lengths)
            for winner, loser, weight in self.questions[item].pairs:
                chosen.append(first + winner)
                rejected.append(first + loser)
                weights.append(weight)
            lengths += [sum(counts) for counts in self.counts[item]]
        return (
            torch.tensor(chosen, device=device),
            torch.tensor(rejected, device=device),
            torch.tensor(weights, device=device),
            torch.tensor(lengths, device=device),
        )

    def report(self, sums: dict[str, float]) -> dict[str, float]:
        """Mean margin (beta included) and reward accuracy over pairs; log-probabilities and their change
        against the reference in nats a token, over all tokens of that side of the pairs."""
        row = {"margin": sums["margin"] / sums["pairs"], "reward_accuracy": sums["right"] / sums["pairs"]}
        for side in ("chosen", "rejected"):
            row[f"{side}_log_prob_per_token"] = sums[f"{side}_log_prob"] / sums[f"{side}_tokens"]
            row[f"{side}_change_per_token"] = sums[f"{side}_change"] / sums[f"{side}_tokens"]
        return row

    def names(self, items: Iterable[int]) -> list[str]:
        """The problems' ids."""
        return [self.questions[item].problem_id for item in items]

    def trees(self, items: Iterable[int]) -> list[Tree]:
        """A prompt and its distinct completions each."""
        return [Tree(self.questions[item].prompt_ids, self.questions[item].completions) for item in items]

    def before(self, module: nn.Module, measure: Measure) -> dict[str, Tensor]:
        """The reference's log-probabilities of all completions, question by question, one after another."""
        return {"reference": torch.cat(reference_log_probs(module, self, measure))}

    def restore(self, constants: dict[str, Tensor]) -> None:
        """Take the reference's log-probabilities."""
        sizes = [len(question.completions) for question in self.questions]
        self.reference = list(torch.split(constants["reference"], sizes))

    def after(self, module: nn.Module, measure: Measure) -> dict[str, float]:
        """`report` over all pairs, and the mean `loss`, on the module as it is now."""
        module.eval()
        sums: dict[str, float] = {}
        covering = self.plan.covering()
        everything = tuple(item for micro_batch in covering for item in micro_batch.items)
        denominator = math.fsum(self.plan.weights[item] for item in everything)
        measured = measure([self.forward_of(module, micro_batch) for micro_batch in covering])
        for micro_batch, policy in zip(covering, measured, strict=True):
            whole = dataclasses.replace(micro_batch, batch=everything, denominator=denominator)
            loss, stats = self._compare(policy, whole)
            for name, value in {"loss": loss, **stats}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
        return {"loss": sums["loss"], **self.report(sums)}

    def forward_of(self, module: nn.Module, micro_batch: MicroBatch) -> Forward:
        """`log_probs` of a micro-batch, and how many they are."""
        size = sum(len(self.questions[item].completions) for item in micro_batch.items)
        return size, lambda: self.log_probs(module, micro_batch)


def reference_log_probs(module: nn.Module, objective: DPOObjective, measure: Measure) -> list[Tensor]:
    """log pi_ref(y|x) of each question's completions, fp32 on the CPU, with the module as it is now.

    Every micro-batch has the composition that training will give it, and dropout is off.
    """
    module.eval()
    found: dict[int, Tensor] = {}
    covering = objective.plan.covering()
    measured = measure([objective.forward_of(module, micro_batch) for micro_batch in covering])
    for micro_batch, values in zip(covering, measured, strict=True):
        sizes = [len(objective.questions[item].completions) for item in micro_batch.items]
        for item, part in zip(micro_batch.items, torch.split(values, sizes), strict=True):
            found.setdefault(item, part)
    return [found[item] for item in range(len(objective.questions))]
