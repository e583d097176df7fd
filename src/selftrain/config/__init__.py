"""What can be said of a run: small frozen sections, with unit, range, default and source a field.

    config = load_config("quickstart", ["training.dpo.beta=0.1"])
    config = RunConfig(model="smollm2-135m", data=DataConfig(train=DataSpec(source="asdiv", path=...)))

A recipe is a YAML file of these sections. `RUN_CONTROL` names the fields that say how a run is carried
out and not what it is: they may change between two starts of one run. Sources in the field texts:
"paper" is Wang, Li, Lu (ACL 2024), "code" its published code, "ours" our own choice.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from selftrain.config.base import Section
from selftrain.config.data import BroughtSamples, DataConfig, DataSpec, PromptConfig
from selftrain.config.training import DPOConfig, LoRAConfig, OptimizerConfig, SFTConfig, TrainingConfig

__all__ = [
    "Arm", "BroughtSamples", "CheckpointsConfig", "ComputeConfig", "DPOConfig", "DataConfig", "DataSpec",
    "EvaluationConfig", "GuardConfig", "LabelsConfig", "LoRAConfig", "Method", "OptimizerConfig", "PairsConfig",
    "PromptConfig", "RunConfig", "SFTConfig", "SamplingConfig", "ScheduleConfig", "Section", "TrainingConfig",
]  # fmt: skip

Method = Literal["sft", "st", "dpo-st"]
Arm = Literal["st", "st-matched", "sft-matched"]


class SamplingConfig(Section):
    """How rationales are drawn. Nothing is left to a library's default."""

    temperature: float = Field(0.7, gt=0, le=5, description="softmax temperature (paper: 0.7)")
    top_k: int = Field(0, ge=0, description="0 = off; the paper's code leaves its library's default of 50")
    top_p: float = Field(1.0, gt=0, le=1, description="1 = off (paper: off)")
    max_new_tokens: int = Field(300, ge=1, description="tokens of a completion (paper: 300)")
    samples_for_pairs: int = Field(5, ge=1, description="K_dpo: samples a question before DPO (paper: 5)")
    samples_for_labels: int = Field(
        3, ge=1, description="K_sft: samples a question for pseudo-labels (paper: 3; 5 and 10 in Table 3)"
    )
    calculator: bool = Field(True, description="compute annotations while decoding (paper)")
    shard_questions: int = Field(256, ge=1, description="questions a shard: the unit of resume (ours)")
    slots: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="rows decoded at once; auto: 128, on a GPU what its free memory holds (ours)"
    )
    backend: Literal["engine", "vllm"] = Field("engine", description="vllm: large models on GPUs; extra vllm (ours)")
    vllm: dict[str, Any] = Field(default_factory=dict, description="further arguments of vLLM's LLM, by name")

    def samples_a_question(self, stage: str, *, matched: bool = False) -> int:
        """How many a "sample-for-pairs" or "sample-for-labels" stage draws; `matched`: ST with as many as DPO-ST."""
        if stage == "sample-for-pairs":
            return self.samples_for_pairs
        return self.samples_for_labels + (self.samples_for_pairs if matched else 0)


class PairsConfig(Section):
    """Which right and wrong completions become pairs (paper's code; not in its text)."""

    per_question: int = Field(3, ge=1, description="the least similar winner x loser combinations (code: 3)")
    duplicate_similarity: float = Field(
        0.7, ge=0, le=1, description="Jaccard above which two are duplicates (code: 0.7)"
    )
    similarity_on: Literal["tokens", "words", "equations"] = Field(
        "tokens", description="the sets compared (code: tokens)"
    )
    gold_winner: Literal["always", "if_none", "never"] = Field(
        "always", description="gold rationale among winners (code: always)"
    )
    shuffle_seed: int = Field(0, description="order of ties (code: 0)")
    pool: Literal["all", "current"] = Field(
        "all", description="samples of every SFT model so far, or this one's (code: all)"
    )


class LabelsConfig(Section):
    """Which completions become pseudo-labels (paper's code; not in its text)."""

    duplicate_similarity: float = Field(
        0.7, ge=0, le=1, description="Jaccard above which two are duplicates (code: 0.7)"
    )
    similarity_on: Literal["tokens", "words", "equations"] = Field(
        "tokens", description="the sets compared (code: tokens)"
    )
    cap_percentile: float = Field(
        90.0, gt=0, le=100, description="labels a question are capped at this percentile (code: 90)"
    )
    gold_first: bool = Field(True, description="the gold rationale is kept first, so its near-copies drop out (code)")
    pool: Literal["all", "current"] = Field(
        "all", description="samples of every iteration so far, or this one's (code: all)"
    )
    reuse_samples_for_pairs: bool = Field(
        False,
        description="labels from the samples for pairs too; those for labels are further draws then (paper: no)",
    )


class ScheduleConfig(Section):
    """How often the loop turns, and where it starts."""

    iterations: int = Field(3, ge=1, description="code: always 3")
    patience: int | None = Field(
        None, ge=1, description="stop after this many iterations without better validation (ours)"
    )
    start_from: Literal["base", "previous"] = Field("base", description="model that each SFT starts from (paper: base)")
    reference: Literal["sft"] = Field("sft", description="DPO's reference: this iteration's SFT model (paper)")


class GuardConfig(Section):
    """When a DPO model is not trusted to sample (ours)."""

    enabled: bool = Field(True, description="fall back to the SFT sampler when a DPO model collapsed")
    max_chosen_drop: float = Field(0.2, gt=0, description="nats a token that right answers may lose")
    max_accuracy_drop_se: float = Field(2.0, gt=0, description="standard errors that validation accuracy may fall")
    min_reward_accuracy: float = Field(
        0.6, ge=0, le=1, description="on its own pairs, below: warn that DPO did nothing"
    )
    min_changed_fraction: float = Field(
        0.2, ge=0, le=1, description="samples that differ at equal seeds, where both models made some, below: warn"
    )


class EvaluationConfig(Section):
    """What is measured of each model."""

    max_new_tokens: int | None = Field(None, ge=1, description="null: as sampling.max_new_tokens")
    without_calculator_rows: int = Field(
        200, ge=0, description="rows of the first test set evaluated without calculator too"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="of every interval")


class ComputeConfig(Section):
    """Where and in what precision. Run control: no part of what the run is, but for `precision`."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto: cuda, then mps, then cpu")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 where the device computes in it, else fp32"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; null: all")
    compile: bool = Field(
        False, description="compile the layers for training: for long ones on a GPU; 20 to 40 s at its first step"
    )
    isolation: Literal["auto", "none", "process"] = Field(
        "auto",
        description="process: each stage that samples or trains in a process of its own; auto: so on cuda, unless a "
        "launcher started several (ours)",
    )
    trust_remote_code: bool = Field(False, description="run code that a hub model brings; only if you trust it")
    min_free_disk_gb: float = Field(2.0, ge=0, description="free disk needed at the start, GB")


class CheckpointsConfig(Section):
    """Which weights stay on disk."""

    keep: Literal["final", "best", "all"] = Field(
        "final", description="final: the delivered model; best: the best on validation too; all: every stage's"
    )


class RunConfig(Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="folder under runs/")
    description: str = Field("", description="one line, for `selftrain recipes` and the report")
    model: str = Field(description="hub name, local folder, or a built-in: smollm2-135m, random-llama, random-t5")
    method: Method = Field("dpo-st", description="sft: warm-up only; st: Algorithm 1; dpo-st: Algorithm 2")
    warmup_model: str | None = Field(
        None,
        description="your own SFT model (folder or hub name) in place of the warm-up's; later SFTs still start from "
        "`model`; null: train it on data.train (paper)",
    )
    baselines: list[Arm] = Field(
        default_factory=list, description="further arms on the same warm-up, compared in the report"
    )
    seed: int = Field(0, ge=0, description="root of every random stream")
    data: DataConfig
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    pairs: PairsConfig = Field(default_factory=PairsConfig)
    labels: LabelsConfig = Field(default_factory=LabelsConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    guard: GuardConfig = Field(default_factory=GuardConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    checkpoints: CheckpointsConfig = Field(default_factory=CheckpointsConfig)

    @field_validator("warmup_model")
    @classmethod
    def _leaves_work(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("method") == "sft":
            raise ValueError("method: sft trains the warm-up model and nothing else, so expected null")
        return value
