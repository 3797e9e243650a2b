"""The study's pictures: errors with their intervals, by method, budget, pool and labels."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from results import Result, Results
from scale import SHOWN, TESTS, TITLES

from handclr_cli.report.curves import save_figure

COLOURS = ("#8c8c8c", "#56b4e9", "#0072b2", "#cc79a7", "#f0e442", "#009e73", "#e69f00", "#d55e00")


def draw(results: Results, rows: dict[str, dict[str, tuple[str, float]]], path: Path) -> None:
    """Curves with intervals on each test set of every method that has more than one point; a row of
    panels for each.

    rows: by what stands under a row, pools and shares of the labels by what stands under them.
    """
    figure = Figure(figsize=(7.5, 1.2 + 3.2 * len(rows)), dpi=120, layout="constrained")
    panels = figure.subplots(len(rows), len(TESTS), sharey="col", squeeze=False)
    colours = dict(zip(SHOWN, COLOURS, strict=False))
    for (label, columns), line in zip(rows.items(), panels, strict=True):
        for test, axes in zip(TESTS, line, strict=True):
            for method in SHOWN:
                found = results.across(method, [(*column, test) for column in columns.values()])
                points = [(at, result) for at, result in enumerate(found) if result]
                if len(points) > 1:
                    middle, bars = whiskers(result for _, result in points)
                    style = {
                        "color": colours[method],
                        "marker": "o",
                        "capsize": 3,
                        "label": named(method),
                    }
                    axes.errorbar([at for at, _ in points], middle, yerr=bars, **style)
            axes.set(title=test, xlabel=label)
            axes.set_xticks(range(len(columns)), list(columns))
            axes.grid(alpha=0.25)
        line[0].set_ylabel("MPJPE after root and bone, mm")
    entries = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    if entries:
        figure.legend(entries.values(), entries, frameon=False, loc="outside upper left", ncols=3)
    save_figure(figure, path)
    print(path, file=sys.stderr)


def named(method: str) -> str:
    """A method's title for a picture."""
    return TITLES[method].replace("`", "")


def whiskers(results: Iterable[Result]) -> tuple[np.ndarray, np.ndarray]:
    """The errors (M,), and how far their intervals reach below and above them (2, M)."""
    rows = np.array([(result.error, *result.interval()) for result in results]).reshape(-1, 3)
    return rows[:, 0], np.abs(rows[:, 1:] - rows[:, :1]).T


def draw_table_1(results: Results, path: Path) -> None:
    """Every method, its seeds in brackets, on both test sets."""
    scale, small = results.scale, min(results.scale.fractions)
    figure = Figure(figsize=(7.5, 4.2), dpi=120, layout="constrained")
    for number, test in enumerate(TESTS, 1):
        axes = figure.add_subplot(
            1, len(TESTS), number, title=test, xlabel="MPJPE after root and bone, mm"
        )
        found = {method: results.of(method, scale.main, small, test) for method in SHOWN}
        there = {method: result for method, result in found.items() if result}
        middle, bars = whiskers(there.values())
        axes.errorbar(middle, range(len(there)), xerr=bars, fmt="o", capsize=3)
        labels = [
            f"{named(method)} ({len(result.images)})" if number == 1 else ""
            for method, result in there.items()
        ]
        axes.set_yticks(range(len(there)), labels)
        axes.invert_yaxis()
        axes.margins(y=0.1)
        axes.grid(axis="x", alpha=0.25)
    save_figure(figure, path)
    print(path, file=sys.stderr)


def draw_table_2(results: Results, path: Path) -> None:
    scale, small = results.scale, min(results.scale.fractions)
    rows = {}
    for what, pools in (("steps", scale.equal_steps), ("epochs", scale.equal_epochs)):
        begun = results.begun(pools)
        columns = {f"{scale.pools[pool].videos:,}": (pool, small) for pool in begun}
        rows[f"videos to pre-train on, as many {what}"] = columns
    draw(results, rows, path)


def draw_budgets(results: Results, path: Path) -> None:
    scale, small = results.scale, min(results.scale.fractions)
    begun = results.begun(scale.budgets)
    columns = {f"{scale.pools[pool].epochs}": (pool, small) for pool in begun}
    draw(results, {"epochs of pre-training": columns}, path)


def draw_figure_2(results: Results, path: Path) -> None:
    scale = results.scale
    shares = {f"{fraction:.0%}": (scale.main, fraction) for fraction in sorted(scale.fractions)}
    draw(results, {"share of the labels": shares}, path)


PICTURES = {
    "table-1": draw_table_1,
    "budgets": draw_budgets,
    "table-2": draw_table_2,
    "figure-2": draw_figure_2,
}
