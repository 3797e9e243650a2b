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
# The number of components that the paper keeps.
_PAPER_DIMENSIONS = 14


def loss_plot(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Plot the loss per step, its running mean and the learning rate as a PNG.

    `records` are rows of log.jsonl with `step`, `loss` and perhaps `lr`; other rows are passed over, and of a
    step that was logged twice (before and after a resume) the last counts.
    """
    rows = {
        int(row["step"]): row
        for row in records
        if row.get("step") is not None and row.get("loss") is not None and math.isfinite(row["loss"])
    }
    if not rows:
        raise HandclrError(f"nothing to plot in {path}: the log has no row with a step and a finite loss")
    steps = np.array(sorted(rows))
    loss = np.array([float(rows[step]["loss"]) for step in steps])
    figure, axes = _figure("step", "loss")
    marker = "o" if len(steps) == 1 else ""
    axes.plot(steps, loss, color=_BLUE, alpha=0.3, linewidth=0.8, marker=marker, label="each step")
    window = max(1, len(steps) // 20)
    if window > 1:
        axes.plot(steps, _running_mean(loss, window), color=_BLUE, linewidth=1.6, label=f"mean of {window}")
    rated = [step for step in steps if rows[step].get("lr") is not None]
    if rated:
        right = axes.twinx()
        rates = [float(rows[step]["lr"]) for step in rated]
        right.plot(rated, rates, color=_GREY, linewidth=0.8, linestyle="--", marker=marker)
        right.set_ylabel("learning rate (dashed)", color=_GREY)
        right.tick_params(axis="y", colors=_GREY)
        right.set_ylim(bottom=0)
        right.spines["top"].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    _save(figure, path)


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
    axes.legend(framealpha=1, edgecolor="none", loc="center right")
    _save(figure, path)


def pck_plot(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], path: str | os.PathLike[str]) -> None:
    """Plot PCK curves from 0 to 50 mm as a PNG; each is (thresholds in mm (T,), shares in 0..1 (T,), AUC)."""
    figure, axes = _figure("threshold in mm", "share of correct joints")
    for name, (thresholds, values, auc) in curves.items():
        axes.plot(thresholds, values, linewidth=1.6, label=f"{name} (AUC 0-50 mm {auc:.3f})")
    axes.set_xlim(0, 50)
    axes.set_ylim(0, 1.02)
    if curves:
        axes.legend(frameon=False, loc="best")
    _save(figure, path)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return an empty plot; no pyplot, so no window system and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure; without matplotlib's version in it, so that the same plot has the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_write(path) as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Average each value with its neighbours in a centred window, which is cut off at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    start = np.maximum(place - window // 2, 0)
    end = np.minimum(place - window // 2 + window, len(values))
    return (total[end] - total[start]) / (end - start)
