"""Train a model and save it: SFT on examples, or DPO on pairs. One stage; the objective is the difference.

Writes model/ (a plain transformers folder), train-log.jsonl (one row a step) and, in its figures, what the training
cost and how it ended. A training that was cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import contextlib
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
from selftrain.training.compiling import compile_blocks
from selftrain.training.fit import Interrupted, Precision, fit
from selftrain.training.objective import Objective
from selftrain.training.sharding import whole_weights
from selftrain.training.trackers import tracking

MODEL = "model"


def run_training(
    folder: Path,
    *,
    stage: str,
    open_model: Callable[[], LanguageModel],
    make_objective: Callable[[LanguageModel, Layout], Objective],
    config: RunConfig,
    precision: Precision,
    peak_flops: float | None,
    progress: Progress,
    team: Team,
) -> Figures:
    """Fit the objective on a freshly opened model; save weights, then figures. A team trains together."""
    model = open_model()
    layout, why_rows = choose_layout(model.module, config.training.layout)
    objective = make_objective(model, layout)
    if why_rows:
        progress.say(f"{stage}: one padded row a completion: {why_rows}")
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
    progress.end(_figure(objective.name, result.steps, final))
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
        "layout": layout,
        "notes": list(result.notes),
        **final,
    }


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


def _figure(name: str, steps: int, final: dict[str, float]) -> str:
    if name != "dpo":
        return f"{steps} steps"
    return (
        f"{steps} steps, reward accuracy {final['reward_accuracy']:.0%}, right answers "
        f"{final['chosen_change_per_token']:+.3f} and wrong ones {final['rejected_change_per_token']:+.3f} nats a token"
    )
