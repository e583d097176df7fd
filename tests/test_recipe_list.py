"""What `selftrain recipes` lists, and the hours that it estimates for recipes that were not run."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from selftrain.cli import app
from selftrain.plan.estimate import Estimator
from selftrain.plan.guesses import HIGH, LIKELY, LOW, Guess
from selftrain.plan.known import known_sets, known_shape
from selftrain.plan.needs import parameters_of
from selftrain.plan.speed import H100_FLOPS, Range, probed
from selftrain.recipe import listed_recipes, load_config

LISTED = {recipe.name: recipe for recipe in listed_recipes()}
ON_CARDS = [name for name in LISTED if name.startswith("gsm8k-")]  # none of them was run


def hours(name: str) -> Range:
    """As `selftrain plan NAME compute.device=cuda` has them where no GPU is: on one H100."""
    config = load_config(name)
    sets, shape = known_sets(config), known_shape(config.model)
    assert sets is not None and shape is not None
    parameters = parameters_of(shape)
    rates = probed("cuda", "bf16", parameters, H100_FLOPS).rates

    def seconds(guess: Guess, rate: str) -> float:
        works = Estimator(config, sets, guess, "cuda", encoder_decoder=shape.is_encoder_decoder).works()
        done = [work.flops(parameters) / getattr(rates[work.kind], rate) for work in works if work.kind in rates]
        return float(sum(done))

    found = Range(seconds(LOW, "high"), seconds(LIKELY, "likely"), seconds(HIGH, "low"))
    return found.times(1 / 3600)


def rounded(figure: float, digits: int = 1) -> str:
    """To so many digits that count."""
    return f"{float(f'{figure:.{digits}g}'):g}"


@pytest.mark.parametrize("name", ON_CARDS)
def test_hours_are_those_of_the_plan_on_h100s(name: str) -> None:
    cards = {"one": 1, "four": 4}[LISTED[name].hardware.split()[0]]
    found = hours(name).times(1 / cards)
    expected = f"about {rounded(found.likely, 2)} ({rounded(found.low)} to {rounded(found.high)}), estimated"
    assert LISTED[name].hours == expected


def test_the_list_has_size_hours_and_hardware_of_every_recipe_as_columns() -> None:
    shown = CliRunner().invoke(app, ["recipes"], catch_exceptions=False).output.splitlines()
    assert re.findall(r"\S+", shown[0]) == ["recipe", "size", "hours", "hardware"]
    starts = [shown[0].index(word) for word in ("size", "hours", "hardware")]
    for line, (name, listed) in zip(shown[1:], LISTED.items(), strict=False):
        assert line.startswith(f"{name} ") and line.endswith(f"  {listed.description}")
        cells = (listed.size, listed.hours, listed.hardware)
        assert [line[start:].startswith(cell) for start, cell in zip(starts, cells, strict=True)] == [True] * 3
    assert "estimated" in "".join(shown[len(LISTED) + 1 :]), "what the word means"
