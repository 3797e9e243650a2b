"""The reports of an evaluation as tables on standard output, for people."""

from __future__ import annotations

import sys
from typing import Any

from ..console import printable

_AREAS = ("0-50mm", "20-50mm")
_WIDTH = 132


def print_scores(report: dict[str, Any]) -> None:
    """Print what `evaluation.run_evaluate` reports.

    The metrics, then the scores by the protocols of data sets.
    """
    headings = ["", "alignment", "MPJPE mm [95 %]", "AUC 0-50 mm [95 %]", "AUC 20-50 mm [95 %]"]
    rows = []
    for who in ("model", "mean_pose_of_training_set"):
        for alignment, row in report.get(who, {}).items():
            cells = [with_interval(row["mpjpe_mm"], row["mpjpe_mm_interval"], 2)]
            for name in _AREAS:
                cells.append(with_interval(row["pck_auc"][name], row["pck_auc_interval"][name], 4))
            rows.append([who.replace("_", " "), alignment, *cells])
    interval = report["interval"]
    caption = (
        f"Intervals by {interval['units']:,} of '{interval['unit']}'. Scale: {report['scale']}."
    )
    _print_rows(f"{report['samples']:,} crops ({report['crop']})", headings, rows, caption)
    if found := report.get("hands_found"):
        print(f"Hands found in {found['samples']:,} of {report['samples']:,}; {found['others']}.")
    if depth := report.get("depth_sigma"):
        print(_depth(depth))
    for name, scores in report.get("official", {}).items():
        _print_rows(f"{name} protocol", ["", "value"], _flat(scores))
        print(report["official_definitions"][name])


def _depth(spread: dict[str, Any]) -> str:
    if spread["median_mm"] is None:
        return "Depth: no hand fits a place before the camera."
    within = f"the true distance of {spread['wrists_within']:.0%} of the wrists is within theirs"
    return f"Depth: standard deviation {spread['median_mm']:.1f} mm (median); {within}."


def print_comparison(report: dict[str, Any]) -> None:
    """Print what `evaluation.run_compare` reports."""
    headings = ["alignment", "a MPJPE mm", "b MPJPE mm", "b - a [95 %]", "resamples with b better"]
    rows = []
    for alignment, row in report["comparison"].items():
        difference = with_interval(row["b_minus_a_mm"], row["b_minus_a_interval"], 2)
        both = [f"{row['a_mpjpe_mm']:.2f}", f"{row['b_mpjpe_mm']:.2f}"]
        share = row["resamples_with_b_better"]
        rows.append([alignment, *both, difference, "" if share is None else f"{share:.1%}"])
    caption = f"Intervals by {report['interval']['units']:,} units, resampled together."
    title = f"{report['samples']:,} crops, a: {report['a']}, b: {report['b']}"
    _print_rows(title, headings, rows, caption)


def with_interval(value: float, interval: list[float] | None, digits: int) -> str:
    """`12.34 [12.01, 12.70]`; without the brackets where there is no interval."""
    ends = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{value:.{digits}f}{ends}"


def _flat(scores: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, value in scores.items():
        inner = value if isinstance(value, dict) else {"": value}
        for part, one in inner.items():
            rows.append([f"{name} {part}".strip(), "none" if one is None else f"{one:.4f}"])
    return rows


def _print_rows(
    title: str, headings: list[str], rows: list[list[str]], caption: str | None = None
) -> None:
    from rich.console import Console
    from rich.table import Table

    # Names of fields and files are no markup.
    table = Table(title=printable(title), caption=caption and printable(caption))
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("", "alignment") else "right")
    for row in rows:
        table.add_row(*map(printable, row))
    Console(file=sys.stdout, width=_WIDTH, markup=False, emoji=False).print(table)
