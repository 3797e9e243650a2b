"""The augmentation as the published code of PeCLR and SiMHand has it, quirks included.

Keypoints are taken for OpenCV's coordinates (pixel centres at whole numbers) while the picture
turns, the crop moves right and down only and is cut at the picture's border, the jitter is recorded
in pixels of the crop before its resize but divided by the size after it, and hue and saturation
only shrink, in the HSV of swapped channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .augmentation import Image

ROTATION_DEG = 45.0
MARGIN = 1.25
MARGIN_RANGE = (0.9, 1.5)
JITTER_PX = 15
HUE_RANGE = (0.01, 1.0)
SATURATION_RANGE = (0.01, 1.0)
VALUE_RANGE = (0.5, 1.0)
VALUE_OFFSET_RANGE = (5.0, 20.0)


class PublishedView(NamedTuple):
    """A view and what was recorded of its geometry.

    image (size, size, 3) uint8 RGB; keypoints2d (21, 2) float32, px of the view. angle_deg, a whole
    number in the sense of `augmentation.View` (OpenCV's, negated), and translation (x, y), the
    recorded jitter over size, are such that `losses.undo_geometry` in units of "extent" undoes what
    the published code undoes.
    """

    image: Image
    keypoints2d: npt.NDArray[np.float32]
    angle_deg: float
    translation: tuple[float, float]


def published_view(
    image: Image,
    keypoints2d: npt.NDArray[np.floating],
    size: int,
    rng: np.random.Generator,
    geometric: bool = True,
) -> PublishedView:
    """Draw and make a view: rotate about the hand, crop around it, resize, change the colours.

    image (S, S, 3) uint8 RGB; keypoints2d (21, 2) in its px. Always takes the same number of values
    from `rng`. `geometric=False` (SimCLR): no rotation and the fixed margin.
    """
    u = [float(value) for value in rng.uniform(size=8)]
    points = np.asarray(keypoints2d, dtype=np.float64)
    angle, margin, jitter = 0, MARGIN, (int(JITTER_PX * u[2]), int(JITTER_PX * u[3]))
    if geometric:
        angle = math.floor(_between((-ROTATION_DEG, ROTATION_DEG), u[0]))
        margin = _between(MARGIN_RANGE, u[1])
        image, points = _rotate(image, points, angle)
    centre = _centre(points)
    half = int(np.hypot(*(points - centre).T).max() * margin)
    (left, width), (top, height) = (
        _span(at - half + shift, 2 * half, side)
        for at, shift, side in zip(centre, jitter, (image.shape[1], image.shape[0]), strict=True)
    )
    crop = image[top : top + height, left : left + width]
    view = np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    moved = (points - (left, top)) * (size / width, size / height)
    # Recorded: how far the hand moved, in px before the resize; without a clamp, the jitter
    # negated.
    translation = ((centre[0] - half - left) / size, (centre[1] - half - top) / size)
    return PublishedView(
        _jitter_colour(view, u[4:]), moved.astype(np.float32), float(-angle), translation
    )


def _between(bounds: tuple[float, float], u: float) -> float:
    """Map u in [0, 1] onto a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _centre(points: npt.NDArray[np.float64]) -> tuple[int, int]:
    x, y = points.mean(axis=0).tolist()
    return int(x), int(y)


def _rotate(
    image: Image, points: npt.NDArray[np.float64], angle: int
) -> tuple[Image, npt.NDArray[np.float64]]:
    """Turn picture and points anticlockwise about the points' whole centre, on the same canvas."""
    matrix = np.asarray(cv2.getRotationMatrix2D(_centre(points), angle, 1.0))
    turned = np.asarray(
        cv2.warpAffine(image, matrix, (image.shape[1], image.shape[0])), dtype=np.uint8
    )
    return turned, points @ matrix[:, :2].T + matrix[:, 2]


def _span(start: int, length: int, side: int) -> tuple[int, int]:
    """Start and length in a picture of `side` px of a box's side: moved to start at 0 at least,
    then cut.
    """
    start = max(start, 0)
    # The published code fails on an empty box. Here it has at least one pixel, and one beyond the
    # picture's right or bottom border moves back to where it just fits.
    length = max(length, 1)
    if start >= side:
        start = max(side - length, 0)
    return start, min(length, side - start)


def _jitter_colour(image: Image, u: list[float]) -> Image:
    # The channels are taken for BGR on the way in and out, so that red and blue swap their hues
    # only.
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float64)
    hsv *= (
        _between(HUE_RANGE, u[0]),
        _between(SATURATION_RANGE, u[1]),
        _between(VALUE_RANGE, u[2]),
    )
    hsv[..., 2] += _between(VALUE_OFFSET_RANGE, u[3])
    # No factor is above 1, so the hue stays below OpenCV's 180.
    return np.asarray(
        cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR), dtype=np.uint8
    )
