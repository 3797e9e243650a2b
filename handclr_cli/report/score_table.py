"""The reports of an evaluation as tables on standard output, for people."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from ..console import printable

_AREAS = ("0-50mm", "20-50mm")
# The lines that any terminal and any page shows whole; not this terminal's own, for the same bytes.
_WIDTH = 80
_GAP = "  "
# Hundredths of a millimetre say nothing beside a metre, and take the room of an interval.
_METRE_MM = 1000.0
_BLOCKS = {"model": "model", "mean_pose_of_training_set": "mean pose of the training set"}


def print_scores(report: dict[str, Any]) -> None:
    """Print what `evaluation.run_evaluate` reports.

    The metrics, then the scores by the protocols of data sets.
    """
    _print_text(f"{report['samples']:,} crops ({report['crop']})")
    for name, block in _BLOCKS.items():
        if name in report:
            print()
            _print_metrics(block, report[name])
    print()
    interval = report["interval"]
    _print_text(f"Intervals by {interval['units']:,} of '{interval['unit']}'.")
    _print_text(f"Scale: {report['scale']}.")
    if found := report.get("hands_found"):
        others = found["others"]
        _print_text(f"Hands found in {found['samples']:,} of {report['samples']:,}; {others}.")
    if depth := report.get("depth_sigma"):
        _print_text(_depth(depth))
    for name, scores in report.get("official", {}).items():
        print()
        _print_rows([f"{name} protocol", "value"], _flat(scores))
        _print_text(report["official_definitions"][name])


def _print_metrics(block: str, table: dict[str, Any]) -> None:
    rows = []
    for alignment, row in table.items():
        cells = [_with_interval_mm(row["mpjpe_mm"], row["mpjpe_mm_interval"])]
        for name in _AREAS:
            cells.append(with_interval(row["pck_auc"][name], row["pck_auc_interval"][name], 3))
        rows.append([_in_lines(alignment), *cells])
    areas = [f"AUC {name.removesuffix('mm')} mm [95 %]" for name in _AREAS]
    _print_text(f"{block}:")
    _print_rows(["alignment", "MPJPE mm [95 %]", *areas], rows)


def _depth(spread: dict[str, Any]) -> str:
    if spread["median_mm"] is None:
        return "Depth: no hand fits a place before the camera."
    within = f"the true distance of {spread['wrists_within']:.0%} of the wrists is within theirs"
    return f"Depth: standard deviation {spread['median_mm']:.1f} mm (median); {within}."


def print_comparison(report: dict[str, Any]) -> None:
    """Print what `evaluation.run_compare` reports."""
    _print_text(f"{report['samples']:,} crops")
    for which in "ab":
        _print_text(f"{which}: {report[which]}")
    print()
    rows = []
    for alignment, row in report["comparison"].items():
        difference = _with_interval_mm(row["b_minus_a_mm"], row["b_minus_a_interval"])
        both = [_with_interval_mm(row[f"{which}_mpjpe_mm"], None) for which in "ab"]
        share = row["resamples_with_b_better"]
        better = "" if share is None else f"{share:.1%}"
        rows.append([_in_lines(alignment), *both, difference, better])
    _print_rows(["alignment", "a MPJPE mm", "b MPJPE mm", "b - a [95 %]", "b better"], rows)
    print()
    how = f"Intervals by {report['interval']['units']:,} units, resampled together"
    _print_text(f"{how}; b better: in how many of the resamples.")


def with_interval(value: float, interval: list[float] | None, digits: int) -> str:
    """`12.34 [12.01, 12.70]`; without the brackets where there is no interval."""
    ends = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{value:.{digits}f}{ends}"


def _with_interval_mm(value: float, interval: list[float] | None) -> str:
    ends = (value, *(interval or ()))
    return with_interval(value, interval, 2 if max(map(abs, ends)) < _METRE_MM else 0)


def _in_lines(alignment: str) -> str:
    """The name of an alignment, the longest one in two lines."""
    return alignment.replace("procrustes+", "procrustes\n+")


def _flat(scores: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, value in scores.items():
        inner = value if isinstance(value, dict) else {"": value}
        for part, one in inner.items():
            rows.append([f"{name} {part}".strip(), "none" if one is None else f"{one:.4f}"])
    return rows


def _print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below headings, the first column to the left; a cell may have several lines."""
    lines = [headings, *itertools.chain.from_iterable(map(_lines, rows))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for first, *others in lines:
        cells = [first.ljust(widths[0])]
        for cell, width in zip(others, widths[1:], strict=True):
            cells.append(cell.rjust(width))
        print(_GAP.join(cells).rstrip())


def _lines(row: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return itertools.zip_longest(*(cell.splitlines() for cell in row), fillvalue="")


def _print_text(text: str) -> None:
    """Print a text, which may hold names of fields and files, in lines that are not too long."""
    print(textwrap.fill(printable(text), _WIDTH, break_long_words=False, break_on_hyphens=False))
