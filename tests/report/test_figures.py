"""Figures are well-formed, the same every time, and say what they show without colour too."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from selftrain.cost import PARTS
from selftrain.report.figures import (
    ARM_MARKERS,
    LINE_COLOURS,
    MODEL_MARKS,
    PART_MARKS,
    accuracy_figure,
    compute_figure,
    cost_figure,
    dpo_figure,
    iteration_figure,
    loss_figure,
)
from selftrain.report.progression import Line

ROWS = [
    {"label": f"{kind} model", "kind": kind, "accuracy": 0.5, "low": 0.4, "high": 0.6} for kind in MODEL_MARKS
]  # fmt: skip
COSTS = [{"stage": "1-iteration/dpo", "seconds": 2.0, "part": part} for part in PARTS]
LOG = [
    {"step": step, "loss": 1 / step, "margin": 0.1, "reward_accuracy": 0.6, "chosen_change_per_token": 0.0,
     "rejected_change_per_token": -0.1}
    for step in (1, 2, 3)
]  # fmt: skip
LINES = [
    Line(kind, kind, [(number, {"accuracy": 0.5, "low": 0.4, "high": 0.6}) for number in (0, 1, 2)])
    for kind in ("iteration", "sampler", "baseline")
]  # fmt: skip

ARMS = [
    Line(f"arm {name}", "arm", [(flops, {"accuracy": 0.5, "low": 0.4, "high": 0.6}) for flops in (2e14, 3e15)])
    for name in "abcdefgh"
]  # fmt: skip


def draw() -> list[str]:
    return [
        accuracy_figure(ROWS, "Accuracy <of> & each model"),
        cost_figure(COSTS, "Seconds"),
        loss_figure({"0-warmup/sft": LOG, "1-iteration/sft": LOG}, "Loss"),
        dpo_figure(LOG, "DPO"),
        iteration_figure(LINES, "By iteration"),
        compute_figure(ARMS, "Against FLOPs"),
    ]


drawings = functools.cache(draw)


@pytest.mark.parametrize("number", range(6))
def test_svg_is_well_formed_named_and_alone(number: int) -> None:
    svg = drawings()[number]
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label")
    assert root.get("width") is None and root.get("viewBox")
    assert "<metadata" not in svg and 'href="http' not in svg and "<image" not in svg and "<script" not in svg


def test_the_title_is_escaped() -> None:
    svg = drawings()[0]
    assert ElementTree.fromstring(svg).get("aria-label") == "Accuracy <of> & each model"


def test_equal_input_gives_equal_bytes() -> None:
    assert draw() == drawings()


def test_text_stays_text() -> None:
    svg = drawings()[0]
    texts = [
        "".join(node.itertext()).strip() for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")
    ]
    assert {"warm-up model", "delivered model", "right answers, %", "50.0"} <= set(texts)


def test_names_are_no_markup_for_matplotlib() -> None:
    for name in ("$\\frac{1}{0}$", "a$b", "\u4e16\u754c <b>", "x" * 200, "", "\x00"):
        rows = [{"stage": name, "seconds": 1.0, "part": PARTS[0]}]
        ElementTree.fromstring(cost_figure(rows, "Seconds"))


def test_every_kind_differs_in_shape_and_colour() -> None:
    assert len({(marker, filled) for _, marker, filled in MODEL_MARKS.values()}) == len(MODEL_MARKS)
    assert set(PART_MARKS) == set(PARTS)
    assert len({hatch for _, hatch in PART_MARKS.values()}) == len(PARTS)
    assert len({colour for colour, _ in PART_MARKS.values()}) == len(PARTS)


def line_marks(svg: str) -> dict[str, tuple[str, str, str]]:
    """Name in the legend -> dashes, colour and marker (its id) that the SVG gives its line."""
    (legend,) = (node for node in ElementTree.fromstring(svg).iter() if node.get("id", "").startswith("legend"))
    found, style, marker = {}, {}, ""
    for node in legend.iter():
        if node.tag.endswith("}path") and "stroke-width: 1.8" in node.get("style", ""):
            style = dict(part.split(": ") for part in node.get("style", "").split("; "))
        elif node.tag.endswith("}use"):
            marker = node.get("{http://www.w3.org/1999/xlink}href", "")
        elif node.tag.endswith("}text"):
            name = "".join(node.itertext()).strip()
            found[name] = (style.get("stroke-dasharray", "solid"), style["stroke"], marker)
    return found


def test_lines_differ_in_style_as_well_as_in_colour_and_marker() -> None:
    """Printed without colours too: no two of eight stages, arms or models have the same dashes."""
    stages = [f"{number}-iteration/{name}" for number in range(4) for name in ("sft", "dpo")]
    by_stage = line_marks(loss_figure(dict.fromkeys(stages, LOG), "Loss"))
    assert list(by_stage) == stages
    by_arm, by_model = line_marks(compute_figure(ARMS, "FLOPs")), line_marks(iteration_figure(LINES, "By iteration"))
    assert (len(by_arm), len(by_model)) == (8, 3)
    for lines in (by_stage, by_arm, by_model):
        assert len({dashes for dashes, _, _ in lines.values()}) == len(lines)
        assert len({colour for _, colour, _ in lines.values()}) == min(len(lines), len(LINE_COLOURS))
    assert len({marker for _, _, marker in by_arm.values()}) == len(ARM_MARKERS)
    assert len({marker for _, _, marker in by_model.values()}) == 3


def test_settings_of_the_process_are_left_alone() -> None:
    import matplotlib

    stored: Any = matplotlib.rcParams
    before = dict(dict.items(stored))  # as stored: a look-up of "backend" loads pyplot
    draw()
    assert dict(dict.items(stored)) == before


def test_arms_of_a_study_are_named() -> None:
    svg = compute_figure(ARMS, "Against FLOPs")
    assert all(f"arm {name}" in svg for name in "abcdefgh") and "FLOPs of training and sampling" in svg
