"""Whether imported labels agree: with the data set's own 2D labels, with the image, with the size
of a hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.sample import Sample
from .labelled import Made


class Check:
    """Gathers what was measured of the hands made of `rows` items, and keeps up to `tiles` of them,
    evenly spread.
    """

    def __init__(self, rows: int, tiles: int) -> None:
        self.samples: list[Sample] = []
        self._wanted = np.linspace(0, rows, tiles, endpoint=False).tolist()
        self._bones: list[float] = []
        self._inside = np.zeros(2, np.int64)
        self._errors: list[np.ndarray] = []

    def add(self, row: int, made: Made) -> None:
        """Take in what became of an item; rows come in order."""
        if made.measured is None or made.sample is None:
            return
        self._bones.append(made.measured.bone_mm)
        self._inside += [made.measured.inside.sum(), made.measured.inside.size]
        self._errors.append(made.measured.error_px.astype(np.float32))
        if self._wanted and row >= self._wanted[0]:
            self._wanted = [place for place in self._wanted if place > row]
            self.samples.append(made.sample)

    def report(self) -> dict[str, Any]:
        """The numbers, ready for JSON; None where there is nothing to measure them by.

        `hands` measured; `reference_bone_mm` from wrist to middle knuckle; `joints_inside`, the
        share of valid joints whose projection is inside the image; `projection_error_px`, of the 3D
        labels from the set's own 2D labels.
        """
        errors = np.concatenate(self._errors) if self._errors else np.empty(0)
        return {
            "hands": len(self._bones),
            "reference_bone_mm": _spread(
                np.array(self._bones), {"min": 0, "median": 50, "max": 100}
            ),
            "joints_inside": float(self._inside[0] / self._inside[1]) if self._inside[1] else None,
            "projection_error_px": _spread(errors, {"median": 50, "p95": 95, "max": 100}),
        }


def _spread(values: np.ndarray, percentiles: dict[str, int]) -> dict[str, float] | None:
    if not values.size:
        return None
    return {
        name: float(np.percentile(values, percentile)) for name, percentile in percentiles.items()
    }
