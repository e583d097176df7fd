"""The stage that trains: what it says of its layout and rate, and what it notes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftrain.models import LanguageModel, load_model
from selftrain.processes import ALONE
from selftrain.progress import Silent
from selftrain.recipe import load_config
from selftrain.records import Example
from selftrain.stages.train import run_training
from selftrain.terminal import Plain
from selftrain.toy import make_toy
from selftrain.training.dpo import DPOObjective, Question
from selftrain.training.sft import SFTObjective

# Trees: 5 + 3 + 4 and 2 + 2 + 2 tokens. Rows: four of 5 + 4, of which 8 + 9 + 4 + 4 are no padding.
QUESTIONS = [
    Question("q1", (5, 6, 7, 8, 9), ((3, 4, 5), (3, 4, 6, 7)), ((0, 1, 1.0),)),
    Question("q2", (5, 6), ((8, 4), (9, 4)), ((1, 0, 1.0),)),
]


class Recorder(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize(
    ("settings", "layout", "rate", "padding", "said"),
    [
        (
            ["training.dpo.learning_rate=auto"], "trees", 1e-5, 0.0,
            ["each prompt once (trees): 18 tokens a pass over the rows, 36 as padded rows",
             "learning rate 1e-05 (auto)"],
        ),
        (
            ["training.dpo.learning_rate=3e-4", "training.layout=rows"], "rows", 3e-4, round(1 - 25 / 36, 4),
            ["one padded row a completion: as training.layout asks; 36 tokens a pass over the rows, 18 as trees",
             "learning rate 0.0003"],
        ),
    ],
    ids=["auto", "rows"],
)  # fmt: skip
def test_a_training_says_its_layout_and_rate(
    tmp_path: Path, settings: list[str], layout: str, rate: float, padding: float, said: list[str]
) -> None:
    make_toy("random-llama", tmp_path / "toy")
    config, progress = load_config("smoke", settings), Recorder()

    def objective(model: LanguageModel) -> DPOObjective:
        return DPOObjective(QUESTIONS, config.training.dpo, seed=1, pad_id=model.pad_id, encoder_decoder=False)

    (tmp_path / "dpo").mkdir()
    figures: dict[str, Any] = run_training(
        tmp_path / "dpo", stage="dpo", open_model=lambda: load_model(tmp_path / "toy", digest="toy"),
        make_objective=objective, config=config, precision="fp32", peak_flops=None, progress=progress, team=ALONE,
    )  # fmt: skip
    assert progress.said == [f"dpo: {line}" for line in said]
    noted = {name: figures[name] for name in ("layout", "learning_rate", "padding_fraction", "steps")}
    assert noted == {"layout": layout, "learning_rate": rate, "padding_fraction": padding, "steps": 1}


def test_the_steps_are_told_once_and_then_the_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_toy("random-llama", tmp_path / "toy")
    config = load_config("smoke")

    def objective(model: LanguageModel) -> SFTObjective:
        rows = [Example("q1", (5, 6, 7), (3, 4, 5), "gold")]
        return SFTObjective(rows, config.training.sft, seed=1, pad_id=model.pad_id, encoder_decoder=False)

    (tmp_path / "sft").mkdir()
    figures: dict[str, Any] = run_training(
        tmp_path / "sft", stage="sft", open_model=lambda: load_model(tmp_path / "toy", digest="toy"),
        make_objective=objective, config=config, precision="fp32", peak_flops=None, progress=Plain(), team=ALONE,
    )  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "steps" in line] == [f"sft: {figures['steps']} steps"]
    assert lines[-1].startswith(f"  sft: loss {figures['first_loss']:.3f} to ")
