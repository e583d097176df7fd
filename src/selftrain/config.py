"""What can be said of a run: small frozen sections, with unit, range, default and source a field.

    config = load_config("quickstart", ["training.dpo.beta=0.1"])
    config = RunConfig(model="smollm2-135m", data=DataConfig(train=DataSpec(source="asdiv", path=...)))

A recipe is a YAML file of these sections. `RUN_CONTROL` names the fields that say how a run is carried
out and not what it is: they may change between two starts of one run. Sources in the field texts:
"paper" is Wang, Li, Lu (ACL 2024), "code" its published code, "ours" our own choice.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Method = Literal["sft", "st", "dpo-st"]
Arm = Literal["st", "st-matched", "sft-matched"]


class Section(BaseModel):
    """Base of every section: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(Section):
    """One set of problems: a source, what to read from it, and which part to take."""

    source: str = Field(description="gsm8k, svamp, asdiv, multiarith, reasoning_gym:NAME, or file (any JSONL)")
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="how the report calls it; default: the source's name"
    )
    path: str | None = Field(None, description="local file; default: the hub data set of that source")
    split: str | None = Field(None, description="split of a hub data set")
    fields: dict[str, str] = Field(
        default_factory=dict, description="file: our field -> the file's, e.g. question: prompt"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of a reasoning_gym task: seed, size")
    groups: list[str] | None = Field(None, description="keep only problems of these groups (templates)")
    group_split: str | None = Field(
        None, description="'known' or 'unseen': part of a template split by hash (reasoning_gym sources with templates)"
    )
    rationales: bool = Field(True, description="false: questions and answers only; their gold rationales are dropped")
    max_tokens: int | None = Field(None, ge=1, description="leave out problems with more prompt + rationale tokens")
    max_prompt_tokens: int | None = Field(None, ge=1, description="leave out problems with longer prompts, tokens")
    shuffle: int | None = Field(None, description="seed of a shuffle before skip and take; null keeps the order")
    skip: int = Field(0, ge=0, description="problems to pass over, after filters and shuffle")
    take: int | None = Field(None, ge=1, description="problems to keep; null keeps all")

    @property
    def label(self) -> str:
        """The name that tables and folders use."""
        return self.name or self.source.split(":")[-1]


def _spec_or_string(value: Any) -> Any:
    """`data.train: my.jsonl` is short for `{source: file, path: my.jsonl}`, `asdiv` for `{source: asdiv}`."""
    if isinstance(value, str):
        is_file = value.endswith((".jsonl", ".json")) or "/" in value
        return {"source": "file", "path": value} if is_file else {"source": value}
    return value


Spec = Annotated[DataSpec, BeforeValidator(_spec_or_string)]


class DataConfig(Section):
    """Which problems are learned from, and which only judge."""

    train: Spec = Field(description="L: questions, answers and rationales")
    unlabelled: Spec | None = Field(None, description="further questions with answers; U is L's questions plus these")
    validation: Spec | None = Field(None, description="read by decisions (the guard); never trained on")
    test: list[Spec] = Field(default_factory=list, description="read by no decision; the headline comes from the first")
    files: dict[str, str] = Field(
        default_factory=dict,
        description="source -> local file, for every set of that source that has no path of its own",
    )
    near_duplicate: float = Field(
        0.8,
        ge=0.0,
        le=1.0,
        description="word-set Jaccard at which a training row counts as a near-copy of a test row (ours)",
    )
    drop_near_duplicates: bool = Field(
        False, description="leave near-copies of test rows out of training (they are counted either way)"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_paths(cls, values: Any) -> Any:
        """Give each set the local file of its source, where `files` names one."""
        if not isinstance(values, dict) or not isinstance(values.get("files"), dict):
            return values
        files = values["files"]

        def filled(spec: Any) -> Any:
            spec = _spec_or_string(spec)
            if isinstance(spec, dict) and spec.get("source") in files and not spec.get("path"):
                return {**spec, "path": files[spec["source"]]}
            return spec

        single = {key: filled(values[key]) for key in ("train", "unlabelled", "validation") if values.get(key)}
        tests = values.get("test")
        return {**values, **single, **({"test": [filled(spec) for spec in tests]} if isinstance(tests, list) else {})}

    @model_validator(mode="after")
    def _names_differ(self) -> DataConfig:
        labels = [spec.label for spec in self.test]
        if len(set(labels)) != len(labels):
            raise ValueError(f"the test sets need names of their own, got {labels}")
        return self


class PromptConfig(Section):
    """Question -> prompt, the same in SFT, DPO, sampling and evaluation."""

    template: str = Field(
        "Question: {question}\nAnswer:", description="must hold {question}; T5 in the paper: the bare question"
    )
    separator: str = Field(
        " ", description="text between prompt and rationale (decoder-only models); learned, not given"
    )
    bos: bool = Field(False, description="begin the prompt with BOS (the paper trains with it, samples without: a bug)")
    annotation: Literal["auto", "angle", "bracket"] = Field(
        "auto", description="<<1+1=2>> or [ 1 + 1 = 2 ]; auto: bracket where the vocabulary has no '<' (paper: T5)"
    )
    max_prompt_tokens: int = Field(
        256, ge=1, description="longer prompts are dropped and counted (paper: 200 T5, 256 Llama)"
    )

    @model_validator(mode="after")
    def _has_slot(self) -> PromptConfig:
        if "{question}" not in self.template:
            raise ValueError("prompt.template must contain {question}")
        return self


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


class OptimizerConfig(Section):
    """AdamW with warm-up and a cosine; shared by SFT and DPO."""

    learning_rate: float = Field(gt=0, description="peak learning rate")
    batch_size: int = Field(ge=1, description="rows (SFT) or pairs (DPO) an optimiser step")
    warmup_fraction: float = Field(
        0.1, ge=0, le=1, description="share of the steps that warm up (paper: 0.1 T5, 0.03 Llama)"
    )
    final_lr_fraction: float = Field(0.1, ge=0, le=1, description="cosine down to this share of the peak (paper: 0.1)")
    weight_decay: float = Field(0.01, ge=0, description="AdamW (paper: 0.01)")
    max_grad_norm: float = Field(1.0, gt=0, description="clip (paper: 1.0)")


class SFTConfig(OptimizerConfig):
    """Supervised fine-tuning from the base model."""

    learning_rate: float = Field(3e-4, gt=0, description="paper: 3e-4 Flan-T5, 2e-5 Llama")
    batch_size: int = Field(96, ge=1, description="rows a step (paper: 96 T5, 128 Llama)")
    epochs: float = Field(8, gt=0, description="passes over the rows (paper: 8 T5, 2 Llama)")
    max_steps: int | None = Field(None, ge=1, description="optimiser steps; null: from epochs")
    dropout: float | None = Field(None, ge=0, lt=1, description="null: as the model's config says (paper: T5 0.1)")


class DPOConfig(OptimizerConfig):
    """Direct preference optimisation from this iteration's SFT model."""

    learning_rate: float = Field(
        7e-7, gt=0, description="paper: 7e-7 Flan-T5, 3e-7 Llama; steps x rate near 1e-4 is what counts"
    )
    batch_size: int = Field(
        96, ge=1, description="pairs a step; a question's pairs stay together (paper: 96 T5, 128 Llama)"
    )
    beta: float = Field(0.1, gt=0, description="strength of the pull to the reference (paper: 0.1)")
    max_steps: int = Field(150, ge=1, description="optimiser steps at most (paper: 150 T5, 100 Llama)")
    max_epochs: float = Field(1.0, gt=0, description="passes over the pairs at most (ours)")


class TrainingConfig(Section):
    """The two trainings of an iteration, and how they are carried out."""

    sft: SFTConfig = Field(default_factory=SFTConfig)
    dpo: DPOConfig = Field(default_factory=DPOConfig)
    max_target_tokens: int = Field(
        300, ge=1, description="longer targets are dropped and counted (paper: 300 T5, 384 Llama)"
    )
    micro_batch_tokens: int = Field(
        2048, ge=64, description="tokens forwarded at once, padding included; the effective batch stays"
    )
    layout: Literal["auto", "trees", "rows"] = Field(
        "auto",
        description="trees: each prompt once, no padding; rows: one padded row a completion; auto: trees where it fits",
    )
    checkpoint_every_s: float = Field(300.0, gt=0, description="seconds between checkpoints inside a training stage")


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
        "all", description="samples of every DPO model so far, or this one's (code: all)"
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
    """When a DPO model is not trusted to sample (ours; numbers.md's thresholds)."""

    enabled: bool = Field(True, description="fall back to the SFT sampler when a DPO model collapsed")
    max_chosen_drop: float = Field(0.2, gt=0, description="nats a token that right answers may lose")
    max_accuracy_drop_se: float = Field(2.0, gt=0, description="standard errors that validation accuracy may fall")
    min_reward_accuracy: float = Field(
        0.6, ge=0, le=1, description="on its own pairs, below: warn that DPO did nothing"
    )
    min_changed_fraction: float = Field(0.2, ge=0, le=1, description="samples that differ at equal seeds, below: warn")


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
    description: str = ""
    model: str = Field(description="hub name, local folder, or a built-in: smollm2-135m, random-llama, random-t5")
    method: Method = Field("dpo-st", description="sft: warm-up only; st: Algorithm 1; dpo-st: Algorithm 2")
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
