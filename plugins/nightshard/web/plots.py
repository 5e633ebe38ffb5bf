"""Plots as SVG, drawn by matplotlib on the server: nothing runs in the browser."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from nightshard.results.board import Curve
from nightshard.results.scaling import Scaling
from nightshard.web.timeline import Timeline

MAX_CURVES = 10

_LIGHT = {"text": "#1b1f24", "soft": "#5b6570", "line": "#d9dee3", "back": "#ffffff"}
_DARK = {"text": "#e6e9ec", "soft": "#9aa4ae", "line": "#30363c", "back": "#14171a"}
# Okabe and Ito's colours, which people with any colour vision tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
_MARKS = "os^Dvph"


def plot_curves(curves: Sequence[Curve], metric: str, *, dark: bool) -> bytes:
    """Draw a metric over training steps, with 95 % intervals as bands."""
    figure, axes, colours = _figure(dark=dark)
    for number, curve in enumerate(curves[:MAX_CURVES]):
        colour, mark = _COLOURS[number % 7], _MARKS[number % 7]
        steps = [step for step, _ in curve.points]
        cells = [cell for _, cell in curve.points]
        axes.plot(
            steps, [cell.value for cell in cells], f"{mark}-", color=colour, label=curve.benchmark
        )
        low = [cell.value if cell.ci_low is None else cell.ci_low for cell in cells]
        high = [cell.value if cell.ci_high is None else cell.ci_high for cell in cells]
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("training step")
    axes.set_ylabel(metric)
    axes.margins(x=0.03)
    return _svg(figure, axes, colours)


def plot_scaling(scaling: Scaling, *, dark: bool) -> bytes:
    """Draw time and GPU hours over the number of shards, both in hours."""
    figure, axes, colours = _figure(dark=dark)
    shards = [point.shards for point in scaling.points]
    hours = [point.wall_seconds / 3600 for point in scaling.points]
    axes.plot(shards, hours, "o-", color=_COLOURS[0], label="hours from start to end")
    ideal = [hours[0] * shards[0] / count for count in shards]
    axes.plot(shards, ideal, ":", color=colours["soft"], label="if time fell as shards grow")
    spent = [(p.shards, p.gpu_seconds / 3600) for p in scaling.points if p.gpu_seconds]
    if spent:
        axes.plot(*zip(*spent, strict=True), "s-", color=_COLOURS[1], label="GPU hours")
    axes.set_xlabel("shards")
    axes.set_ylabel("hours")
    axes.set_xticks(shards)
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, colours)


_KINDS = {
    "queued": "#9aa4ae",
    "load": "#e69f00",
    "generate": "#0072b2",
    "idle": "#d9dee3",
    "lost": "#d55e00",
}


def plot_timelines(runs: Sequence[tuple[str, Timeline]], *, dark: bool) -> bytes:
    """Draw the shards of several runs as bars over time, in seconds since each run's start."""
    figure, axes, colours = _figure(dark=dark)
    lanes = [(title, lane) for title, line in runs for lane in line.lanes]
    figure.set_size_inches(8, max(2.5, 0.6 + 0.22 * len(lanes)))
    shown: set[str] = set()
    for row, (_, lane) in enumerate(lanes):
        for bar in lane.bars:
            label = None if bar.kind in shown else bar.kind
            shown.add(bar.kind)
            axes.barh(row, bar.seconds, left=bar.begin, color=_KINDS[bar.kind], label=label)
    axes.set_yticks(range(len(lanes)), [f"{title}: {lane.rank + 1}" for title, lane in lanes])
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the run's start")
    return _svg(figure, axes, colours)


def _figure(*, dark: bool) -> tuple[Figure, Any, dict[str, str]]:
    colours = _DARK if dark else _LIGHT
    figure = Figure(figsize=(8, 4), layout="constrained", facecolor=colours["back"])
    axes = figure.add_subplot(facecolor=colours["back"])
    axes.grid(color=colours["line"], linewidth=0.8)
    axes.tick_params(colors=colours["soft"])
    axes.xaxis.label.set_color(colours["soft"])
    axes.yaxis.label.set_color(colours["soft"])
    for spine in axes.spines.values():
        spine.set_color(colours["line"])
    return figure, axes, colours


def _svg(figure: Figure, axes: Any, colours: dict[str, str]) -> bytes:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(facecolor=colours["back"], edgecolor=colours["line"], labelcolor="linecolor")
    for text in axes.get_legend().get_texts() if axes.get_legend() else ():
        text.set_color(colours["text"])
        text.set_parse_math(False)  # a name with two dollar signs is no formula
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_parse_math(False)
    file = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nightshard"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
