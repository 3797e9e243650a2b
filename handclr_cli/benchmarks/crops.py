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
    encode_array,
    encode_image,
    encode_object,
)
from ..contract.sample import Sample, sample_key
from ..footage.crops import cut, square_box
from .camera import crop_camera, project
from .freihand import LabelledImage


def labelled_crop(
    image_rgb: np.ndarray,
    keypoints3d: np.ndarray,
    intrinsics: np.ndarray,
    size: int = 224,
    margin: float = 1.5,
    left: bool = False,
) -> dict[str, Any]:
    """Cut the square around a hand and express its labels in the crop; a left hand becomes a right one.

    `image_rgb` (H, W, 3) uint8, `keypoints3d` (21, 3) metres in the camera frame, `intrinsics` (3, 3) in
    source pixels with pixel centres at .5. Out: `image` (size, size, 3) uint8 RGB, `keypoints2d` (21, 2)
    float32 crop pixels, `keypoints3d` (21, 3) float32, `intrinsics` (3, 3) float32 of the crop, `box`
    [x0, y0, x1, y1] ints in the source before mirroring. Raises HandclrError where the hand is not in front
    of the camera.
    """
    points = np.asarray(keypoints3d, dtype=np.float64)
    camera = np.asarray(intrinsics, dtype=np.float64)
    if not np.isfinite(points).all() or not (points[:, 2] > 0).all():
        raise HandclrError("a labelled hand is not in front of its camera (z <= 0 or NaN); drop the sample")
    x0, y0, x1, y1 = (int(value) for value in square_box(project(points, camera), margin))
    camera = crop_camera(camera, (x0, y0, x1, y1), size, left)
    if left:
        points = points * (-1, 1, 1)
    # Rounded first, so that what is stored projects onto the stored 2D points.
    points32, camera32 = points.astype(np.float32), camera.astype(np.float32)
    return {
        "image": cut(image_rgb, (x0, y0, x1, y1), size, left),
        "keypoints2d": project(points32.astype(np.float64), camera32.astype(np.float64)).astype(np.float32),
        "keypoints3d": points32,
        "intrinsics": camera32,
        "box": [x0, y0, x1, y1],
    }


def freihand_sample(item: LabelledImage, split: str, size: int, margin: float, quality: int) -> Sample:
    """Make the labelled sample of a FreiHAND image; `sample` in its JSON is shared by the versions of a pose."""
    image = _read_image(item)
    crop = labelled_crop(image, item.keypoints3d, item.intrinsics, size, margin)
    video = f"freihand-{split}-{item.version_name}"
    info = {
        "video": video,
        "frame": item.sample,
        "time_s": None,
        "box": crop["box"],
        "source_size": [image.shape[1], image.shape[0]],
        "hand": "right",
        "flipped": False,
        "score": 1.0,
        "sample": f"freihand-{split}-{item.sample:08d}",
        "version": item.version_name,
    }
    return labelled_sample(sample_key(video, item.sample, "right"), crop, info, quality)


def labelled_sample(key: str, crop: dict[str, Any], info: dict[str, Any], quality: int) -> Sample:
    """Pack what `labelled_crop` returned, with the JSON `info`, into a sample; `quality` of the JPEG is 1 to 100."""
    return Sample(
        key,
        {
            IMAGE.suffix: encode_image(crop["image"], quality),
            INFO.suffix: encode_object(info),
            KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, crop["keypoints2d"]),
            KEYPOINTS_3D.suffix: encode_array(KEYPOINTS_3D, crop["keypoints3d"]),
            INTRINSICS.suffix: encode_array(INTRINSICS, crop["intrinsics"]),
        },
    )


def _read_image(item: LabelledImage) -> np.ndarray:
    import cv2

    image = cv2.imread(str(item.path), cv2.IMREAD_COLOR)
    if image is None:
        raise HandclrError(f"{item.path}: cannot be decoded as an image; download it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
