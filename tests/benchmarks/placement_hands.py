"""Hands before a camera, and predictions of them with errors like those of real ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from handclr_cli.hand.camera import crop_camera, project
from handclr_cli.synth import skeleton

SIDE = 224
_FOCAL, _CENTRE = 600.0, (320, 240)
_NEAREST, _FARTHEST, _MARGIN = 0.3, 1.0, 1.5
# How errors of predictions go together: the reach in metres within which joints err alike, the
# share of the variance that does, and how 2D errors go with those in 3D. Of MediaPipe on real hands
# 9 joints' worth of 21 are independent in 2D and 4 to 6 in 3D, and 2D goes with 3D by 0.4; of
# handclr's own models, whose two outputs come from one feature, by 0.95.
KINDS = {
    "alone": ((0.05, 0.0), (0.04, 0.0), 0.0),
    "in groups": ((0.05, 0.8), (0.04, 0.6), 0.4),
    "together": ((0.05, 0.8), (0.05, 0.8), 0.9),
}


class Hands(NamedTuple):
    """Hands in crops of SIDE px.

    Joints from the wrist (N, 21, 3) metres, the wrists (N, 3), cameras of the crops (N, 3, 3), and
    joints in pixels (N, 21, 2).
    """

    relative: np.ndarray
    wrist: np.ndarray
    cameras: np.ndarray
    pixels: np.ndarray


def hands(rng: np.random.Generator, count: int) -> Hands:
    """Draw hands of different people, poses and directions, 0.3 to 1 m before a 640x480 camera."""
    low, high = skeleton.LIMITS.T
    joints = []
    for _ in range(count):
        angles = rng.uniform(low, high) * rng.beta(1, 1.5)
        bones = skeleton.pose_bones(skeleton.draw_build(rng), angles)
        joints.append(skeleton.keypoints(*bones)[0])
    turned = np.stack(joints) @ Rotation.random(count, rng=rng).as_matrix()
    z = rng.uniform(_NEAREST, _FARTHEST, count)
    across = rng.uniform((-0.35, -0.25), (0.35, 0.25), (count, 2))
    points = turned - turned.mean(axis=1, keepdims=True)
    points += np.column_stack([across * z[:, None], z])[:, None]
    camera = np.array([[_FOCAL, 0, _CENTRE[0]], [0, _FOCAL, _CENTRE[1]], [0, 0, 1]])
    cameras = []
    for seen in project(points, camera):
        middle, half = (seen.min(0) + seen.max(0)) / 2, _MARGIN * np.ptp(seen, axis=0).max() / 2
        cameras.append(crop_camera(camera, [*(middle - half), *(middle + half)], SIDE))
    pixels = [project(*pair) for pair in zip(points, cameras, strict=True)]
    wrist = points[:, 0]
    return Hands(points - wrist[:, None], wrist, np.array(cameras), np.array(pixels))


def predicted(
    rng: np.random.Generator, truth: Hands, px: float, mm: float, kind: str = "in groups"
) -> tuple[np.ndarray, np.ndarray]:
    """Poses from the wrist and pixels, with errors of `mm` and `px` along each axis."""
    of_3d, of_2d, both = KINDS[kind]
    count = len(truth.wrist)
    errors = rng.normal(size=(count, 21, 3))
    flat = both * errors[..., :2] + np.sqrt(1 - both**2) * rng.normal(size=(count, 21, 2))
    poses = truth.relative + mm / 1000 * (_alike(*of_3d) @ errors)
    return poses - poses[:, :1], truth.pixels + px * (_alike(*of_2d) @ flat)


def _alike(reach: float, share: float) -> np.ndarray:
    """What makes independent errors those of neighbouring joints: (21, 21)."""
    rest = skeleton.pose_bones(skeleton.average_build(), skeleton.rest_pose())
    at = skeleton.keypoints(*rest)[0]
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
    together = share * np.exp(-np.square(apart / reach) / 2) + (1 - share) * np.eye(len(at))
    return np.linalg.cholesky(together)
