"""Bootstrap intervals of the metrics: how much they vary with the choice of test samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..hand.alignment import Alignment, joint_means, mean_over_joints
from .metrics import AUC_RANGES, DEFINITIONS, area_shares, summarise_errors

RESAMPLES = 1000
PERCENTILES = (2.5, 97.5)
DEFINITION = (
    f"95 % percentile bootstrap, {RESAMPLES:,} resamples: units are drawn with replacement, "
    "as many as there are, each with all its samples. It says how far the number would move "
    "with other test samples of the same kind, and nothing of the spread over training runs."
)
# Draws held at once: 32 MB of them.
_DRAWS = 1 << 22


class Paired(NamedTuple):
    """The means of a and b, and their difference b - a with its 95 % interval.

    `b_better` is the share of resamples in which b's error is less.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    b_better: float


def resampled_means(
    values: np.ndarray,
    valid: np.ndarray,
    units: np.ndarray,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """The mean of joints over samples, then over joints, in bootstrap draws of the units.

    values (N, 21, ...), valid bool (N, 21), units (N,): samples of equal `units` are drawn
    together. Out (resamples, ...) float64, a mean for each of `resamples` draws, the same for the
    same seed. A joint of which a draw has no label is left out of it.
    """
    sums, counts = _by_unit(values, valid, units)
    number, shape = len(sums), values.shape[1:]
    columns, rng, parts = sums.reshape(number, -1), np.random.default_rng(seed), []
    step = max(1, _DRAWS // number)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * number).astype(np.float64)
        times = times.reshape(rows, number)
        total = (times @ columns).reshape(rows, *shape)
        seen = (times @ counts).reshape(rows, shape[0], *(1,) * (len(shape) - 1))
        with np.errstate(invalid="ignore"):
            parts.append(mean_over_joints(total / seen, axis=1))
    return np.concatenate(parts)


def pose_table(
    errors: Mapping[Alignment, np.ndarray], valid: np.ndarray, units: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """`metrics.summarise_errors` with the 95 % interval of each mean and area.

    Takes errors (N, 21) mm after each alignment. Adds `mpjpe_mm_interval` [low, high] and
    `pck_auc_interval` to each alignment; None with fewer than two units.
    """
    table = summarise_errors(errors, valid)
    values: list[np.ndarray] = []
    for each in errors.values():
        values += _measures(each)
    means = resampled_means(np.stack(values, axis=-1), valid, units, seed)
    alone = len(np.unique(units)) < 2
    # Of each alignment and measure the two ends, (A, M, 2).
    ends = np.stack(np.percentile(means, PERCENTILES, axis=0), axis=-1)
    ends = ends.reshape(len(errors), -1, len(PERCENTILES))
    for block, (of_mpjpe, *of_areas) in zip(table.values(), ends.tolist(), strict=True):
        block["mpjpe_mm_interval"] = None if alone else of_mpjpe
        block["pck_auc_interval"] = {}
        for name, interval in zip(AUC_RANGES, of_areas, strict=True):
            block["pck_auc_interval"][f"{name}mm"] = None if alone else interval
    return table


def paired(
    a_mm: np.ndarray, b_mm: np.ndarray, valid: np.ndarray, units: np.ndarray, seed: int = 0
) -> Paired:
    """Compare two sets of errors (N, 21) mm of the same samples; both are resampled together."""
    a, b = (float(mean_over_joints(joint_means(errors, valid))) for errors in (a_mm, b_mm))
    differences = resampled_means(b_mm - a_mm, valid, units, seed)
    low, high = np.percentile(differences, PERCENTILES).tolist()
    return Paired(a, b, b - a, low, high, float((differences < 0).mean()))


def paired_table(
    a: Mapping[Alignment, np.ndarray],
    b: Mapping[Alignment, np.ndarray],
    valid: np.ndarray,
    units: np.ndarray,
    seed: int = 0,
) -> dict[str, Any]:
    """`paired` after each alignment that both have, ready for JSON; of a single unit, without what
    is told by drawing units anew.
    """
    table: dict[str, Any] = {}
    alone = len(np.unique(units)) < 2
    for name in a:
        if name not in b:
            continue
        found = paired(a[name], b[name], valid, units, seed)
        table[name] = {
            "a_mpjpe_mm": found.a,
            "b_mpjpe_mm": found.b,
            "b_minus_a_mm": found.difference,
            "b_minus_a_interval": None if alone else [found.low, found.high],
            "resamples_with_b_better": None if alone else found.b_better,
            "definition": DEFINITIONS[name],
        }
    return table


def _measures(errors: np.ndarray) -> list[np.ndarray]:
    """What is averaged: the errors, and what each adds to the areas."""
    return [errors, *(area_shares(errors, *limits) for limits in AUC_RANGES.values())]


def _by_unit(
    values: np.ndarray, valid: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums (U, 21, ...) and counts (U, 21) of the labelled joints of each unit."""
    number = np.unique(units, return_inverse=True)[1].reshape(-1)
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(number.max() + 1))
    mask = valid.reshape(*valid.shape, *(1,) * (values.ndim - 2))
    sums = np.add.reduceat(np.asarray(values * mask, np.float64)[order], starts, axis=0)
    return sums, np.add.reduceat(valid.astype(np.float64)[order], starts, axis=0)
