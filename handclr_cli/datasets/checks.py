"""Checks of imported labels: by the set's own 2D labels, by the image, by the size of a hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import JOINT_COUNT
from ..contract.sample import Sample
from ..hand.plausible import wrong_unit
from .labelled import CheckedHand, LabelledHand, LabelledSet, Made

# So many hands, evenly spread, tell the unit of all labels.
_FOR_UNIT = 32


def check_unit(data: LabelledSet, root: str) -> None:
    """Raise HandclrError where the labels of a data set are in another unit than is its own."""
    hands, valid = [], []
    for number in np.linspace(0, len(data), min(len(data), _FOR_UNIT), endpoint=False).astype(int):
        hand = data[int(number)]
        if isinstance(hand, LabelledHand):
            hands.append(hand.keypoints3d)
            valid.append(np.ones(JOINT_COUNT, bool) if hand.valid is None else hand.valid)
    if hands and (wrong := wrong_unit(np.stack(hands), np.stack(valid))):
        raise HandclrError(f"{root}: labels of another unit than the data set's: {wrong}")


class Check:
    """Gathers what was measured of the hands made of `rows` items, and some of their samples.

    Up to `tiles` samples are kept, evenly spread.
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
        bones = np.array(self._bones)
        errors = np.concatenate(self._errors) if self._errors else np.empty(0)
        return {
            "hands": len(bones),
            "reference_bone_mm": _spread(bones, {"min": 0, "median": 50, "max": 100}),
            "joints_inside": float(self._inside[0] / self._inside[1]) if self._inside[1] else None,
            "projection_error_px": _spread(errors, {"median": 50, "p95": 95, "max": 100}),
        }


class KeypointCheck:
    """Gathers where Hand100M's keypoints of `rows` items are, and some of the samples.

    Up to `tiles` samples are kept, evenly spread.
    """

    def __init__(self, rows: int, tiles: int) -> None:
        self.samples: list[Sample] = []
        self._step = max(1, rows // tiles)
        self._tiles, self._next, self._hands = tiles, 0, 0
        self._inside = self._boxed = 0

    def add(self, row: int, made: Made) -> None:
        """Take in what became of an item; rows come in order."""
        if not isinstance(made, CheckedHand) or made.sample is None:
            return
        self._hands += 1
        self._inside += made.inside
        self._boxed += made.boxed
        if row >= self._next and len(self.samples) < self._tiles:
            self._next = row - row % self._step + self._step
            self.samples.append(made.sample)

    def report(self) -> dict[str, Any]:
        """`hands`, and the shares of keypoints inside the image and inside the annotated box.

        The shares are None where there are no hands.
        """
        joints = JOINT_COUNT * self._hands
        return {
            "hands": self._hands,
            "keypoints_inside": self._inside / joints if joints else None,
            "keypoints_in_box": self._boxed / joints if joints else None,
        }


def agreement(found: dict[str, Any]) -> str:
    """The numbers of a check, this one's or Hand100M's, in words."""
    if not found["hands"]:
        return "nothing to check"
    if "keypoints_in_box" in found:
        in_box, inside = found["keypoints_in_box"], found["keypoints_inside"]
        return (
            f"{in_box:.2%} of the keypoints inside the annotated box, {inside:.2%} inside the image"
        )
    bone, inside = found["reference_bone_mm"], found["joints_inside"]
    error = found["projection_error_px"]
    from_own = "no 2D labels of the set's own to compare with"
    if error:
        from_own = (
            f"{error['median']:.2f} px from the set's own 2D labels "
            f"(95 %: {error['p95']:.2f}, max {error['max']:.2f})"
        )
    return (
        f"reference bone {bone['min']:.1f} to {bone['max']:.1f} mm, median {bone['median']:.1f}; "
        f"{inside:.2%} of the joints inside the image; {from_own}"
    )


def _spread(values: np.ndarray, percentiles: dict[str, int]) -> dict[str, float] | None:
    if not values.size:
        return None
    return {name: float(np.percentile(values, at)) for name, at in percentiles.items()}
