"""The picture of a synthetic camera, with its camera and the truth about every hand in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Values of a segmentation; 0 is everything else.
OBJECT, LEFT_HAND, RIGHT_HAND = 1, 254, 255


@dataclass(frozen=True)
class HandTruth:
    """One hand of a shot.

    `side` "left" or "right"; `keypoints3d` (21, 3) float64 metres in the camera frame.
    """

    side: str
    keypoints3d: np.ndarray


@dataclass(frozen=True)
class Shot:
    """A rendered picture with its truth.

    `image` (H, W, 3) uint8 RGB; `intrinsics` (3, 3) float64 pixels, pixel centres at .5;
    `extrinsics` (3, 4) float64, world to camera in metres (x right, y down, z forward); `hands` as
    they are in the scene, nothing mirrored; `segmentation` (H, W) uint8: 0 background and sleeves,
    1 a held object, 254 left hand and bare forearm, 255 right ones.
    """

    image: np.ndarray
    intrinsics: np.ndarray
    extrinsics: np.ndarray
    hands: tuple[HandTruth, ...]
    segmentation: np.ndarray
