"""The study's tables and pictures: the paper's Table 1, Table 2 and Figure 2, budgets, recipes, and
what beats HandCLR.

    python tests/benchmarks/study/tables.py                    # docs/results.md and README
    python tests/benchmarks/study/tables.py runs/study         # keep what the runs have, too
    python tests/benchmarks/study/tables.py runs/study --measured new.npz --pages page.md

MPJPE in mm after root and reference-bone alignment, the mean over the seeds that are there; in
brackets the 95 % interval, by Student's t over the seeds and over the test images; where there is
one seed, none. AUC of the PCK curve, 0 to 50 mm.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from pictures import PICTURES
from results import Result, Results
from scale import (
    BEST,
    BY_LABELS,
    LABELS,
    METHODS,
    NONE,
    REAL,
    REAL_TESTS,
    RECIPES,
    SCALES,
    SHOWN,
    TESTS,
    TITLES,
    VALIDATION,
    Scale,
)

MEASURED = Path(__file__).parent / "measured.npz"
PAGES = [Path("docs/results.md"), Path("README.md")]
# On FreiHAND with a tenth of the labels, and HandCLR over PeCLR with the fewest labels and with all
# (Lin, Ohkawa et al.).
PUBLISHED = {"simclr": "46.2", "peclr": "34.4", "handclr": "23.7"}
PUBLISHED_FRACTIONS = ("-31%", "-15%")
# What tells why methods differ: what is compared with what.
EXPLAINED = (
    ("simclr-turned", "simclr"),
    ("peclr", "simclr"),
    ("peclr", "simclr-turned"),
    ("peclr-unturned", "simclr"),
    ("peclr-crop", "peclr"),
    ("peclr-raw", "peclr"),
    ("peclr-published", "simclr-published"),
    ("handclr-crop", "handclr"),
)
# What is told of every pair of methods, and what the paper has of it.
GAINS = {
    ("peclr", "simclr"): "-26%",
    ("handclr", "peclr"): "-31%",
    (BEST[-1], "handclr"): "",
}
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
        default=MEASURED,
        help="file of what was measured before; what RUN has is added to it",
    )
    parser.add_argument(
        "--pages",
        type=Path,
        nargs="+",
        default=PAGES,
        help="put tables between their <!-- study: NAME --> and <!-- end -->, and the pictures "
        "they show beside them",
    )
    arguments = parser.parse_args()
    results = Results(SCALES[arguments.scale], arguments.run, arguments.measured)
    if arguments.run:
        results.keep(arguments.measured)
    tables = {name: make(results) for name, make in TABLES.items()}
    for page in arguments.pages:
        text = put(page.read_text(), tables)
        page.write_text(text)
        for name, picture in PICTURES.items():
            if f"(study-{name}.png)" in text:
                picture(results, page.parent / f"study-{name}.png")


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
    """Every method, few labels, both test sets, beside the paper."""
    scale, small = results.scale, min(results.scale.fractions)
    columns = [(scale.main, small, test) for test in TESTS]
    rows = []
    for method in SHOWN:
        found = [results.of(method, *column) for column in columns]
        if found[0]:
            told = [area(found[0]), str(len(found[0].images)), PUBLISHED.get(method, "")]
            rows.append([TITLES[method], *map(cell, found), *told])
    for names, published in GAINS.items():
        rows.append([*gains(results, columns, names), "", "", published])
    chances = [mean_pose(results, column) for column in columns]
    rows.append(["mean pose", *chances, "", "", ""])
    beside = ["AUC, first column", "seeds", "the paper"]
    return markdown(["method", *TESTS, *beside], rows)


def budgets(results: Results) -> str:
    """Method by epochs of pre-training, few labels, both test sets; what a method has over another
    one where both were followed.
    """
    scale, small = results.scale, min(results.scale.fractions)
    begun = results.begun(scale.budgets)
    columns = [(pool, small, test) for test, pool in product(TESTS, begun)]
    rows = by_method(results, columns)
    shown = {row[0] for row in rows}
    for names in GAINS:
        if shown.issuperset(TITLES[name] for name in names):
            rows.append(gains(results, columns, names))
    head = [f"{scale.pools[pool].epochs} epochs: {test}" for pool, _, test in columns]
    return markdown(["method", *head], rows)


def recipes(results: Results) -> str:
    """Each method with one choice changed at a time; the best on the validation set is bold, and
    compared with the best of another method.
    """
    column, sets = (results.scale.main, min(results.scale.fractions)), (VALIDATION, *TESTS)
    rows, best = [], {}
    for method, names in RECIPES.items():
        found = {name: [results.of(name, *column, one) for one in sets] for name in names}
        first = {
            name: [one.first(1) for one in line if one] for name, line in found.items() if all(line)
        }
        chosen = min(first, key=lambda name: first[name][0].error, default=None)
        for name, line in first.items():
            rows.append(
                [f"**{TITLES[name]}**" if name == chosen else TITLES[name], *map(cell, line)]
            )
        if chosen:
            best[method] = first[chosen]
    for ours, base in GAINS:
        if ours in best and base in best:
            title = f"{TITLES[ours]} over {TITLES[base]}, each at its best"
            rows.append([title, *map(versus, best[ours], best[base])])
    return markdown(["recipe, seed 0", *sets], rows)


def real(results: Results) -> str:
    """Encoders of synthetic footage and of real films, fine-tuned on synthetic and on real labels,
    on real images.
    """
    whole, rows = max(results.scale.fractions), []
    columns = list(product(LABELS, REAL_TESTS))
    for pool, method in product((results.scale.main, REAL), BY_LABELS):
        found = [results.of(method, pool, whole, test, labels) for labels, test in columns]
        if any(found) and (method != NONE or pool != REAL):
            films = "" if method == NONE else "real" if pool == REAL else "synthetic"
            rows.append([TITLES[method], films, *map(cell, found)])
    head = [f"{labels} labels: {test}" for labels, test in columns]
    return markdown(["method", "films", *head], rows)


def processors(results: Results) -> str:
    """What each seed was measured on."""
    seeds = sorted(results.processors().items())
    return markdown(
        ["seed", "processor"], ([str(seed), "; ".join(sorted(on))] for seed, on in seeds)
    )


def mean_pose(results: Results, column: Column) -> str:
    """The error of the mean pose, which is the same of every method."""
    for method in SHOWN:
        if result := results.of(method, *column):
            return f"{result.mean_pose:.1f}"
    return ""


def table_2(results: Results) -> str:
    """Method by size of the pool, in as many steps."""
    return by_pool(results, results.begun(results.scale.equal_steps))


def table_2_epochs(results: Results) -> str:
    """Method by size of the pool, in as many epochs."""
    return by_pool(results, results.begun(results.scale.equal_epochs))


def by_pool(results: Results, pools: Iterable[str]) -> str:
    """Method by pool, few labels, both test sets; of a method the same seeds in every column."""
    columns = [(pool, min(results.scale.fractions), test) for test, pool in product(TESTS, pools)]
    rows = by_method(results, columns)
    rows += [gains(results, columns, names) for names in list(GAINS)[:2]]
    head = [f"{described(results.scale, pool)}: {test}" for pool, _, test in columns]
    return markdown(["method", *head], rows)


def figure_2(results: Results, test: str = TESTS[0]) -> str:
    """Method by share of the labels on a test set; of a method the same seeds in every column."""
    scale, fractions = results.scale, sorted(results.scale.fractions)
    columns = [(scale.main, fraction, test) for fraction in fractions]
    rows = by_method(results, columns)
    rows += [gains(results, columns, names) for names in GAINS]
    if test == TESTS[0]:
        fewest, most = PUBLISHED_FRACTIONS
        rows.append(["HandCLR over PeCLR in the paper", fewest, *[""] * (len(columns) - 2), most])
    head = [f"{fraction:.0%} of {scale.labels:,} labels" for fraction in fractions]
    return markdown(["method", *head], rows)


def why(results: Results) -> str:
    """What each choice of the recipes brings."""
    return compared(results, EXPLAINED)


def beyond(results: Results) -> str:
    """What is tried against HandCLR under the same budget."""
    variants = [name for name in METHODS if name.startswith("soft-")]
    return compared(results, [("soft", "handclr"), *((name, "soft") for name in variants)])


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


def gains(results: Results, columns: Sequence[Column], names: tuple[str, str]) -> list[str]:
    """What a method has over another one in each column."""
    both = (results.across(method, columns) for method in names)
    title = " over ".join(TITLES[name] for name in names)
    return [title, *(versus(*pair) if all(pair) else "" for pair in zip(*both, strict=True))]


def by_method(results: Results, columns: Sequence[Column]) -> list[list[str]]:
    """The methods that were fine-tuned more than once."""
    rows = []
    for method in SHOWN:
        found = results.across(method, columns)
        if len({column[:2] for column, result in zip(columns, found, strict=True) if result}) > 1:
            rows.append([TITLES[method], *map(cell, found)])
    return rows


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


TABLES = {
    "table 1": table_1,
    "budgets": budgets,
    "recipes": recipes,
    "why": why,
    "table 2": table_2,
    "table 2, epochs": table_2_epochs,
    "figure 2": figure_2,
    "figure 2, wild": partial(figure_2, test=TESTS[1]),
    "real": real,
    "beyond": beyond,
    "processors": processors,
}


if __name__ == "__main__":
    main()
