"""Square crops of hands: where to cut, cutting without stretching, and points in both images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]


def square_box(points: np.ndarray, margin: float) -> Box:
    """The integer square around the centre of the points' bounding box.

    Its side is `margin` times the longer side of the bounding box. points: (K, 2) pixels. Returns
    x0, y0, x1, y1 in pixels, which may reach beyond the image.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(2, round(float((high - low).max()) * margin))
    x0, y0 = (round(float(c)) for c in (low + high - side) / 2)
    return x0, y0, x0 + side, y0 + side


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of the bounding boxes of two sets of points (K, 2).

    The points may be two corners. 0 of nothing.
    """
    common = _common_area(first, second)
    areas = float(np.prod(np.ptp(first, axis=0)) + np.prod(np.ptp(second, axis=0)))
    return common / (areas - common) if areas > common else 0.0


def shared(first: np.ndarray, second: np.ndarray) -> float:
    """How much of the smaller of two bounding boxes is in the other, 0 to 1; as for `overlap`."""
    smaller = float(min(np.prod(np.ptp(first, axis=0)), np.prod(np.ptp(second, axis=0))))
    return _common_area(first, second) / smaller if smaller > 0 else 0.0


def _common_area(first: np.ndarray, second: np.ndarray) -> float:
    low = np.maximum(first.min(axis=0), second.min(axis=0))
    high = np.minimum(first.max(axis=0), second.max(axis=0))
    return float(np.prod(np.maximum(high - low, 0)))


def box_overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    return overlap(np.reshape(first, (2, 2)), np.reshape(second, (2, 2)))


def cut(image: np.ndarray, box: Box, size: int, flip: bool) -> np.ndarray:
    """Cut a square out of an image and resize it to (size, size, C).

    It is black where it reaches beyond the image. Never stretches; `flip` mirrors left and right
    after the cut.
    """
    import cv2

    x0, y0, x1, _ = box
    side = x1 - x0
    # Halved by means of four pixels as often as possible, then interpolated: every pixel counts,
    # and OpenCV's means over areas of any other size take ten times as long.
    halvings = max((side // size).bit_length() - 1, 0)
    pixels = _square(image, x0, y0, -(-side >> halvings) << halvings)
    for _ in range(halvings):
        pixels = cv2.resize(pixels, (pixels.shape[1] // 2,) * 2, interpolation=cv2.INTER_AREA)
    if pixels.shape[0] << halvings == side:
        crop = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    else:
        step = side / (size << halvings)
        back = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(
            pixels, back, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE
        )
    return mirror(crop) if flip else crop


def mirror(image: np.ndarray) -> np.ndarray:
    """The mirror image, left and right exchanged; (H, W, C)."""
    import cv2

    return cv2.flip(image, 1)


def _square(image: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    """The pixels of a square, black beyond the image."""
    height, width = image.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x0 + side, width), min(y0 + side, height)
    inside = image[top : max(bottom, top), left : max(right, left)]
    if inside.shape[:2] == (side, side):
        return inside
    square = np.zeros((side, side, *image.shape[2:]), image.dtype)
    if inside.size:
        square[top - y0 : bottom - y0, left - x0 : right - x0] = inside
    return square


def to_crop(points: np.ndarray, box: Sequence[float], size: int, flip: bool) -> np.ndarray:
    """Map source pixels to crop pixels, (..., 2), as `cut` maps the image; pixel centres at .5."""
    scaled = (np.asarray(points, np.float64) - box[:2]) * (size / (box[2] - box[0]))
    if flip:
        scaled[..., 0] = size - scaled[..., 0]
    return scaled


def to_source(points: np.ndarray, box: Sequence[float], size: int, flip: bool) -> np.ndarray:
    """Map crop pixels back to source pixels, (..., 2): the inverse of `to_crop`."""
    mapped = np.array(points, np.float64)
    if flip:
        mapped[..., 0] = size - mapped[..., 0]
    return mapped * ((box[2] - box[0]) / size) + box[:2]
