"""From a pose relative to the wrist to a hand in space, in the camera of its crop and in that of
its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import INTRINSICS
from ..contract.sample import Sample
from .camera import assumed_camera, crop_camera, place
from .square import to_source

# Where the camera of a crop is known from.
GIVEN, OVER_SOURCE, OVER_CROP = "intrinsics", "assumed across the source", "assumed across the crop"
_NEAREST_M = 0.05


@dataclass(frozen=True)
class Cut:
    """How a crop lies in its source: its side in pixels, its square `box` there, and whether it was
    mirrored.

    `camera` (3, 3) float64 is that of the crop, `known` says from where.
    """

    side: int
    box: tuple[float, float, float, float]
    flipped: bool
    camera: np.ndarray
    known: str


class Placed(NamedTuple):
    """Hands in space, float32: crop (as the contract's keypoints) and source, 3D in metres (N, 21,
    3), 2D in pixels.

    `fitted` (N,) bool: where false, no place before the camera fits the prediction, and the hand
    stands where its extent looks right.
    """

    keypoints3d: np.ndarray
    keypoints2d: np.ndarray
    source3d: np.ndarray
    source2d: np.ndarray
    fitted: np.ndarray


def cut_of(sample: Sample, fov_deg: float) -> Cut:
    """Read how a crop was cut, and its camera: its intrinsics, else assumed with an angle of view
    over its source.

    The angle is that across the longer side; of the crop, where the JSON has no box or no
    `source_size`. A crop without a box is its own source. Raises HandclrError where the crop or its
    JSON is damaged.
    """
    side, info = sample.image.shape[0], sample.info
    box, size = (0.0, 0.0, float(side), float(side)), info.get("source_size")
    flipped = bool(info.get("flipped"))
    try:
        if "box" in info:
            x0, y0, x1, y1 = (float(value) for value in info["box"])
            box = (x0, y0, x1, y1)
        if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
            raise ValueError("no area")
        if size is not None and "box" in info:
            width, height = (int(value) for value in size)
            camera = crop_camera(assumed_camera(width, height, fov_deg), box, side, flipped)
            known = OVER_SOURCE
        else:
            camera, known = assumed_camera(side, side, fov_deg), OVER_CROP
    except (TypeError, ValueError) as error:
        raise HandclrError(
            f"{sample.source}: sample {sample.key}: bad box or source_size: {error}"
        ) from error
    if INTRINSICS in sample:
        camera, known = sample.read(INTRINSICS).astype(np.float64), GIVEN
        if abs(np.linalg.det(camera)) < 1e-6:
            raise HandclrError(
                f"{sample.source}: sample {sample.key}: bad {INTRINSICS.suffix}: cannot be inverted"
            )
    return Cut(side, box, flipped, camera, known)


def placed(xyz: np.ndarray, uv: np.ndarray, cuts: Sequence[Cut]) -> Placed:
    """Put hands where they are seen: xyz (N, 21, 3) metres from the wrist, camera axes; uv (N, 21,
    2) crop sides.

    Raises HandclrError where a prediction is not finite.
    """
    finite = np.isfinite(xyz).all(axis=(1, 2)) & np.isfinite(uv).all(axis=(1, 2))
    if not finite.all():
        raise HandclrError(
            f"{int((~finite).sum())} of {len(finite)} predictions hold NaN or infinite values; the"
            " model has diverged: use another checkpoint"
        )
    relative = np.asarray(xyz, np.float64)
    pixels = (
        np.asarray(uv, np.float64) * np.array([cut.side for cut in cuts], np.float64)[:, None, None]
    )
    cameras = np.array([cut.camera for cut in cuts]).reshape(-1, 3, 3)
    moves = place(relative, pixels, cameras)
    fitted = relative[..., 2].min(axis=1) + moves[:, 2] > 0
    moves[~fitted] = _by_extent(relative[~fitted], pixels[~fitted], cameras[~fitted])
    points = relative + moves[:, None]
    mirror = np.array([(-1.0 if cut.flipped else 1.0, 1.0, 1.0) for cut in cuts]).reshape(-1, 1, 3)
    back = [
        to_source(at, cut.box, cut.side, cut.flipped) for at, cut in zip(pixels, cuts, strict=True)
    ]
    source = np.array(back).reshape(-1, *pixels.shape[1:])
    crop3d, crop2d, source3d, source2d = (
        a.astype(np.float32) for a in (points, pixels, points * mirror, source)
    )
    return Placed(crop3d, crop2d, source3d, source2d, fitted)


def _by_extent(relative: np.ndarray, pixels: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Translations (N, 3) metres by weak perspective: the extents of pose and picture give the
    distance.
    """
    ones = np.ones_like(pixels[..., :1])
    slopes = (np.concatenate([pixels, ones], axis=-1) @ np.swapaxes(np.linalg.inv(cameras), 1, 2))[
        ..., :2
    ]
    pixel = 1 / cameras[:, 0, 0]
    middle, centre = slopes.mean(axis=1), relative.mean(axis=1)
    seen = np.maximum(slopes.std(axis=1).max(axis=1), np.abs(pixel))
    near = centre[:, 2] - relative[..., 2].min(axis=1) + _NEAREST_M
    depth = np.maximum(relative[..., :2].std(axis=1).max(axis=1) / seen, near)
    return np.column_stack([middle * depth[:, None], depth]) - centre
