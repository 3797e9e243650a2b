"""Pinhole cameras: projection, the camera of a crop, and where a hand of known size is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Relative singular value below which all rays of a hand count as one: that of a hand one pixel wide
# in an image a million pixels wide.
_ONE_POINT = 1e-7


def project(keypoints3d: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Project camera-frame points (..., 3) in metres to pixels (..., 2).

    `intrinsics` is the (3, 3) camera matrix.
    """
    homogeneous = keypoints3d @ intrinsics.T
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


def assumed_camera(width: int, height: int, fov_deg: float) -> np.ndarray:
    """The camera matrix of an image of which only the size is known, (3, 3) float64 pixels.

    The optical axis goes through the middle; `fov_deg` is the angle of view across the longer side.
    """
    focal = max(width, height) / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def place(keypoints3d: np.ndarray, keypoints2d: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Find the translations of hands to where they are seen in the image, float64 (N, 3) metres.

    keypoints3d (N, J, 3) metres, oriented as in the camera frame; keypoints2d (N, J, 2) pixels;
    intrinsics (N, 3, 3). Linear least squares of x + t_x = a (z + t_z), y + t_y = b (z + t_z) over
    the joints, (a, b, 1) their rays: the size of the hand determines its distance. Where all joints
    are seen in one point, the distance is unknown, and the shortest translation that fits is given.
    """
    pixels = np.concatenate([keypoints2d, np.ones_like(keypoints2d[..., :1])], axis=-1)
    pixels = pixels.astype(np.float64)
    rays = pixels @ np.swapaxes(np.linalg.inv(np.asarray(intrinsics, np.float64)), -1, -2)
    slopes = rays[..., :2] / rays[..., 2:]
    points = np.asarray(keypoints3d, np.float64)
    ones, zeros = np.ones_like(slopes[..., 0]), np.zeros_like(slopes[..., 0])
    of_x = np.stack([ones, zeros, -slopes[..., 0]], -1)
    of_y = np.stack([zeros, ones, -slopes[..., 1]], -1)
    matrix = np.concatenate([of_x, of_y], axis=-2)
    seen = slopes * points[..., 2:] - points[..., :2]
    right = np.concatenate([seen[..., 0], seen[..., 1]], axis=-1)
    return (np.linalg.pinv(matrix, rcond=_ONE_POINT) @ right[..., None])[..., 0]
