"""Square crops of labelled images, with their 2D points, 3D points and intrinsics kept in step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import (
    IMAGE,
    INFO,
    INTRINSICS,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    VALID,
    encode_array,
    encode_image,
    encode_object,
)
from ..contract.sample import Sample
from .camera import crop_camera, project
from .joints import WRIST
from .square import cut, square_box


def labelled_crop(
    image_rgb: np.ndarray,
    keypoints3d: np.ndarray,
    intrinsics: np.ndarray,
    size: int = 224,
    margin: float = 1.5,
    left: bool = False,
    valid: np.ndarray | None = None,
) -> dict[str, Any]:
    """Cut the square around a hand, and express its labels in the crop; left hands are mirrored.

    `image_rgb` (H, W, 3) uint8, `keypoints3d` (21, 3) metres in the camera frame, `intrinsics` (3,
    3) in source pixels with pixel centres at .5; `valid` (21,) says which joints have labels, the
    wrist among them: the square is around these, and the others are put at the wrist. Out: `image`
    (size, size, 3) uint8 RGB, `keypoints2d` (21, 2) float32 crop pixels, `keypoints3d` (21, 3)
    float32, `intrinsics` (3, 3) float32 of the crop, `box` [x0, y0, x1, y1] ints in the source
    before mirroring, `valid` (21,) bool, or None where all are. Raises HandclrError where the hand
    is not in front of the camera.
    """
    points = np.asarray(keypoints3d, dtype=np.float64)
    if valid is not None:
        valid = np.asarray(valid, dtype=bool)
        points = np.where(valid[:, None], points, points[WRIST])
    camera = np.asarray(intrinsics, dtype=np.float64)
    if not in_front(points):
        raise HandclrError(
            "a labelled hand is not in front of its camera (z <= 0 or NaN); drop the sample"
        )
    x0, y0, x1, y1 = (int(value) for value in square_box(project(points, camera), margin))
    camera = crop_camera(camera, (x0, y0, x1, y1), size, left)
    if left:
        points = points * (-1, 1, 1)
    # Rounded first, so that what is stored projects onto the stored 2D points.
    points32, camera32 = points.astype(np.float32), camera.astype(np.float32)
    pixels = project(points32.astype(np.float64), camera32.astype(np.float64))
    return {
        "image": cut(image_rgb, (x0, y0, x1, y1), size, left),
        "keypoints2d": pixels.astype(np.float32),
        "keypoints3d": points32,
        "intrinsics": camera32,
        "box": [x0, y0, x1, y1],
        "valid": None if valid is None or valid.all() else valid,
    }


def in_front(keypoints3d: np.ndarray) -> bool:
    """Whether camera-frame points (N, 3) are all finite and in front of the camera."""
    return bool(np.isfinite(keypoints3d).all() and (keypoints3d[:, 2] > 0).all())


def labelled_sample(key: str, crop: dict[str, Any], info: dict[str, Any], quality: int) -> Sample:
    """Pack what `labelled_crop` returned, with the JSON `info`, into a sample.

    `quality` of the JPEG is 1 to 100.
    """
    members: dict[str, bytes | memoryview] = {
        IMAGE.suffix: encode_image(crop["image"], quality),
        INFO.suffix: encode_object(info),
        KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, crop["keypoints2d"]),
        KEYPOINTS_3D.suffix: encode_array(KEYPOINTS_3D, crop["keypoints3d"]),
        INTRINSICS.suffix: encode_array(INTRINSICS, crop["intrinsics"]),
    }
    if crop["valid"] is not None:
        members[VALID.suffix] = encode_array(VALID, crop["valid"])
    return Sample(key, members)
