"""What a study is: a recipe, arms that vary it, seeds, and the arm that the others are compared with.

    name: samples
    recipe: asdiv-smollm2
    seeds: [0, 1, 2]
    arms:
      k3: {}                                        # runs of its own: settings that differ from the recipe
      k10: {sampling.samples_for_labels: 10}
      warm-up: "k3:warm-up"                         # another model of the runs of k3, by its key in their report
      again: {seeds: [3, 4, 5]}                     # seeds of its own, one for each of the study's
    reference: k3

An arm's runs deliver a model; `ARM:MODEL` names any other that they evaluate: base, warm-up, sampler-1, iteration-1,
and their baselines st, st-matched, sft-matched, where the arm's settings ask for these. `ARM:without-calculator` is the
delivered model with its calculator off, on the rows of `evaluation.without_calculator_rows`.

A study `of: main` is another view of the runs of main: the same folders, recipe, arms and seeds; what it sets of its
own (`show`, `paper`, a description) stands in place of main's.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selftrain.config import RunConfig, Section
from selftrain.errors import ConfigError, nearest
from selftrain.recipe import checked, load_config, shipped_names, shipped_text, yaml_tree
from selftrain.report.accuracy import models_of

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
DELIVERED = "delivered"
WITHOUT = "without-calculator"
Shown = Literal["table", "iterations", "dpo-step", "compute", "calculator", "speed"]


class StudyArm(Section):
    """Runs of its own, or another model of another arm's runs."""

    of: str | None = Field(None, description="the arm whose runs hold the model; null: its own")
    model: str = Field(DELIVERED, description="which model of these runs, by its key in their report")
    seeds: list[int] | None = Field(None, description="seeds of its own; null: the study's")
    overrides: dict[str, Any] = Field(default_factory=dict, description="dotted settings of its runs")


def _arm(value: Any) -> Any:
    """`"k3:warm-up"` is short for a model of k3's runs; a mapping holds settings, and `seeds` where it has its own."""
    if isinstance(value, str):
        of, _, model = value.partition(":")
        return {"of": of, "model": model or DELIVERED}
    if isinstance(value, Mapping) or value is None:
        settings = dict(value or {})
        return {"seeds": settings.pop("seeds", None), "overrides": settings}
    return value


class Study(Section):
    """A whole study."""

    name: str = Field(pattern=NAME, description="its folder is runs/study-NAME")
    description: str = Field("", description="one line, for the report")
    of: str | None = Field(None, description="another study, whose runs this one shows")
    show: list[Shown] = Field(["table", "iterations"], description="the tables of its report")
    recipe: str = Field(description="a recipe's name or a YAML file: what every run is, but for the settings below")
    bases: dict[str, str] = Field(default_factory=dict, description="base model -> its recipe, for --base")
    overrides: dict[str, Any] = Field(default_factory=dict, description="dotted settings of every run")
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="of each arm's runs")
    arms: dict[str, Annotated[StudyArm, BeforeValidator(_arm)]] = Field(min_length=1, description="name -> arm")
    reference: str = Field(description="the arm that the others are compared with")
    paper: dict[str, dict[str, dict[str, float | list[float]]]] = Field(
        default_factory=dict,
        description="base model -> arm -> test set -> the paper's accuracy, %; a list: by iteration, from the warm-up",
    )
    paper_says: dict[str, str] = Field(
        default_factory=dict, description="base model -> figures of the paper that were measured otherwise, in words"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        if wrong := self._complaints():
            raise ValueError("; ".join(wrong))
        return self

    def _complaints(self) -> list[str]:
        """What does not go together, in words."""
        wrong = [f"arm {name!r}: expected letters, digits, . _ -" for name in self.arms if not _is_name(name)]
        if self.reference not in self.arms:
            wrong.append(f"reference: expected one of {', '.join(self.arms)}, got {self.reference!r}")
        if len(set(self.seeds)) < len(self.seeds):
            wrong.append(f"seeds: expected different ones, got {self.seeds}")
        for name, arm in self.arms.items():
            if arm.of is not None and (arm.of not in self.arms or self.arms[arm.of].of is not None):
                wrong.append(f"arm {name}: expected ARM:MODEL with an arm that has runs of its own, got {arm.of!r}")
            if arm.seeds is not None and len(set(arm.seeds)) != len(self.seeds):
                wrong.append(f"arm {name}: expected {len(self.seeds)} different seeds, as the study, got {arm.seeds}")
            if "seed" in arm.overrides:
                wrong.append(f"arm {name}: expected `seeds`, one for each of the study's, got `seed`")
        for model, arms in self.paper.items():
            wrong += [f"paper: {model}: no arm is called {arm!r}" for arm in arms if arm not in self.arms]
        return wrong

    def with_recipe(self, name_or_path: str) -> Study:
        """The same arms over another recipe."""
        return self.model_copy(update={"recipe": name_or_path, "bases": {}})

    def first_seeds(self, number: int) -> Study:
        """The same study with fewer seeds."""
        arms = {
            name: arm.model_copy(update={"seeds": None if arm.seeds is None else arm.seeds[:number]})
            for name, arm in self.arms.items()
        }
        return self.model_copy(update={"seeds": self.seeds[:number], "arms": arms})

    @property
    def home(self) -> str:
        """The study whose runs these are."""
        return self.of or self.name

    def runs_arm(self, name: str) -> str:
        """The arm whose runs hold an arm's model."""
        return self.arms[name].of or name

    def runs_behind(self, name: str, runs: Sequence[StudyRun]) -> list[StudyRun]:
        """Of these runs, those that hold an arm's model."""
        return [run for run in runs if run.arm == self.runs_arm(name)]


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One run of a study: an arm at its seed number `position`."""

    arm: str
    position: int
    folder: Path
    config: RunConfig
    varies: tuple[str, ...] = ()  # the settings in which the arm differs from the recipe

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    @property
    def title(self) -> str:
        """Its folder inside the study's."""
        return f"{self.arm}/{self.folder.name}"


def study_names() -> list[str]:
    """The studies that come with the package."""
    return shipped_names("studies")


def load_study(name_or_path: str) -> Study:
    """A study by name or path; one `of` another has its `of` as that study's name afterwards.

    Raises:
        ConfigError: unknown name, a field that is none, or arms that do not go together.
    """
    tree = _tree(name_or_path)
    if isinstance(tree.get("of"), str):
        other = _tree(tree["of"])
        tree = {**other, **tree, "of": other.get("name")}
    return checked(Study, tree)


def _tree(name_or_path: str) -> dict[str, Any]:
    return yaml_tree(shipped_text(name_or_path, "study", "studies"), name_or_path)


def runs_of(study: Study, folder: Path, base: str | None = None, overrides: Sequence[str] = ()) -> list[StudyRun]:
    """Every run of a study, in the order in which they are carried out: seed by seed, arm by arm.

    Args:
        folder: the study's; a run's is FOLDER/ARM/seed-N.
        base: another base model; with a recipe of its own where `study.bases` has one.
        overrides: `section.field=value` for every run. An arm's own settings go before these.

    Raises:
        ConfigError: a setting that is none, or an arm's model that its runs do not have.
    """
    recipe = study.recipe if base is None else study.bases.get(base, study.recipe)
    common = [*_dotted(study.overrides), *([f"model={json.dumps(base)}"] if base is not None else []), *overrides]
    runs = []
    for position, seed in enumerate(study.seeds):
        for name, arm in study.arms.items():
            if arm.of is None:
                number = arm.seeds[position] if arm.seeds is not None else seed
                own = [*_dotted(arm.overrides), f"seed={number}", f"name={json.dumps(f'{study.home}-{name}')}"]
                config = load_config(recipe, [*common, *own])
                runs.append(StudyRun(name, position, folder / name / f"seed-{number}", config, tuple(arm.overrides)))
    for name, arm in study.arms.items():
        _check_model(name, arm, study.runs_behind(name, runs)[0].config)
    return runs


def _check_model(name: str, arm: StudyArm, config: RunConfig) -> None:
    known = [model.key for model in models_of(config)]
    if arm.model not in (DELIVERED, WITHOUT, *known):
        close = nearest(arm.model, known)
        raise ConfigError(
            f"arm {name}: the runs of {arm.of} have no model {arm.model!r}; they have: {', '.join(known)}.",
            f"Did you mean {close!r}?" if close else "Baselines are there where the arm's settings ask for them.",
        )


def _dotted(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def _is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None
