"""Hands in space from poses relative to the wrist, in the camera of the crop and of its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import INTRINSICS
from ..contract.sample import Sample
from .camera import assumed_camera, crop_camera, source_camera
from .square import to_source
from .translation import NOISE_2D, place

DEPTH_SIGMA = (
    "standard deviation of a hand's distance along the optical axis from the errors of its 2D and "
    "3D prediction, its size and the camera taken as right"
)
# Where the camera of a crop comes from.
GIVEN, OVER_SOURCE, OVER_CROP = "intrinsics", "assumed across the source", "assumed across the crop"
_NEAREST_M = 0.05
_SINGULAR = 1e-6


@dataclass(frozen=True)
class Cut:
    """How a crop lies in its source.

    Its `side` in pixels, its square `box` in the source, and whether it was mirrored. `camera`
    (3, 3) float64 is that of the crop; `known` says where it comes from. `told`: the sample says
    whether it was mirrored; else it is taken as it is.
    """

    side: int
    box: tuple[float, float, float, float]
    flipped: bool
    camera: np.ndarray
    known: str
    told: bool = True


class Placed(NamedTuple):
    """Hands in space, of the crop and of the source, float32.

    3D in metres (N, 21, 3), 2D in pixels (N, 21, 2); those of the crop are as the contract's
    keypoints. `depth_sigma` (N,) metres is the standard deviation of the distance along the optical
    axis that errors of the prediction cause, the hand's size and the camera taken as right.
    `fitted` (N,) bool: where false, no place in front of the camera fits the prediction, or its
    distance is less than its standard deviation; the distance is then that at which the hand has
    the extent seen, and `depth_sigma` is infinite. `camera` (N, 3, 3) is the matrix of the source's
    camera, in pixels: it projects `source3d`.
    """

    keypoints3d: np.ndarray
    keypoints2d: np.ndarray
    source3d: np.ndarray
    source2d: np.ndarray
    depth_sigma: np.ndarray
    fitted: np.ndarray
    camera: np.ndarray


def cut_of(sample: Sample, fov_deg: float, side: int | None = None) -> Cut:
    """Read how a crop was cut, and the camera of the crop; `side` is that of one without a picture.

    The camera is that of the sample's intrinsics, else one assumed to see `fov_deg` degrees across
    the longer side of the source, or of the crop where the JSON has no box or no `source_size`. A
    crop without a box is its own source, and what `flipped` does not say, the hand does. Raises
    HandclrError where the crop or its JSON is damaged.
    """
    side, info = sample.image.shape[0] if side is None else side, sample.info
    box, size = (0.0, 0.0, float(side), float(side)), info.get("source_size")
    # Without either, the crop is its own source, whatever its hand was in another.
    turned = sample.flipped if {"box", "flipped"} & info.keys() else False
    flipped = bool(turned)
    try:
        if "box" in info:
            x0, y0, x1, y1 = (float(value) for value in info["box"])
            box = (x0, y0, x1, y1)
        if not (np.isfinite(box).all() and box[2] > box[0] and box[3] > box[1]):
            raise ValueError("no area")
        if size is not None and "box" in info:
            width, height = (int(value) for value in size)
            if min(width, height) < 1:
                raise ValueError("a source without pixels")
            camera = crop_camera(assumed_camera(width, height, fov_deg), box, side, flipped)
            known = OVER_SOURCE
        else:
            camera, known = assumed_camera(side, side, fov_deg), OVER_CROP
    except (TypeError, ValueError, OverflowError) as error:
        raise HandclrError(
            f"{sample.source}: sample {sample.key}: bad box or source_size: {error}"
        ) from error
    if INTRINSICS in sample:
        camera, known = given_camera(sample), GIVEN
    return Cut(side, box, flipped, camera, known, told=turned is not None)


def given_camera(sample: Sample) -> np.ndarray:
    """The intrinsics of a sample, float64 (3, 3); HandclrError where they cannot be inverted."""
    camera = sample.read(INTRINSICS).astype(np.float64)
    if abs(np.linalg.det(camera)) < _SINGULAR:
        raise HandclrError(
            f"{sample.source}: sample {sample.key}: bad {INTRINSICS.suffix}: cannot be inverted"
        )
    return camera


def placed(xyz: np.ndarray, uv: np.ndarray, cuts: Sequence[Cut]) -> Placed:
    """Put hands where they are seen.

    xyz (N, 21, 3) metres from the wrist, camera axes; uv (N, 21, 2) in sides of the crop. Raises
    HandclrError where a prediction is not finite.
    """
    finite = np.isfinite(xyz).all(axis=(1, 2)) & np.isfinite(uv).all(axis=(1, 2))
    if not finite.all():
        raise HandclrError(
            f"{int((~finite).sum())} of {len(finite)} predictions hold NaN or infinite values; "
            "the model has diverged: use another checkpoint"
        )
    relative = np.asarray(xyz, np.float64)
    sides = np.array([cut.side for cut in cuts], np.float64)
    pixels = np.asarray(uv, np.float64) * sides[:, None, None]
    cameras = np.array([cut.camera for cut in cuts]).reshape(-1, 3, 3)
    moves, sigma = place(relative, pixels, cameras, NOISE_2D * sides)
    fitted = relative[..., 2].min(axis=1) + moves[:, 2] > 0
    fitted &= sigma < relative[:, 0, 2] + moves[:, 2]
    moves[~fitted] = _by_extent(relative[~fitted], pixels[~fitted], cameras[~fitted])
    points = relative + moves[:, None]
    mirror, source, lenses = [], [], []
    for at, cut in zip(pixels, cuts, strict=True):
        mirror.append((-1.0 if cut.flipped else 1.0, 1.0, 1.0))
        source.append(to_source(at, cut.box, cut.side, cut.flipped))
        lenses.append(source_camera(cut.camera, cut.box, cut.side, cut.flipped))
    return Placed(
        points.astype(np.float32),
        pixels.astype(np.float32),
        (points * np.array(mirror).reshape(-1, 1, 3)).astype(np.float32),
        np.array(source).reshape(-1, *pixels.shape[1:]).astype(np.float32),
        np.where(fitted, sigma, np.inf).astype(np.float32),
        fitted,
        np.array(lenses).reshape(-1, 3, 3).astype(np.float32),
    )


def median_sigma_mm(depth_sigma: np.ndarray) -> float | None:
    """The median of standard deviations (N,) in metres, in mm; None where all are infinite."""
    known = depth_sigma[np.isfinite(depth_sigma)]
    return round(1000 * float(np.median(known)), 2) if len(known) else None


def _by_extent(relative: np.ndarray, pixels: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Translations (N, 3) metres by weak perspective.

    The distance is the extent of the pose over that seen.
    """
    homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
    slopes = (homogeneous @ np.swapaxes(np.linalg.inv(cameras), 1, 2))[..., :2]
    pixel = 1 / cameras[:, 0, 0]
    middle, centre = slopes.mean(axis=1), relative.mean(axis=1)
    seen = np.maximum(slopes.std(axis=1).max(axis=1), np.abs(pixel))
    near = centre[:, 2] - relative[..., 2].min(axis=1) + _NEAREST_M
    depth = np.maximum(relative[..., :2].std(axis=1).max(axis=1) / seen, near)
    return np.column_stack([middle * depth[:, None], depth]) - centre
