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
    angle, margin = 0, MARGIN
    if geometric:
        angle = math.floor(_between((-ROTATION_DEG, ROTATION_DEG), u[0]))
        margin = _between(MARGIN_RANGE, u[1])
        image, points = _rotate(image, points, angle)
    x, y = _centre(points)
    half = int(np.hypot(*(points - (x, y)).T).max() * margin)
    left, width = _span(x - half + int(JITTER_PX * u[2]), 2 * half, image.shape[1])
    top, height = _span(y - half + int(JITTER_PX * u[3]), 2 * half, image.shape[0])
    view = _resized(image[top : top + height, left : left + width], size)
    moved = ((points - (left, top)) * (size / width, size / height)).astype(np.float32)
    # How far the hand moved, in px before the resize: the jitter negated, unless it was clamped.
    translation = ((x - half - left) / size, (y - half - top) / size)
    return PublishedView(_jitter_colour(view, u[4:]), moved, float(-angle), translation)


def _between(bounds: tuple[float, float], u: float) -> float:
    """Map u in [0, 1] onto a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _resized(image: Image, size: int) -> Image:
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def _centre(points: npt.NDArray[np.float64]) -> tuple[int, int]:
    x, y = points.mean(axis=0).tolist()
    return int(x), int(y)


def _rotate(
    image: Image, points: npt.NDArray[np.float64], angle: int
) -> tuple[Image, npt.NDArray[np.float64]]:
    """Turn image and points anticlockwise about the points' rounded centre, on the same canvas."""
    matrix = np.asarray(cv2.getRotationMatrix2D(_centre(points), angle, 1.0))
    turned = cv2.warpAffine(image, matrix, (image.shape[1], image.shape[0]))
    return np.asarray(turned, dtype=np.uint8), points @ matrix[:, :2].T + matrix[:, 2]


def _span(start: int, length: int, side: int) -> tuple[int, int]:
    """Where a side of a box lies in an image of `side` px: its start and length.

    A start below 0 is moved to 0, and the box is then cut at the border.
    """
    start = max(start, 0)
    # The published code fails on an empty box. Here a box has at least one pixel, and one that lies
    # beyond the right or bottom border is moved back to where it just fits.
    length = max(length, 1)
    if start >= side:
        start = max(side - length, 0)
    return start, min(length, side - start)


def _jitter_colour(image: Image, u: list[float]) -> Image:
    # The channels are taken for BGR on the way in and out: red and blue swap their hues only.
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV).astype(np.float64)
    hue, saturation = _between(HUE_RANGE, u[0]), _between(SATURATION_RANGE, u[1])
    hsv *= (hue, saturation, _between(VALUE_RANGE, u[2]))
    hsv[..., 2] += _between(VALUE_OFFSET_RANGE, u[3])
    # No factor is above 1, so the hue stays below OpenCV's 180.
    changed = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)
    return np.asarray(changed, dtype=np.uint8)
