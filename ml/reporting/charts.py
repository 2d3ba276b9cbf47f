"""Pictures as inline SVG: the same figures give the same text, whatever the machine.

Nothing global is touched: no pyplot, no user's matplotlibrc, no cache left behind.
Colours are Okabe and Ito's, which colour-blind people can tell apart; every line
has its own marker and dash as well.
"""

import atexit
import io
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from markupsafe import Markup

# matplotlib keeps a list of the machine's fonts; it goes with the process.
if "MPLCONFIGDIR" not in os.environ:
    _folder = tempfile.mkdtemp(prefix="report-")
    os.environ["MPLCONFIGDIR"] = _folder
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PURPLE, SKY, GREY = "#D55E00", "#CC79A7", "#56B4E9", "#666666"
# Narrow, so that the words stay readable on a phone; wide screens show two a row.
WIDTH, HEIGHT = 4.4, 3.2
BAR_HEIGHT = 0.36
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#3b4048",
    "ytick.color": "#3b4048",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    # Names of courses are nobody's formulas.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Look:
    """How one scorer or group is drawn, everywhere on the page."""

    name: str
    colour: str
    dash: str | tuple[int, tuple[int, ...]]
    marker: str


LOOKS = {
    "model": Look("Model", BLUE, "-", "o"),
    "logistic": Look("Logistic regression", GREEN, "--", "s"),
    "rule": Look("Rule", ORANGE, "-.", "D"),
    "course_rate": Look("Course's failure rate", PURPLE, (0, (5, 1, 1, 1, 1, 1)), "^"),
    "random": Look("Random order", GREY, ":", "x"),
    "failed": Look("Failed", RED, "-", "o"),
    "passed": Look("Did not fail", BLUE, "--", "s"),
}


@dataclass(frozen=True)
class Line:
    """A line to draw; `low` and `high` are the ends of intervals."""

    look: Look
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    steps: str = ""
    markers: bool = False


def draw(
    name: str, alt: str, paint: Callable[[Figure], None], height: float = HEIGHT
) -> Markup:
    """Run `paint` on an empty figure and return it as an `<svg>` element.

    Parameters
    ----------
    name
        Keeps the ids inside apart from those of other pictures on the page.
    alt
        What the picture shows, for those who do not see it.
    """
    # Some warn of letters that the measuring font lacks; the browser has them.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        written = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", metadata=nothing)
    return Markup(_inline(written.getvalue(), alt))


def _inline(svg: str, alt: str) -> str:
    """Keep the element alone; it takes its width from the page, its ids are unique."""
    body = re.sub(r'<g id="[^"]*"', "<g", svg[svg.index("<svg") :])
    size = re.search(r'viewBox="([^"]*)"', body)
    inside = body[body.index(">") + 1 :]
    view = size[1] if size else "0 0 1 1"
    return (
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'viewBox="{view}" aria-label="{escape(alt)}">{inside.strip()}'
    )


# ---------------------------------------------------------------- parts


def _percent(axis: object) -> None:
    axis.set_major_formatter(PercentFormatter(1, decimals=0))  # type: ignore[attr-defined]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside lower left", ncols=2)


def _add_line(axes: Axes, line: Line, shift: float = 0.0) -> None:
    look = line.look
    x = np.asarray(line.x, dtype=float) + shift
    y = np.asarray(line.y, dtype=float)
    if line.low is not None and line.high is not None:
        low = np.clip(y - np.asarray(line.low, dtype=float), 0, None)
        high = np.clip(np.asarray(line.high, dtype=float) - y, 0, None)
        axes.errorbar(x, y, [low, high], fmt="none", ecolor=look.colour, capsize=2.5)
    axes.plot(
        x,
        y,
        color=look.colour,
        linestyle=look.dash,
        marker=look.marker if line.markers else "",
        drawstyle=line.steps or "default",
        label=look.name,
    )


# ---------------------------------------------------------------- pictures


def lines(
    name: str,
    alt: str,
    series: list[Line],
    x_label: str,
    y_label: str,
    x_percent: bool = False,
    x_axis_percent: bool = False,
    y_percent: bool = False,
    limits: tuple[float, float] | None = (0, 1.02),
    level: tuple[str, float] | None = None,
    diagonal: str = "",
    backwards: bool = False,
    ticks: dict[float, str] | None = None,
) -> Markup:
    """Lines over one axis, with intervals, a level or a diagonal to compare with.

    `backwards` lets the x axis run down, as days to a deadline do; `x_percent` shows
    all of 0 to 100 %, `x_axis_percent` only writes percentages.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        span = max(np.ptp(np.concatenate([line.x for line in series])), 1e-9)
        for place, line in enumerate(series):
            # Intervals at the same place would hide each other.
            middle = (len(series) - 1) / 2
            shift = 0.012 * span * (place - middle) if line.low is not None else 0.0
            _add_line(axes, line, shift)
        if level:
            axes.axhline(
                level[1], color=GREY, linestyle=":", linewidth=1.2, label=level[0]
            )
        if diagonal:
            axes.plot(
                [0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2, label=diagonal
            )
        if limits:
            axes.set_ylim(*limits)
        if x_percent:
            axes.set_xlim(0, 1.02)
        if x_percent or x_axis_percent:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            _percent(axes.xaxis)
        if y_percent:
            _percent(axes.yaxis)
        if ticks:
            axes.set_xticks(list(ticks), list(ticks.values()))
        if backwards:
            axes.invert_xaxis()
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)

    return draw(name, alt, paint, HEIGHT + 0.3)


def bars(
    name: str,
    alt: str,
    labels: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    x_label: str,
    percent: bool = False,
    levels: dict[str, float] | None = None,
    signed: bool = False,
) -> Markup:
    """Horizontal bars, each with its name above it: names stay whole on a phone."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _name_rows(axes, labels)
        rows = np.arange(len(labels))
        colours = [RED if signed and value < 0 else BLUE for value in values]
        axes.barh(rows, values, height=0.42, color=colours)
        for row, value, text in zip(rows, values, texts, strict=True):
            side = -1 if signed and value < 0 else 1
            axes.annotate(
                text,
                (value, row),
                xytext=(4 * side, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=9,
            )
        _finish_rows(figure, axes, len(labels), x_label, percent, levels)
        low = min(0.0, *values) if signed else 0.0
        high = max([*values, *(levels or {}).values(), 1e-9])
        room = 0.18 * (high - low)
        axes.set_xlim(low - room if low < 0 else 0, high + room)

    return draw(name, alt, paint, _rows_height(len(labels)))


def dots(
    name: str,
    alt: str,
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    x_label: str,
    percent: bool = False,
    from_zero: bool = False,
    levels: dict[str, float] | None = None,
) -> Markup:
    """One dot with its interval per row, the row's name above it."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _name_rows(axes, labels)
        rows = np.arange(len(labels))
        middle = np.asarray(values, dtype=float)
        left = np.clip(middle - np.asarray(low, dtype=float), 0, None)
        right = np.clip(np.asarray(high, dtype=float) - middle, 0, None)
        axes.errorbar(middle, rows, xerr=[left, right], fmt="o", color=BLUE, capsize=3)
        if from_zero:
            axes.set_xlim(left=0)
        _finish_rows(figure, axes, len(labels), x_label, percent, levels)

    return draw(name, alt, paint, _rows_height(len(labels)))


def _rows_height(rows: int) -> float:
    return 0.85 + BAR_HEIGHT * max(rows, 1)


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    for row, label in enumerate(labels):
        axes.annotate(
            label,
            (0, row),
            xycoords=("axes fraction", "data"),
            xytext=(0, 6.5),
            textcoords="offset points",
            va="bottom",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.5},
        )


def _finish_rows(
    figure: Figure,
    axes: Axes,
    rows: int,
    x_label: str,
    percent: bool,
    levels: dict[str, float] | None,
) -> None:
    axes.set_ylim(rows - 0.4, -0.9)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if percent:
        _percent(axes.xaxis)
    dashes = ("--", ":", "-.")
    for (label, value), dash in zip((levels or {}).items(), dashes, strict=False):
        axes.axvline(value, color=GREY, linestyle=dash, linewidth=1.2, label=label)
    if levels:
        figure.legend(loc="outside lower left", ncols=2)
    axes.set_xlabel(x_label)


def histograms(
    name: str,
    alt: str,
    panels: list[tuple[str, np.ndarray, dict[str, np.ndarray]]],
    y_label: str,
) -> Markup:
    """Panels under each other: title, edges of the bins, share of each group by bin."""

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, (title, edges, groups) in zip(grid, panels, strict=True):
            for group, shares in groups.items():
                look = LOOKS[group]
                axes.stairs(
                    shares,
                    edges,
                    color=look.colour,
                    linestyle=look.dash,
                    linewidth=1.8,
                    fill=False,
                    label=look.name,
                )
            axes.set_title(title)
            axes.set_ylim(bottom=0)
            _percent(axes.yaxis)
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.set_ylabel(y_label)
        _legend(figure, grid[0])

    return draw(name, alt, paint, 0.4 + 1.75 * len(panels))


def columns(
    name: str,
    alt: str,
    edges: np.ndarray,
    parts: dict[str, tuple[str, np.ndarray]],
    x_label: str,
    y_label: str,
) -> Markup:
    """Stacked columns over bins: for each part a colour and a height per bin."""
    hatches = ("", "///", "...")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        base = np.zeros(len(edges) - 1)
        for (part, (colour, heights)), hatch in zip(
            parts.items(), hatches, strict=False
        ):
            axes.bar(
                edges[:-1],
                heights,
                np.diff(edges),
                base,
                align="edge",
                color=colour,
                edgecolor="white",
                hatch=hatch,
                label=part,
            )
            base = base + heights
        axes.set_ylim(0, 1.08 * max(base.max(), 1))
        _percent(axes.xaxis)
        axes.set(xlabel=x_label, ylabel=y_label)
        _legend(figure, axes)

    return draw(name, alt, paint)
