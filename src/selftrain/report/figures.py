"""The report's figures as inline SVG: accuracies, by iteration and against FLOPs, seconds, loss and DPO curves.

Every mark differs from the others by colour (Okabe and Ito's, which colour-blind people tell apart) *and* by shape,
line style or hatching. Text stays text, so that it is searched and read aloud. Equal input gives equal bytes.
Matplotlib is imported inside the functions; nothing global is changed. All labels are our own words, but for names
of stages, which are drawn as they stand.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from selftrain.report.wording import flops_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from selftrain.report.progression import Line

WIDTH_INCH = 5.4
FONT_PT = 10
MAX_LABEL_CHARS = 46

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#5f6b76"

# kind of model -> colour, marker, filled
MODEL_MARKS: Mapping[str, tuple[str, str, bool]] = {
    "base": (GREY, "o", False),
    "warm-up": (ORANGE, "s", True),
    "sampler": (PURPLE, "D", False),
    "iteration": (BLUE, "^", True),
    "delivered": (BLUE, "*", True),
    "baseline": (VERMILION, "v", False),
}
# part of a run -> colour, hatching
PART_MARKS: Mapping[str, tuple[str, str]] = {
    "training and sampling": (BLUE, ""),
    "headline evaluation": (SKY, "//"),
    "base model's row": (ORANGE, "||"),
    "further evaluations": (PURPLE, "xx"),
    "baselines": (GREY, "\\\\"),
}
LINE_STYLES: Sequence[Any] = (  # one more than colours, so that both come again together late only
    "-", "--", ":", "-.", (0, (7, 1.5)), (0, (6, 1.2, 1, 1.2, 1, 1.2)), (0, (1, 4)), (0, (5, 1.5, 2, 1.5)),
)  # fmt: skip
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
ARM_MARKERS = "os^Dv*P"  # of a study's arms, which have no kind of model


def accuracy_figure(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Dots with whiskers, one line a model: `label`, `kind` (of `MODEL_MARKS`), `accuracy`, `low`, `high`."""
    with _figure(0.42 * len(rows) + 0.7, title) as (figure, out):
        axes = figure.subplots()
        for place, row in enumerate(rows):
            colour, marker, filled = MODEL_MARKS[row["kind"]]
            middle, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
            axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(
                [middle], [place], marker=marker, markersize=11 if marker == "*" else 7, color=colour,
                markerfacecolor=colour if filled else "white", markeredgewidth=1.6, linestyle="none",
            )  # fmt: skip
            axes.annotate(
                f"{middle:.1f}", (middle, place), xytext=(0, 6), textcoords="offset points", ha="center", va="bottom",
                fontsize=FONT_PT - 2, annotation_clip=False,
            )  # fmt: skip
        _name_lines(axes, [str(row["label"]) for row in rows])
        axes.set_xlim(0, 100)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("right answers, %")
        axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    return out[0]


def iteration_figure(lines: Sequence[Line], title: str) -> str:
    """Accuracy with whiskers against iteration, one line an arm; lines stand a little apart so that none hides."""
    with _figure(3.0 + 0.18 * len(lines), title) as (figure, out):
        axes = figure.subplots()
        for place, line in enumerate(lines):
            apart = 0.06 * (place - (len(lines) - 1) / 2)
            _accuracies(axes, [number + apart for number, _ in line.points], line, place)
        _count_steps(axes, "iteration")
        _accuracy_axis(axes, figure)
    return out[0]


def compute_figure(lines: Sequence[Line], title: str) -> str:
    """Accuracy with whiskers against the FLOPs that a model took, one line an arm."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _figure(3.0 + 0.18 * len(lines), title) as (figure, out):
        axes = figure.subplots()
        for place, line in enumerate(lines):
            _accuracies(axes, [flops for flops, _ in line.points], line, place)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda flops, _: flops_text(flops)))
        axes.set_xlim(left=0)
        axes.set_xlabel("FLOPs of training and sampling")
        _accuracy_axis(axes, figure)
    return out[0]


def _accuracies(axes: Axes, at: Sequence[float], line: Line, place: int) -> None:
    """A line of accuracies with whiskers; `place` counts the lines."""
    if line.kind == "arm":
        colour, marker, filled = LINE_COLOURS[place % len(LINE_COLOURS)], ARM_MARKERS[place % len(ARM_MARKERS)], True
    else:
        colour, marker, filled = MODEL_MARKS[line.kind]
        colour = colour if line.kind != "baseline" else (VERMILION, GREEN, GREY)[place % 3]
    middle, low, high = ([100 * found[name] for _, found in line.points] for name in ("accuracy", "low", "high"))
    axes.vlines(at, low, high, color=colour, linewidth=1.4)
    axes.plot(
        at, middle, label=_short(line.label), color=colour, marker=marker, markersize=7, linewidth=1.8,
        linestyle=LINE_STYLES[place % len(LINE_STYLES)], markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def _accuracy_axis(axes: Axes, figure: Figure) -> None:
    axes.set_ylim(0, 100)
    axes.set_ylabel("right answers, %")
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    _legend(figure)


def cost_figure(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Bars, one a stage: `stage`, `seconds`, `part` (of `PART_MARKS`)."""
    with _figure(0.22 * len(rows) + 1.1, title) as (figure, out):
        axes = figure.subplots()
        shown: set[str] = set()
        for place, row in enumerate(rows):
            colour, hatch = PART_MARKS[row["part"]]
            label = None if row["part"] in shown else str(row["part"])
            shown.add(row["part"])
            axes.barh(
                place,
                row["seconds"],
                height=0.72,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
                label=label,
            )
        _name_lines(axes, [str(row["stage"]) for row in rows])
        axes.tick_params(axis="y", labelsize=FONT_PT - 2)
        axes.set_xlabel("seconds")
        axes.set_xlim(left=0)
        _legend(figure)
    return out[0]


def loss_figure(curves: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> str:
    """Training loss against step, one line a training stage: its log rows."""
    with _figure(2.6 + 0.18 * len(curves), title) as (figure, out):
        axes = figure.subplots()
        for number, (stage, rows) in enumerate(curves.items()):
            _line(axes, rows, "loss", number, label=_short(stage))
        _count_steps(axes)
        axes.set_ylabel("loss, nats a token")
        axes.set_ylim(bottom=0)
        _legend(figure)
    return out[0]


def dpo_figure(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The rows of one DPO's log, three panels: margin, reward accuracy, change of right and wrong answers."""
    with _figure(5.0, title) as (figure, out):
        margin, accuracy, change = figure.subplots(3, 1, sharex=True)
        _line(margin, rows, "margin", 0, label="margin")
        _title(margin, "margin of right over wrong answers, nats (beta included)")
        _line(accuracy, rows, "reward_accuracy", 0, label="reward accuracy")
        accuracy.set_ylim(0, 1.05)
        _title(accuracy, "reward accuracy, share of the step's pairs")
        _line(change, rows, "chosen_change_per_token", 2, label="right answers")
        _line(change, rows, "rejected_change_per_token", 1, label="wrong answers")
        change.axhline(0, color=GREY, linewidth=0.8)
        change.legend(loc="best", frameon=False, fontsize=FONT_PT - 1)
        _title(change, "change of log-probability, nats a token")
        _count_steps(change)
    return out[0]


def _legend(figure: Figure) -> None:
    """Above the axes, with samples long enough to show each line's style."""
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=FONT_PT - 1, handlelength=3.2)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=FONT_PT)


def _count_steps(axes: Axes, what: str = "optimiser step") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, number: int, label: str) -> None:
    steps = [row["step"] for row in rows if name in row]
    values = [row[name] for row in rows if name in row]
    axes.plot(
        steps, values, label=label, color=LINE_COLOURS[number % len(LINE_COLOURS)],
        linestyle=LINE_STYLES[number % len(LINE_STYLES)], linewidth=1.8,
    )  # fmt: skip


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Names at the left, the first on top."""
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(axis="y", length=0)


def _short(name: str) -> str:
    """A name that fits, in characters that every font has."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in name)
    return plain if len(plain) <= MAX_LABEL_CHARS else f"...{plain[-MAX_LABEL_CHARS + 3 :]}"


@contextmanager
def _figure(height_inch: float, title: str) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on; its SVG is in the list afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": title, "font.size": FONT_PT, "font.family": ["sans-serif"],
        "axes.spines.top": False, "axes.spines.right": False, "hatch.color": "white", "hatch.linewidth": 0.8,
    }  # fmt: skip
    out: list[str] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=(WIDTH_INCH, height_inch), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, out
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    out.append(_inline(buffer.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """An SVG document as an element of a page: no prolog, no metadata, as wide as its column, with a text for ears."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    name = escape(title)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1).strip()
