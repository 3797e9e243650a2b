"""Where a hand of known size is: total least squares, with the spread of the depth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Errors to expect of predictions: of a 2D keypoint in sides of the crop, of a 3D one in metres
# along each axis. The middle of what is seen, 2 to 10 of 224 pixels and 4 to 12 mm.
NOISE_2D, NOISE_3D = 6 / 224, 0.008
# Neighbouring joints err alike, so that the depth varies by so much more than if each erred alone.
# tests/benchmarks/placement.py measures this number and the two above.
_TOGETHER = 2.2
# Relative spread below which all rays of a hand count as one: that of a hand one pixel wide in an
# image a million pixels wide.
_ONE_POINT = 1e-7
# Share of the rays' spread that is left where all of it may be noise, which would put the hand at
# infinity.
_LEAST_SHARE = 1e-9


class Translation(NamedTuple):
    """Where hands are, float64 metres.

    `move` (N, 3) is what to add to their joints; `depth_sigma` (N,) is the standard deviation of
    its z, infinite where nothing tells the distance.
    """

    move: np.ndarray
    depth_sigma: np.ndarray


def place(
    keypoints3d: np.ndarray,
    keypoints2d: np.ndarray,
    intrinsics: np.ndarray,
    noise_px: np.ndarray | float,
) -> Translation:
    """Find the translations of hands to where they are seen in the image.

    keypoints3d (N, J, 3) metres, oriented as in the camera frame; keypoints2d (N, J, 2) pixels;
    intrinsics (N, 3, 3); `noise_px`, (N,) or one, the error to expect of a 2D keypoint where that
    of a 3D one is NOISE_3D: only their ratio counts. Total least squares of x + t_x = a (z + t_z),
    y + t_y = b (z + t_z) over the joints, (a, b, 1) their rays: the size of the hand determines its
    distance. Ordinary least squares takes the rays or the pose as exact, and errors in them then
    bring all hands too near or too far. The standard deviation comes from what does not fit; it
    takes the size of the hand and the camera as right. Where all joints are seen in one point, the
    distance is unknown, and the shortest translation that fits is given.
    """
    inverse = np.linalg.inv(np.asarray(intrinsics, np.float64))
    slopes, points = _slopes(keypoints2d, inverse), np.asarray(keypoints3d, np.float64)
    noise = noise_px * np.sqrt(np.abs(np.linalg.det(inverse[:, :2, :2])))
    # Joint by joint: offset = slope t_z - (t_x, t_y).
    offsets = points[..., :2] - slopes * points[..., 2:]
    slope, offset = slopes.mean(axis=1, keepdims=True), offsets.mean(axis=1, keepdims=True)
    errors = _noise_scatter(points[..., 2], slopes, noise)
    depth, sigma = _proportion(slopes - slope, offsets - offset, errors)
    slope, offset = slope[:, 0], offset[:, 0]
    flat = np.square(slopes).sum(axis=(1, 2)) + slopes.shape[1]
    one = np.square(slopes - slope[:, None]).sum(axis=(1, 2)) <= _ONE_POINT**2 * flat
    move = np.column_stack([slope * depth[:, None] - offset, depth])
    move[one], sigma[one] = _shortest(slope[one], offset[one]), np.inf
    return Translation(move, sigma)


def _slopes(keypoints2d: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """x / z and y / z of the rays of pixels (N, J, 2); `inverse` (N, 3, 3) of the cameras."""
    pixels = np.concatenate([keypoints2d, np.ones_like(keypoints2d[..., :1])], axis=-1)
    rays = pixels.astype(np.float64) @ np.swapaxes(inverse, -1, -2)
    return rays[..., :2] / rays[..., 2:]


def _noise_scatter(z: np.ndarray, slopes: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """What errors add to the sums of slope², slope offset and offset² of each hand, (3, N).

    z (N, J) metres; `noise` (N,) is the error of a slope. An offset has the error of the pose, and
    -z times that of its slope.
    """
    count, square = 2 * z.shape[1], np.square(noise)
    of_pose = NOISE_3D**2 * (count + np.square(slopes).sum(axis=(1, 2)))
    of_both = -2 * square * z.sum(axis=1)
    return np.stack([count * square, of_both, 2 * square * np.square(z).sum(axis=1) + of_pose])


def _proportion(
    slopes: np.ndarray, offsets: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The number t for which offsets = t slopes, and its standard deviation, (N,) each.

    Both (N, J, 2) are of mean 0 and hold errors, whose sums of squares and products are in
    proportion to `noise` (3, N): as much of it is taken off as makes them proportional, which is
    the lesser root k of det(sums - k noise) = 0.
    """
    pairs = (slopes, slopes), (slopes, offsets), (offsets, offsets)
    (aa, ab, bb), (naa, nab, nbb) = [(a * b).sum(axis=(1, 2)) for a, b in pairs], noise
    linear = aa * nbb + bb * naa - 2 * ab * nab
    constant = np.maximum(aa * bb - ab**2, 0)
    root = np.sqrt(np.maximum(linear**2 - 4 * (naa * nbb - nab**2) * constant, 0))
    share = 2 * constant / np.maximum(linear + root, np.finfo(np.float64).tiny)
    spread = np.maximum(aa - share * naa, _LEAST_SHARE * aa + np.finfo(np.float64).tiny)
    found = (ab - share * nab) / spread
    misfit = np.square(offsets - slopes * found[:, None, None]).sum(axis=(1, 2))
    alone = np.sqrt(misfit / (2 * slopes.shape[1] - 3) * aa) / spread
    return found, _TOGETHER * alone


def _shortest(slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The shortest translations (N, 3) that move offsets (N, 2) onto the rays of slopes (N, 2)."""
    ones = np.ones_like(slope[:, :1])
    ray, move = np.concatenate([slope, ones], axis=1), np.concatenate([-offset, 0 * ones], axis=1)
    along = (move * ray).sum(axis=1) / np.square(ray).sum(axis=1)
    return move - along[:, None] * ray
