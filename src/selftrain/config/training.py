"""The two trainings of an iteration: how to optimise, which loss, and how it is carried out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from selftrain.config.base import Section


class OptimizerConfig(Section):
    """AdamW with warm-up and a cosine; shared by SFT and DPO."""

    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(description="peak learning rate")
    batch_size: int = Field(ge=1, description="rows (SFT) or pairs (DPO) an optimiser step")
    warmup_fraction: float = Field(
        0.1, ge=0, le=1, description="share of the steps that warm up (paper: 0.1 T5, 0.03 Llama)"
    )
    final_lr_fraction: float = Field(0.1, ge=0, le=1, description="cosine down to this share of the peak (paper: 0.1)")
    weight_decay: float = Field(0.01, ge=0, description="AdamW (paper: 0.01)")
    max_grad_norm: float = Field(1.0, gt=0, description="clip (paper: 1.0)")
    forced_tokens: bool = Field(True, description="count the calculator's tokens in the loss (paper: yes)")


class SFTConfig(OptimizerConfig):
    """Supervised fine-tuning from the base model."""

    learning_rate: float = Field(3e-4, gt=0, description="paper: 3e-4 Flan-T5, 2e-5 Llama")
    batch_size: int = Field(96, ge=1, description="rows a step (paper: 96 T5, 128 Llama)")
    epochs: float = Field(8, gt=0, description="passes over the rows (paper: 8 T5, 2 Llama)")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps; null: from epochs")
    dropout: float | None = Field(None, ge=0, lt=1, description="null: as the model's config says (paper: T5 0.1)")


class DPOConfig(OptimizerConfig):
    """Direct preference optimisation from this iteration's SFT model."""

    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="auto: 1e-4 over the steps, at most 1e-5 below 500 M parameters, else 1e-6 (ours, from the paper's "
        "150 steps at 7e-7; paper: 7e-7 Flan-T5, 3e-7 Llama)",
    )
    batch_size: int = Field(
        96, ge=1, description="pairs a step; a question's pairs stay together (paper: 96 T5, 128 Llama)"
    )
    beta: float = Field(0.3, gt=0, description="strength of the pull to the reference (ours; paper: 0.1)")
    max_steps: int = Field(150, ge=1, description="optimiser steps at most (paper: 150 T5, 100 Llama)")
    max_epochs: float = Field(1.0, gt=0, description="passes over the pairs at most (ours)")
    loss: Literal["dpo", "ipo", "hinge"] = Field("dpo", description="of a pair: training/losses.py (paper: dpo)")
    length_normalised: bool = Field(False, description="log-probabilities a token, not a sequence (paper: a sequence)")
    nll_alpha: float = Field(0.0, ge=0, description="times the winners' negative log-likelihood, added (paper: 0)")
    nll_norm: Literal["sequence", "token"] = Field(
        "sequence", description="sequence: a mean over pairs of means over tokens; token: a mean over tokens"
    )


class LoRAConfig(Section):
    """Adapters in place of training all weights (extra `lora`); merged into the model after each training."""

    rank: int = Field(0, ge=0, description="of the adapters; 0: train all weights (paper)")
    alpha: int | None = Field(None, gt=0, description="scale, alpha / rank; null: 2 x rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="in front of the adapters, in SFT only")


class TrainingConfig(Section):
    """The two trainings of an iteration, and how they are carried out."""

    sft: SFTConfig = Field(default_factory=SFTConfig)
    dpo: DPOConfig = Field(default_factory=DPOConfig)
    max_target_tokens: int = Field(
        300, ge=1, description="tokens of a target; beyond: data.over_limit (paper: 300 T5, 384 Llama)"
    )
    micro_batch_tokens: int = Field(
        2048, ge=64, description="tokens forwarded at once, padding included; the effective batch stays"
    )
    layout: Literal["auto", "trees", "rows"] = Field(
        "auto",
        description="trees: each prompt once, no padding; rows: one padded row a completion; auto: trees where it fits",
    )
    lora: LoRAConfig = Field(default_factory=LoRAConfig)
    sharded: bool = Field(
        False, description="FSDP2: weights, gradients and AdamW's state shared out over the launcher's processes"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, a third more work"
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] = Field(
        default_factory=list,
        description="where the training log is shown beside train-log.jsonl; each needs its package",
    )
    checkpoint_every_s: float = Field(300.0, gt=0, description="seconds between checkpoints inside a training stage")
