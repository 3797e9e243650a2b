"""2D poses as the 42-vectors that are compared: normalised keypoints (paper, Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .joints import MIDDLE_MCP, WRIST

COORDINATES = 42


def _crop(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return points / size[:, None, None]


def _root(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return _crop(points - points[:, WRIST : WRIST + 1], size)


def _root_scale(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    rooted = points - points[:, WRIST : WRIST + 1]
    palm = np.linalg.norm(rooted[:, MIDDLE_MCP], axis=-1)
    return rooted / np.maximum(palm, 1e-6 * size)[:, None, None]


def _box(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    side = (high - low).max(axis=2, keepdims=True)
    return (points - (low + high) / 2) / np.maximum(side, 1e-6 * size[:, None, None])


NORMALISATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "crop": _crop,
    "root": _root,
    "root-scale": _root_scale,
    "box": _box,
}


def pose_vectors(
    keypoints: np.ndarray, sizes: np.ndarray, normalisation: str = "crop"
) -> np.ndarray:
    """Normalise keypoints (N, 21, 2) of crops with sides (N,), both in pixels, to float64 (N, 42).

    crop: shares of the crop's side, as in the paper. root: the same, relative to the wrist.
    root-scale: relative to the wrist, over the distance from wrist to middle MCP. box: centred in
    and over the longer side of the keypoints' bounding box.
    """
    points, sides = np.asarray(keypoints, np.float64), np.asarray(sizes, np.float64)
    return NORMALISATIONS[normalisation](points, sides).reshape(-1, COORDINATES)
