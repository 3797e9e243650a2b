"""What an imported sample must say about a hand of which everything is known."""

from __future__ import annotations

import numpy as np

from handclr_cli.contract.fields import INTRINSICS
from handclr_cli.contract.sample import Sample


def assert_recovers(sample: Sample, truth3d: np.ndarray, camera: np.ndarray, side: str) -> None:
    """3D (21, 3) metres, intrinsics (3, 3) and 2D of the source, moved into the crop by its box
    alone.

    Joints that are not valid need only be finite, in front of the camera, and where the intrinsics
    put them.
    """
    info, left, size, valid = sample.info, side == "left", sample.side, sample.valid
    assert (info["hand"], info["flipped"]) == (side, left)
    x0, y0, x1, y1 = info["box"]
    assert x1 - x0 == y1 - y0
    mirror = -1.0 if left else 1.0
    np.testing.assert_allclose(
        sample.keypoints3d[valid], (truth3d * [mirror, 1, 1])[valid], atol=1e-6
    )
    matrix = camera_of_crop(camera, sample)
    np.testing.assert_allclose(sample.read(INTRINSICS), matrix, rtol=1e-5, atol=1e-4)
    for joint in np.flatnonzero(valid):
        pixel = pixel_in_crop(truth3d[joint], camera, sample)
        np.testing.assert_allclose(sample.keypoints2d[joint], pixel, atol=1e-4 * size)
    assert np.isfinite(sample.keypoints3d).all() and (sample.keypoints3d[:, 2] > 0).all()
    homogeneous = sample.keypoints3d.astype(float) @ sample.read(INTRINSICS).astype(float).T
    np.testing.assert_allclose(
        homogeneous[:, :2] / homogeneous[:, 2:], sample.keypoints2d, atol=1e-4
    )


def camera_of_crop(camera: np.ndarray, sample: Sample) -> np.ndarray:
    """The intrinsics (3, 3) of a crop that shows a left hand mirrored."""
    x0, y0, x1, _ = sample.info["box"]
    scale = sample.side / (x1 - x0)
    focal, centre = np.diag(camera)[:2] * scale, (camera[:2, 2] - [x0, y0]) * scale
    if sample.info["hand"] == "left":
        centre[0] = sample.side - centre[0]
    return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])


def pixel_in_crop(point: np.ndarray, camera: np.ndarray, sample: Sample) -> list[float]:
    """Where a crop shows a point (3,) that is seen by the camera of its frame."""
    x0, y0, x1, _ = sample.info["box"]
    scale = sample.side / (x1 - x0)
    x, y, z = point
    pixel = [
        (camera[0, 0] * x / z + camera[0, 2] - x0) * scale,
        (camera[1, 1] * y / z + camera[1, 2] - y0) * scale,
    ]
    if sample.info["hand"] == "left":
        pixel[0] = sample.side - pixel[0]
    return pixel


def brightest(sample: Sample, channel: int = 0) -> np.ndarray:
    """The centre of the light that is well above the median of a crop, x and y, pixel centres at
    .5.
    """
    light = sample.image[..., channel].astype(float)
    light = np.clip(light - np.median(light) - 60, 0, None)
    rows, columns = np.indices(light.shape) + 0.5
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()
