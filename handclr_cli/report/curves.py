"""Small plots of training, of the pose embedding and of the evaluation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.output import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8c8c8c"
_SERIES = (_BLUE, _ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# The number of components that the paper keeps.
_PAPER_DIMENSIONS = 14
_BINS = 60
# Distances below this fraction of the largest one are drawn with the zeros.
_SMALLEST = 1e-5


def loss_plot(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Plot the loss per step, its running mean and the learning rate as a PNG.

    `records` are rows of log.jsonl with `step`, `loss` and perhaps `lr`; other rows are ignored. Of
    a step that was logged twice, before and after a resume, the last row is drawn.
    """
    rows = {int(row["step"]): row for row in records if _has_loss(row)}
    if not rows:
        why = "the log has no row with a step and a finite loss"
        raise HandclrError(f"nothing to plot in {path}: {why}")
    steps = np.array(sorted(rows))
    loss = np.array([float(rows[step]["loss"]) for step in steps])
    figure, axes = _figure("step", "loss")
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, loss, color=_BLUE, alpha=0.3, linewidth=0.8, marker=marker, label="each step")
    window = max(1, len(steps) // 20)
    if window > 1:
        mean = _running_mean(loss, window)
        axes.plot(steps, mean, color=_BLUE, linewidth=1.6, label=f"mean of {window}")
    rated = [step for step in steps if rows[step].get("lr") is not None]
    if rated:
        right = axes.twinx()
        rates = [float(rows[step]["lr"]) for step in rated]
        right.plot(rated, rates, color=_GREY, linewidth=0.8, linestyle="--", marker=marker)
        right.set_ylabel("learning rate (dashed)", color=_GREY)
        right.tick_params(axis="y", colors=_GREY)
        right.set_ylim(bottom=0)
        right.spines["top"].set_visible(False)
    _legend(figure, columns=2)
    save_figure(figure, path)


def variance_plot(explained_variance_ratio: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Plot the explained variance of each component (D,), in 0..1, and its running sum as a PNG."""
    from matplotlib.ticker import MaxNLocator

    ratio = np.asarray(explained_variance_ratio, dtype=np.float64)
    number = np.arange(1, len(ratio) + 1)
    figure, axes = _figure("component", "explained variance")
    axes.bar(number, ratio, color=_BLUE, label="each")
    axes.plot(number, ratio.cumsum(), color=_ORANGE, marker=".", label="cumulative")
    if len(ratio) >= _PAPER_DIMENSIONS:
        share = ratio[:_PAPER_DIMENSIONS].sum()
        label = f"{_PAPER_DIMENSIONS} components: {share:.1%}"
        axes.axvline(_PAPER_DIMENSIONS, color=_GREY, linestyle="--", linewidth=1, label=label)
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, columns=3)
    save_figure(figure, path)


def pck_plot(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], path: str | os.PathLike[str]
) -> None:
    """Plot PCK curves from 0 to 50 mm as a PNG.

    Each curve is its thresholds (T,) in mm, its shares (T,) in 0..1, and the area under it. A curve
    that lies on an earlier one is dashed, so that both are seen.
    """
    figure, axes = _figure("threshold in mm", "share of correct joints")
    drawn: list[np.ndarray] = []
    for number, (name, (thresholds, values, auc)) in enumerate(curves.items()):
        colour, again = _SERIES[number % len(_SERIES)], number >= len(_SERIES)
        style = "--" if again or any(np.array_equal(values, other) for other in drawn) else "-"
        drawn.append(values)
        label = f"{name}: {auc:.3f}"
        axes.plot(thresholds, values, color=colour, linestyle=style, linewidth=1.6, label=label)
    axes.set_xlim(0, 50)
    axes.set_ylim(0, 1.02)
    if curves:
        _legend(figure, "area under each, 0-50 mm", columns=2)
    save_figure(figure, path)


def distance_plot(distances: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Plot a histogram of distances for each name, with median and 5 and 95 % quantiles, as a PNG.

    Distances are arrays of any shape, in the unit of the embedding; values that are not finite,
    which stand for missing pairs, are left out. The axis is logarithmic, because near duplicates
    are orders of magnitude closer than other pairs. Zeros, and distances below a hundred-thousandth
    of the largest one, are shown by one bar beside the axis. Without distances the plot is empty.
    """
    series = {name: np.asarray(values, np.float64).ravel() for name, values in distances.items()}
    series = {name: values[np.isfinite(values)] for name, values in series.items()}
    everything = np.concatenate([np.empty(0), *series.values()])
    edges = _log_edges(everything)
    figure, axes = _figure("distance", "share of crops")
    panels = [(axes, edges)]
    below = everything[everything < edges[0]]
    if len(below):
        zeros = _zero_panel(figure, axes, "~0" if below.any() else "0")
        panels.append((zeros, np.array([0.0, 1.0])))
    for number, (name, values) in enumerate(series.items()):
        _draw_distances(panels, name, values, _SERIES[number % len(_SERIES)])
    _log_axis(axes, edges, ticks=len(below) < len(everything))
    axes.set_ylim(bottom=0)
    if series:
        _legend(figure, "line: median, dotted: 5 % and 95 %")
    save_figure(figure, path)


def _has_loss(row: Mapping[str, Any]) -> bool:
    """Whether a row of the log has a step and a finite loss."""
    if row.get("step") is None or row.get("loss") is None:
        return False
    return math.isfinite(row["loss"])


def _log_edges(values: np.ndarray) -> np.ndarray:
    """Edges of logarithmic bins for the distances above 0.

    They span a factor of two at least; without such distances they are from 0.1 to 1.
    """
    positive = values[values > 0]
    if not len(positive):
        return np.geomspace(0.1, 1, _BINS + 1)
    high = float(positive.max())
    low = max(float(positive.min()), high * _SMALLEST)
    if high < 2 * low:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(2), middle * math.sqrt(2)
    edges = np.geomspace(low, high, _BINS + 1)
    edges[[0, -1]] = low, high
    return edges


def _zero_panel(figure: Figure, axes: Axes, label: str) -> Axes:
    """Make narrow axes on the left for one bar, with the same scale of shares."""
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 24), wspace=0.02)
    axes.set_subplotspec(grid[1])
    panel = figure.add_subplot(grid[0], sharey=axes)
    _style(panel, "", axes.get_ylabel())
    panel.set_xlim(-0.2, 1.2)
    panel.set_xticks([0.5], [label])
    axes.set_ylabel("")
    axes.tick_params(axis="y", left=False, labelleft=False)
    axes.spines["left"].set_visible(False)
    return panel


def _draw_distances(
    panels: Sequence[tuple[Axes, np.ndarray]], name: str, values: np.ndarray, colour: str
) -> None:
    """Draw one histogram and its quantiles on panels: the logarithmic axes, then those for zeros.

    Each panel comes with the edges of its bins.
    """
    main, edges = panels[0]
    if not len(values):
        main.plot([], [], color=colour, label=f"{name}: none")
        return
    low, median, high = np.percentile(values, (5, 50, 95))
    label = f"{name}: median {median:.3g}, 5-95 % {low:.3g} to {high:.3g}"
    zeros = len(values) - np.count_nonzero(values)
    if zeros:
        label += f", {zeros:,} of {len(values):,} exactly 0"
    small = values < edges[0]
    counts = [np.histogram(values[~small], edges)[0], np.array([small.sum()])]
    for (axes, sides), count in zip(panels, counts, strict=False):
        axes.stairs(count / len(values), sides, color=colour, fill=True, alpha=0.2)
        named = label if axes is main else None
        axes.stairs(count / len(values), sides, color=colour, linewidth=1.2, label=named)
    for value, style in ((low, ":"), (median, "-"), (high, ":")):
        axes, place = (main, value) if value >= edges[0] else (panels[1][0], 0.5)
        axes.axvline(place, color=colour, linewidth=1.2, linestyle=style)


def _log_axis(axes: Axes, edges: np.ndarray, ticks: bool) -> None:
    """Make the x axis logarithmic from the first edge to the last, labelled with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    decades = math.log10(edges[-1] / edges[0])
    numbers = range(1, 10) if decades < 1 else (1, 2, 5) if decades < 3 else (1,)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(LogLocator(subs=numbers) if ticks else NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if not ticks:
        axes.xaxis.set_minor_locator(NullLocator())


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return an empty plot; no pyplot, so no window system and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    _style(axes, x_label, y_label)
    return figure, axes


def _style(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, title: str = "", columns: int = 1) -> None:
    """Name what is drawn, above the axes: within them, lines may run through the words."""
    words = {"title": title, "title_fontsize": "small", "fontsize": "small", "alignment": "left"}
    figure.legend(frameon=False, loc="outside upper left", ncols=columns, **words)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG without matplotlib's version: the same plot has the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_write(path, "png") as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Average each value with its neighbours in a centred window, shorter at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    start = np.maximum(place - window // 2, 0)
    end = np.minimum(place - window // 2 + window, len(values))
    return (total[end] - total[start]) / (end - start)
