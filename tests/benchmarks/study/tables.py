"""The study's tables and pictures of the runs that are there: Table 1, Table 2, Figure 2, and what
beats HandCLR.

    python tests/benchmarks/study/tables.py runs/study         # on standard output
    python tests/benchmarks/study/tables.py runs/study --readme README.md --pictures docs
    python tests/benchmarks/study/tables.py --measured tests/benchmarks/study/measured.npz

MPJPE in mm after root and reference-bone alignment, the mean over the seeds that are there; in
brackets the 95 % interval by bootstrap, in which both the test images and the seeds are drawn anew;
where there is one seed, none. AUC of the PCK curve, 0 to 50 mm.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from plan import BEST, EXPLAINED, METHODS, NONE, OTHERS, PAPER, SCALES, TESTS, TITLES, Scale
from results import Result, Results

from handclr_cli.report.curves import save_figure

SHOWN = (NONE, *PAPER[:-1], *OTHERS, PAPER[-1], *BEST)
COLOURS = ("#8c8c8c", "#56b4e9", "#0072b2", "#cc79a7", "#f0e442", "#009e73", "#e69f00", "#d55e00")
# HandCLR over PeCLR on FreiHAND with the fewest labels and with all (Lin, Ohkawa et al.).
PUBLISHED_FRACTIONS = ("-31%", "-15%")
# Pool, share of the labels, test set.
Column = tuple[str, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "run", type=Path, nargs="?", help="folder of the runs; none: only what was measured before"
    )
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument(
        "--measured",
        type=Path,
        help="file of what was measured before; what RUN has is added to it",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        help="put the tables between its <!-- study: NAME --> and <!-- end -->",
    )
    parser.add_argument("--pictures", type=Path, help="folder for the PNGs")
    arguments = parser.parse_args()
    results = Results(SCALES[arguments.scale], arguments.run, arguments.measured)
    if arguments.run and arguments.measured:
        results.keep(arguments.measured)
    tables = {name: make(results) for name, make in TABLES.items()}
    if arguments.readme:
        arguments.readme.write_text(put(arguments.readme.read_text(), tables))
    else:
        print("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for name, picture in PICTURES.items():
            picture(results, arguments.pictures / f"study-{name}.png")


def put(text: str, tables: dict[str, str]) -> str:
    """Replace what stands between the marks of each table that the text has."""
    for name, table in tables.items():
        pattern = rf"(<!-- study: {re.escape(name)} -->\n).*?(<!-- end -->)"
        text = re.sub(
            pattern,
            lambda found, table=table: f"{found[1]}{table}\n{found[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def table_1(results: Results) -> str:
    """Every method, few labels, both test sets."""
    scale, small = results.scale, min(results.scale.fractions)
    columns = [(scale.main, small, test) for test in TESTS]
    rows = []
    for method in SHOWN:
        found = [results.of(method, *column) for column in columns]
        if found[0]:
            seeds = str(len(found[0].images))
            rows.append([TITLES[method], *map(cell, found), area(found[0]), seeds])
    for names in (("handclr", "peclr"), (BEST[-1], "handclr")):
        rows.append([*gains(results, columns, names), "", ""])
    chances = [mean_pose(results, column) for column in columns]
    rows.append(["mean pose", *chances, "", ""])
    head = [f"{described(scale, pool)}: {test}" for pool, _, test in columns]
    return markdown(["method", *head, "AUC, first column", "seeds"], rows)


def mean_pose(results: Results, column: Column) -> str:
    """The error of the mean pose, which is the same of every method."""
    for method in SHOWN:
        if result := results.of(method, *column):
            return f"{result.mean_pose:.1f}"
    return ""


def table_2(results: Results) -> str:
    """Method by size of the pool, in as many steps."""
    return by_pool(results, results.scale.equal_steps)


def table_2_epochs(results: Results) -> str:
    """Method by size of the pool, in as many epochs."""
    return by_pool(results, results.scale.equal_epochs)


def by_pool(results: Results, pools: Iterable[str]) -> str:
    """Method by pool, few labels, both test sets; of a method the same seeds in every column."""
    columns = [(pool, min(results.scale.fractions), test) for test, pool in product(TESTS, pools)]
    rows = [*by_method(results, columns), gains(results, columns)]
    head = [f"{described(results.scale, pool)}: {test}" for pool, _, test in columns]
    return markdown(["method", *head], rows)


def figure_2(results: Results) -> str:
    """Method by share of the labels, the laboratory; of a method the same seeds in every column."""
    scale, fractions = results.scale, sorted(results.scale.fractions)
    columns = [(scale.main, fraction, TESTS[0]) for fraction in fractions]
    rows = by_method(results, columns)
    fewest, most = PUBLISHED_FRACTIONS
    rows.append(gains(results, columns))
    rows.append(["the same in the paper", fewest, *[""] * (len(columns) - 2), most])
    rows.append(gains(results, columns, (BEST[-1], "handclr")))
    head = [f"{fraction:.0%} of {scale.labels:,} labels" for fraction in fractions]
    return markdown(["method", *head], rows)


def peclr(results: Results) -> str:
    """Why PeCLR is not ahead of SimCLR."""
    return compared(results, EXPLAINED)


def beyond(results: Results) -> str:
    """What is tried against HandCLR under the same budget."""
    variants = (
        name for name, one in METHODS.items() if "handclr" in one.options and name != "handclr"
    )
    return compared(results, ((name, "handclr") for name in variants))


def compared(results: Results, pairs: Iterable[tuple[str, str]]) -> str:
    """What each first one has over the second, few labels, both test sets: differences of the same
    images and seeds.
    """
    rows = []
    for names in pairs:
        both = list(both_there(results, names))
        if both:
            seeds = min(len(result.images) for result in both[0])
            differences = [versus(*pair) for pair in both]
            title = " against ".join(TITLES[name] for name in names)
            rows.append([title, *differences, str(seeds)])
    return markdown(["", *(f"{test}, mm" for test in TESTS), "seeds"], rows)


def both_there(results: Results, names: tuple[str, str]) -> Iterator[tuple[Result, Result]]:
    """Two methods on each test set where both were measured, few labels."""
    column = results.scale.main, min(results.scale.fractions)
    for test in TESTS:
        ours, base = (results.of(name, *column, test) for name in names)
        if ours and base:
            yield ours, base


def versus(ours: Result, base: Result) -> str:
    """The difference in mm with its interval, and as a share; of the seeds that both have."""
    seeds = min(len(ours.images), len(base.images))
    gap = Result(ours.images[:seeds] - base.images[:seeds])
    share = gap.error / base.first(seeds).error
    return f"{with_interval(gap.error, gap.interval(), '+.1f')}, {share:+.0%}"


def gains(
    results: Results, columns: Sequence[Column], names: tuple[str, str] = ("handclr", "peclr")
) -> list[str]:
    """What a method has over another one in each column."""
    both = (across(results, method, columns) for method in names)
    title = " over ".join(TITLES[name] for name in names)
    return [title, *(versus(*pair) if all(pair) else "" for pair in zip(*both, strict=True))]


def by_method(results: Results, columns: Sequence[Column]) -> list[list[str]]:
    """The methods that were fine-tuned more than once."""
    rows = []
    for method in SHOWN:
        found = across(results, method, columns)
        if len({column[:2] for column, result in zip(columns, found, strict=True) if result}) > 1:
            rows.append([TITLES[method], *map(cell, found)])
    return rows


def across(results: Results, method: str, columns: Iterable[Column]) -> list[Result | None]:
    """A method in each column, of the seeds that all columns have in which it is."""
    found = [results.of(method, *column) for column in columns]
    seeds = min((len(result.images) for result in found if result), default=0)
    return [result and result.first(seeds) for result in found]


def described(scale: Scale, pool: str) -> str:
    videos, epochs = scale.pools[pool]
    return f"{videos:,} videos, {epochs} epochs"


def cell(result: Result | None) -> str:
    return with_interval(result.error, result.interval(), ".1f") if result else ""


def area(result: Result | None) -> str:
    return with_interval(result.area, result.interval(1), ".3f") if result else ""


def with_interval(value: float, ends: tuple[float, float], digits: str) -> str:
    low, high = ends
    return f"{value:{digits}}" + ("" if math.isnan(low) else f" [{low:{digits}}, {high:{digits}}]")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(results: Results, rows: dict[str, dict[str, tuple[str, float]]], path: Path) -> None:
    """Curves with intervals on each test set of every method that has more than one point; a row of
    panels for each.

    rows: by what stands under a row, pools and shares of the labels by what stands under them.
    """
    figure = Figure(figsize=(7.5, 1.2 + 3.2 * len(rows)), dpi=120, layout="constrained")
    panels = figure.subplots(len(rows), len(TESTS), sharey="col", squeeze=False)
    colours = dict(zip(SHOWN, COLOURS, strict=True))
    for (label, columns), line in zip(rows.items(), panels, strict=True):
        for test, axes in zip(TESTS, line, strict=True):
            for method in SHOWN:
                found = across(results, method, [(*column, test) for column in columns.values()])
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
        columns = {f"{scale.pools[pool].videos:,}": (pool, small) for pool in pools}
        rows[f"videos to pre-train on, as many {what}"] = columns
    draw(results, rows, path)


def draw_figure_2(results: Results, path: Path) -> None:
    scale = results.scale
    shares = {f"{fraction:.0%}": (scale.main, fraction) for fraction in sorted(scale.fractions)}
    draw(results, {"share of the labels": shares}, path)


TABLES = {
    "table 1": table_1,
    "table 2": table_2,
    "table 2, epochs": table_2_epochs,
    "figure 2": figure_2,
    "PeCLR": peclr,
    "beyond": beyond,
}
PICTURES = {"table-1": draw_table_1, "table-2": draw_table_2, "figure-2": draw_figure_2}


if __name__ == "__main__":
    main()
