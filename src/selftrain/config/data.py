"""Where problems come from, and how they are asked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selftrain.config.base import Section

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")  # of files of rows


class DataSpec(Section):
    """One set of problems: a source, what to read from it, and which part to take."""

    source: str = Field(
        description="gsm8k, svamp, asdiv, multiarith, reasoning_gym:NAME, file (JSONL, JSON, CSV, Parquet), or any "
        "hub data set: hub:NAME:SPLIT"
    )
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="how the report calls it; default: the source's name"
    )
    path: str | None = Field(None, description="local file; default: the hub data set of that source")
    split: str | None = Field(None, description="split of a hub data set; gsm8k: paper-train, paper-validation too")
    fields: dict[str, str] = Field(
        default_factory=dict, description="file and hub: our field -> their column, e.g. question: prompt"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="parameters of a reasoning_gym task: seed, size")
    groups: list[str] | None = Field(None, description="keep only problems of these groups (templates)")
    group_split: str | None = Field(
        None, description="'known' or 'unseen': part of a template split by hash (reasoning_gym sources with templates)"
    )
    verify: str = Field(
        "numeric", description="what judges answers: numeric, choice, symbolic (extra math), or a MODULE:FUNCTION"
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
        return self.name or self.source.split(":")[:2][-1].rpartition("/")[2]


def _spec_or_string(value: Any) -> Any:
    """`data.train: my.jsonl` is short for `{source: file, path: my.jsonl}`, `asdiv` for `{source: asdiv}`."""
    if isinstance(value, str):
        is_file = not value.startswith("hub:") and (value.endswith(SUFFIXES) or "/" in value)
        return {"source": "file", "path": value} if is_file else {"source": value}
    return value


Spec = Annotated[DataSpec, BeforeValidator(_spec_or_string)]


class BroughtSamples(Section):
    """Answers made elsewhere: by another sampler, or by a stronger model (distillation)."""

    path: str = Field(description="rows of text with the id or the question they answer (JSONL, JSON, CSV)")
    use: Literal["both", "pairs", "labels"] = Field("both", description="pools of samples that they join")


def _samples_or_string(value: Any) -> Any:
    """`data.samples: my.jsonl` is short for `{path: my.jsonl}`."""
    return {"path": value} if isinstance(value, str) else value


class DataConfig(Section):
    """Which problems are learned from, and which only judge."""

    train: Spec = Field(description="L: questions, answers and rationales")
    unlabelled: Spec | None = Field(None, description="further questions with answers; U is L's questions plus these")
    validation: Spec | None = Field(None, description="read by decisions (the guard); never trained on")
    test: list[Spec] = Field(default_factory=list, description="read by no decision; the headline comes from the first")
    samples: Annotated[BroughtSamples | None, BeforeValidator(_samples_or_string)] = Field(
        None, description="answers made elsewhere to the questions of U, judged and pooled with the model's own (ours)"
    )
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
    over_limit: Literal["refuse", "drop"] = Field(
        "refuse",
        description="prompts over prompt.max_prompt_tokens, targets over training.max_target_tokens: refuse the run, "
        "or leave them out and count them (code: left out)",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_paths(cls, values: Any) -> Any:
        """Give each set the local file of its source, where `files` names one; a split of the hub stays the hub's."""
        if not isinstance(values, dict) or not isinstance(values.get("files"), dict):
            return values
        files = values["files"]

        def filled(spec: Any) -> Any:
            spec = _spec_or_string(spec)
            if not isinstance(spec, dict) or spec.get("source") not in files or spec.get("path"):
                return spec
            in_file = str(spec.get("split") or "paper-").startswith("paper-")
            return {**spec, "path": files[spec["source"]]} if in_file else spec

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
    chat_template: str | None = Field(
        None,
        description="what the filled `template` goes into as the user's message: null, nothing; model, the tokenizer's "
        "own chat template; else a Jinja template's text. A date in it is always 26 Jul 2024. Answers end with the "
        "tokenizer's end token, whatever the chat template would write there (ours)",
    )
    separator: str = Field(
        " ", description="text between prompt and rationale (decoder-only models); learned, not given"
    )
    bos: bool = Field(
        False,
        description="begin the prompt with BOS, where a chat template has not (the paper trains with it, samples "
        "without: a bug)",
    )
    spacing: Literal["plain", "operators"] = Field(
        "plain", description="operators: spaces around + - * / = and after $ in questions and rationales (paper: T5)"
    )
    annotation: Literal["auto", "angle", "bracket"] = Field(
        "auto", description="<<1+1=2>> or [ 1 + 1 = 2 ]; auto: bracket where the vocabulary has no '<' (paper: T5)"
    )
    max_prompt_tokens: int = Field(
        256, ge=1, description="tokens of a prompt; beyond: data.over_limit (paper: 200 T5, 256 Llama)"
    )

    @model_validator(mode="after")
    def _has_slot(self) -> PromptConfig:
        if "{question}" not in self.template:
            raise ValueError("prompt.template must contain {question}")
        if self.chat_template not in (None, "model") and "messages" not in str(self.chat_template):
            raise ValueError("prompt.chat_template must be null, model, or a Jinja template that shows its `messages`")
        return self
