"""Pinhole cameras: projection, and the camera of a crop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def project(keypoints3d: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Project camera-frame points (..., 3) in metres to pixels (..., 2).

    `intrinsics` is the camera matrix (3, 3), or (N, 3, 3) of as many hands (N, K, 3).
    """
    homogeneous = keypoints3d @ np.swapaxes(intrinsics, -1, -2)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def crop_camera(
    intrinsics: np.ndarray, box: Sequence[float], size: int, flip: bool = False
) -> np.ndarray:
    """The camera matrix of a square crop of an image, (3, 3) float64.

    Image and crop are in pixels with centres at .5. `box` is x0, y0, x1, y1 in the image, `size`
    the side of the crop. A mirrored crop (`flip`) is an image of the mirrored scene: x of its
    camera frame is that of the source with the other sign.
    """
    scale = size / (box[2] - box[0])
    x, y = -box[0] * scale, -box[1] * scale
    camera = np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]]) @ intrinsics
    if not flip:
        return camera
    mirrored_crop = np.array([[-1.0, 0, size], [0, 1, 0], [0, 0, 1]])
    return mirrored_crop @ camera @ np.diag([-1.0, 1.0, 1.0])


def source_camera(
    intrinsics: np.ndarray, box: Sequence[float], size: int, flip: bool = False
) -> np.ndarray:
    """The camera matrix of the image that a crop was cut from, (3, 3) float64.

    It undoes `crop_camera`: `intrinsics` is the camera matrix of the crop, the rest is as there.
    """
    turn = np.diag([-1.0 if flip else 1.0, 1.0, 1.0])
    pixels = crop_camera(np.eye(3), box, size, flip) @ turn
    return np.linalg.inv(pixels) @ intrinsics @ turn


def assumed_camera(width: int, height: int, fov_deg: float) -> np.ndarray:
    """The camera matrix of an image of which only the size is known, (3, 3) float64 pixels.

    The optical axis goes through the middle; `fov_deg` is the angle of view across the longer side.
    """
    focal = max(width, height) / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def crop_turns(cameras: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) from the axes of cameras to those of their crops' own cameras.

    A crop's own camera stands in the same place and looks through the middle of the crop, turned by
    the least angle: what a crop shows says nothing of where in the picture it was cut. `cameras`
    (N, 3, 3) and `sides` (N,) are in pixels of the crops; of a camera that is NaN, the crop's is
    taken to be its own.

    >>> import numpy as np, handclr_cli as handclr
    >>> camera = np.array([[[300.0, 0, -100], [0, 300, 112], [0, 0, 1]]])
    >>> turn = handclr.crop_turns(camera, np.array([224.0]))[0]
    >>> ahead = camera[0] @ turn.T @ [0, 0, 1]
    >>> (ahead[:2] / ahead[2]).round(6).tolist()
    [112.0, 112.0]
    """
    middles = np.column_stack([sides / 2, sides / 2, np.ones(len(sides))])
    turns = np.tile(np.eye(3), (len(sides), 1, 1))
    known = np.isfinite(cameras).all(axis=(1, 2))
    rays = np.linalg.solve(cameras[known], middles[known, :, None])[..., 0]
    x, y, z = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).T
    # Rodrigues' formula, about the axis at right angles to the optical axis and the ray.
    part = 1 / (1 + z)
    turns[known] = np.array(
        [[1 - part * x * x, -part * x * y, -x], [-part * x * y, 1 - part * y * y, -y], [x, y, z]]
    ).transpose(2, 0, 1)
    return turns


def to_source_axes(points: np.ndarray, cameras: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Points (N, K, 3) along the axes of crops' own cameras, turned to those of their `cameras`.

    `cameras` and `sides` are as of `crop_turns`.
    """
    return turned(points, np.swapaxes(crop_turns(cameras, sides), 1, 2))


def turned(points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Points (N, K, 3) turned by rotations (N, 3, 3)."""
    return points @ np.swapaxes(turns, -1, -2)
