"""Square crops of hands: where to cut, how to cut without stretching, and the way back to the source."""

from __future__ import annotations

import numpy as np

Box = tuple[int, int, int, int]


def square_box(points: np.ndarray, margin: float) -> Box:
    """The integer square of `margin` times the longer side of the points' bounding box, around its centre.

    points: (K, 2) pixels. Returns x0, y0, x1, y1 in pixels, which may reach beyond the image.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(2, round(float((high - low).max()) * margin))
    x0, y0 = (round(float(c)) for c in (low + high - side) / 2)
    return x0, y0, x0 + side, y0 + side


def cut(image: np.ndarray, box: Box, size: int, flip: bool) -> np.ndarray:
    """Cut a square out of an image, black where it reaches beyond, and resize it to (size, size, C).

    Never stretches; `flip` mirrors left and right after the cut.
    """
    import cv2

    x0, y0, x1, y1 = box
    height, width = image.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    inside = image[top : max(bottom, top), left : max(right, left)]
    if inside.shape[:2] != (y1 - y0, x1 - x0):
        square = np.zeros((y1 - y0, x1 - x0, *image.shape[2:]), image.dtype)
        if inside.size:
            square[top - y0 : bottom - y0, left - x0 : right - x0] = inside
        inside = square
    shrinks = inside.shape[0] > size
    crop = cv2.resize(inside, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(crop[:, ::-1]) if flip else crop


def to_crop(points: np.ndarray, box: Box, size: int, flip: bool) -> np.ndarray:
    """Map source pixels to crop pixels, (..., 2), as `cut` maps the image; pixel centres at .5."""
    scaled = (np.asarray(points, np.float64) - box[:2]) * (size / (box[2] - box[0]))
    if flip:
        scaled[..., 0] = size - scaled[..., 0]
    return scaled


def to_source(points: np.ndarray, box: Box, size: int, flip: bool) -> np.ndarray:
    """Map crop pixels back to source pixels, (..., 2): the inverse of `to_crop`."""
    mapped = np.array(points, np.float64)
    if flip:
        mapped[..., 0] = size - mapped[..., 0]
    return mapped * ((box[2] - box[0]) / size) + box[:2]
