"""Keypoints found in the frame for some hands and in the crop for others; and the hands' shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from footage_crops import Crop, error
from footage_truth import TrueHand

from handclr_cli.hand.alignment import joint_errors_mm

APART = 0.05
Known = Sequence[tuple[TrueHand, Crop]]


def of_mixtures(known: Known, both: np.ndarray) -> dict[str, float]:
    """Mean errors where hands have the frame's keypoints, the crop's, or the mean of both.

    both: (N, 2), the errors of the frame's and of the crop's.
    """
    apart = np.array([crop.apart for _, crop in known]) > APART
    sides = np.array([crop.box[2] - crop.box[0] for _, crop in known])
    middles = [
        error((crop.in_source(crop.of_frame) + crop.in_source(crop.of_crop)) / 2, hand.keypoints)
        for hand, crop in known
    ]
    found = {"apart": float(apart.sum()), "middle": round(float(np.mean(middles)), 4)}
    chosen = {"of_crop_where_apart": apart, "of_crop_where_small": sides < np.median(sides)}
    for name, crops in chosen.items():
        found[name] = round(float(np.where(crops, both[:, 1], both[:, 0]).mean()), 4)
    return found


def of_shapes(known: Known) -> dict[str, float]:
    """Mean errors in mm of the shapes of hands that are taken for what they are, left or right."""
    right = [(hand, crop) for hand, crop in known if hand.side == crop.side]
    shapes, truths = (np.stack(hands) for hands in zip(*map(_shapes, right), strict=True))
    found = {"hands": float(len(right))}
    for alignment in ("root", "root+bone", "procrustes"):
        errors = joint_errors_mm(shapes, truths, alignment)  # type: ignore[arg-type]
        found[alignment] = round(float(errors.mean()), 2)
    return found


def _shapes(pair: tuple[TrueHand, Crop]) -> tuple[np.ndarray, np.ndarray]:
    hand, crop = pair
    return crop.shape.astype(np.float64), hand.joints
