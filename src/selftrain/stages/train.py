"""Train a model and save it: SFT on examples, or DPO on pairs. One stage; the objective is the difference.

Writes model/ (a plain transformers folder), train-log.jsonl (one row a step) and, in its figures, what the training
cost and how it ended. A training that was cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selftrain import stopping
from selftrain.config import RunConfig
from selftrain.forwards import Layout, choose_layout
from selftrain.models import LanguageModel, checkpoint_activations, is_encoder_decoder, save_model
from selftrain.processes import Team
from selftrain.progress import Progress
from selftrain.rundir import Figures
from selftrain.seeding import derive_seed
from selftrain.stagefolder import TRACKERS
from selftrain.training.adapters import adapters
from selftrain.training.batches import WORTH_A_FORWARD, Plan
from selftrain.training.compiling import compile_blocks
from selftrain.training.fit import FitResult, Interrupted, Precision, fit
from selftrain.training.objective import Objective, probe_trees
from selftrain.training.schedule import peak_rate
from selftrain.training.sharding import whole_weights
from selftrain.training.trackers import tracking

MODEL = "model"
LAYOUTS: tuple[Layout, Layout] = ("trees", "rows")


def run_training(
    folder: Path,
    *,
    stage: str,
    open_model: Callable[[], LanguageModel],
    make_objective: Callable[[LanguageModel], Objective],
    config: RunConfig,
    precision: Precision,
    peak_flops: float | None,
    progress: Progress,
    team: Team,
) -> Figures:
    """Fit the objective on a freshly opened model; save weights, then figures. A team trains together."""
    model = open_model()
    objective = make_objective(model)
    progress.say(f"{stage}: {_lay_out(objective, model, config)}")
    progress.begin(stage, objective.plan.num_steps, "steps")
    before = 0

    def on_step(step: int, num_steps: int, row: dict[str, Any]) -> None:
        nonlocal before
        shown = f"loss {row['loss']:.3f}"
        if "reward_accuracy" in row:
            shown += f", reward accuracy {row['reward_accuracy']:.0%}"
        send(row)
        progress.advance(step - before, shown)
        before = step

    if config.training.gradient_checkpointing:
        checkpoint_activations(model.module)
    if config.compute.compile:
        compile_blocks(model.module)
    trackers = config.training.trackers if team.is_main else []
    with (
        adapters(model.module, config.training.lora, derive_seed(objective.seed, "lora")),
        tracking(
            trackers,
            project=config.name,
            name=stage,
            folder=folder / TRACKERS,
            settings=objective.config.model_dump(),
        ) as send,
        _stoppable(team) as should_stop,
    ):
        progress.say(f"{stage}: {_rate(objective, model)}")
        result = fit(
            model.module,
            objective,
            folder=folder,
            precision=precision,
            model_digest=model.digest,
            checkpoint_every_s=config.training.checkpoint_every_s,
            peak_flops=peak_flops,
            on_step=on_step,
            should_stop=should_stop,
            team=team,
            sharded=config.training.sharded,
        )
    state = whole_weights(model.module, keep=team.is_main) if config.training.sharded else None
    if not team.is_main:
        return {}
    weights = save_model(model, folder / MODEL, state)
    final = {name: round(value, 6) for name, value in result.final.items()}
    progress.end(_figure(objective.name, result, final))
    return {
        "weights": weights,
        "steps": result.steps,
        "trained_tokens": result.trained_tokens,
        "forward_tokens": result.forward_tokens,
        "first_loss": result.first["loss"],
        "training_seconds": round(result.seconds, 3),
        "resumed_from_step": result.resumed_from_step,
        "parameters": model.num_parameters,
        "encoder_decoder": is_encoder_decoder(model.module),
        "start_weights": model.digest,
        "precision": precision,
        "layout": objective.plan.layout,
        "padding_fraction": _padding(objective.plan),
        "learning_rate": result.learning_rate,
        "notes": list(result.notes),
        **final,
    }


def _lay_out(objective: Objective, model: LanguageModel, config: RunConfig) -> str:
    """Give the objective its layout; which, why, and what a pass over the rows computes in each."""
    layout, why_rows = choose_layout(model.module, config.training.layout, probe_trees(objective))
    worth = WORTH_A_FORWARD[model.device.type]
    objective.plan = dataclasses.replace(objective.plan, layout=layout, worth_a_forward=worth)
    of_trees, of_rows = (objective.plan.pass_tokens(one)[1] for one in LAYOUTS)
    if layout == "trees":
        return f"each prompt once (trees): {of_trees:,} tokens a pass over the rows, {of_rows:,} as padded rows"
    why = why_rows or "as training.layout asks"
    return f"one padded row a completion: {why}; {of_rows:,} tokens a pass over the rows, {of_trees:,} as trees"


def _rate(objective: Objective, model: LanguageModel) -> str:
    """The peak rate; where it is "auto", what that came to."""
    wanted = objective.config.learning_rate
    rate = peak_rate(wanted, objective.plan.num_steps, model.num_parameters)
    return f"learning rate {rate:.2g}{' (auto)' if wanted == 'auto' else ''}"


def _padding(plan: Plan) -> float:
    """Share of the tokens that a pass over the rows computes for nothing."""
    real, computed = plan.pass_tokens(plan.layout)
    return round(1 - real / computed, 4)


@contextlib.contextmanager
def _stoppable(team: Team) -> Iterator[Callable[[], bool] | None]:
    """What `fit` asks after each step, so that Ctrl-C loses none; the processes of a team cannot stop apart."""
    if team.size > 1:
        yield None
        return
    try:
        with stopping.deferred():
            yield stopping.requested
    except Interrupted:
        raise KeyboardInterrupt from None


def _figure(name: str, result: FitResult, final: dict[str, float]) -> str:
    if name != "dpo":
        return f"loss {result.first['loss']:.3f} to {result.last['loss']:.3f}"
    return (
        f"reward accuracy {final['reward_accuracy']:.0%}, right answers "
        f"{final['chosen_change_per_token']:+.3f} and wrong ones {final['rejected_change_per_token']:+.3f} nats a token"
    )
