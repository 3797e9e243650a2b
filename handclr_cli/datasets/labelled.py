"""What all labelled data sets have in common: their hands, why an item has none, their samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..contract.sample import Sample, sample_key
from ..hand.camera import project
from ..hand.joints import REFERENCE_BONE
from ..hand.labelled_crop import in_front, labelled_crop, labelled_sample
from ..hand.plausible import plausible

# Crop over image, in sides: a hand so near that it exceeds this would need a crop of gigabytes.
WIDEST_CROP = 8
# Focal length over the longer side of the image: of an angle of view of 170 degrees.
_SHORTEST_FOCAL = 0.04
# A JPEG may have a little padding after its end mark.
_JPEG_END, _JPEG_TAIL = b"\xff\xd9", 1024


class Invalid(StrEnum):
    """Why an item of a data set gives no sample."""

    UNLABELLED = "without labels"
    NO_BOX = "without a box"
    FEW_JOINTS = "with too few valid joints"
    NO_REFERENCE = "without a valid wrist or middle knuckle"
    BEHIND = "not in front of the camera"
    NO_IMAGE = "with the image missing"
    BAD_IMAGE = "with a damaged image"
    OTHER_SIZE = "with an image of another size than labelled"
    BAD_LABELS = "with labels missing or damaged"
    BAD_CAMERA = "with a calibration that is missing or damaged"
    NO_HAND = "with bones of lengths that no hand has"
    OUTSIDE = "wholly outside the image"
    REPEATED = "annotated before"

    @property
    def broken(self) -> bool:
        """Whether it is the fault of the files on this disk, not of the data set."""
        return self in _BROKEN


_BROKEN = (
    *(Invalid.NO_IMAGE, Invalid.BAD_IMAGE, Invalid.OTHER_SIZE),
    *(Invalid.BAD_LABELS, Invalid.BAD_CAMERA, Invalid.NO_HAND),
)


@dataclass(frozen=True)
class LabelledHand:
    """One hand in an image of a data set.

    `side` "left" or "right"; `keypoints3d` (21, 3) float64 metres in the camera frame, MediaPipe
    order, not mirrored; `intrinsics` (3, 3) float64 pixels, pixel centres at .5; `valid` (21,)
    bool, or None where all joints are; `keypoints2d` (21, 2) float64, the data set's own 2D labels
    in the same pixels, NaN where one is missing; `size`, width and height of the image that was
    labelled, None where nothing says it. `info` goes into the sample's JSON: `video`, `frame`,
    `sample` (shared by versions of a pose and by all cameras of a moment), `version` or `subject`,
    `camera`, and `index`, the position in the split as result files count it.
    """

    path: Path
    side: str
    keypoints3d: np.ndarray
    intrinsics: np.ndarray
    info: dict[str, Any]
    valid: np.ndarray | None = None
    keypoints2d: np.ndarray | None = None
    size: tuple[int, int] | None = None


class LabelledSet(Protocol):
    """One split of a data set; `notes` are warnings about what is on disk, one line each."""

    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> LabelledHand | tuple[Invalid, Path]: ...


@dataclass(frozen=True)
class Measured:
    """How a hand's labels agree.

    `bone_mm` is the length of the reference bone; `inside` says which joints are inside the image;
    `error_px` are the distances from the set's own 2D labels in pixels.
    """

    bone_mm: float
    inside: np.ndarray
    error_px: np.ndarray


@dataclass(frozen=True)
class Made:
    """What became of an item, the file at `path`.

    Either a `sample` of a hand of that `side`, or the reason why there is none.
    """

    path: Path
    sample: Sample | None = None
    side: str = ""
    invalid: Invalid | None = None
    measured: Measured | None = None


@dataclass(frozen=True)
class CheckedHand(Made):
    """A sample whose keypoints were checked.

    `inside` of them are inside the image, `boxed` of them in the annotated box.
    """

    inside: int = 0
    boxed: int = 0


@dataclass(frozen=True)
class Importer:
    """Makes the samples of a data set.

    Crops of `size` px, `margin` times as wide as the hand, as JPEG of `quality`.
    """

    data: LabelledSet
    size: int = 224
    margin: float = 1.5
    quality: int = 95
    measure: bool = False

    def make(self, number: int) -> Made:
        """The sample of an item."""
        hand = self.data[number]
        if isinstance(hand, tuple):
            return Made(hand[1], invalid=hand[0])
        image = read_image(hand.path)
        if isinstance(image, Invalid):
            return Made(hand.path, invalid=image)
        height, width = image.shape[:2]
        if invalid := self._fault(hand, width, height):
            return Made(hand.path, invalid=invalid)
        left = hand.side == "left"
        crop = labelled_crop(
            image, hand.keypoints3d, hand.intrinsics, self.size, self.margin, left, hand.valid
        )
        video, frame = hand.info["video"], hand.info["frame"]
        info = {
            "video": video,
            "frame": frame,
            "time_s": None,
            "box": crop["box"],
            "source_size": [width, height],
            "hand": hand.side,
            "flipped": left,
            "score": 1.0,
            **hand.info,
        }
        key = sample_key(re.sub(r"[^A-Za-z0-9_-]+", "-", video), frame, hand.side)
        sample = labelled_sample(key, crop, info, self.quality)
        measured = _measured(hand, (width, height)) if self.measure else None
        return Made(hand.path, sample, hand.side, measured=measured)

    def _fault(self, hand: LabelledHand, width: int, height: int) -> Invalid | None:
        """Why a hand cannot be cut out of its image of that size, None where it can."""
        labelled = hand.keypoints3d if hand.valid is None else hand.keypoints3d[hand.valid]
        longer = max(width, height)
        if hand.size not in (None, (width, height)):
            return Invalid.OTHER_SIZE
        if not usable_camera(hand.intrinsics, longer):
            return Invalid.BAD_CAMERA
        if not np.isfinite(labelled).all():
            return Invalid.BAD_LABELS
        if not in_front(labelled):
            return Invalid.BEHIND
        if not plausible(hand.keypoints3d[None], None if hand.valid is None else hand.valid[None]):
            return Invalid.NO_HAND
        pixels = project(labelled, hand.intrinsics)
        # So near that its crop would be far wider than the image.
        if float(np.ptp(pixels, axis=0).max()) * self.margin > WIDEST_CROP * longer:
            return Invalid.BEHIND
        return Invalid.OUTSIDE if outside(pixels, width, height) else None


def usable_camera(intrinsics: np.ndarray, side: int) -> bool:
    """Whether (3, 3) is the matrix of a camera whose images are `side` px wide or high.

    Its numbers are finite, and its angle of view is less than 170 degrees: none is zero that must
    not be, nor in shares of the image.
    """
    if not np.isfinite(intrinsics).all():
        return False
    focal = min(abs(intrinsics[0, 0]), abs(intrinsics[1, 1]))
    return focal > _SHORTEST_FOCAL * side and np.allclose(intrinsics[2], (0, 0, 1))


def outside(pixels: np.ndarray, width: int, height: int) -> bool:
    """Whether nothing of the rectangle around points (N, 2) is in an image."""
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return bool((high <= 0).any() or (low >= (width, height)).any())


def _measured(hand: LabelledHand, size: tuple[int, int]) -> Measured:
    start, end = (hand.keypoints3d[joint] for joint in REFERENCE_BONE)
    valid = np.ones(len(hand.keypoints3d), bool) if hand.valid is None else hand.valid
    pixels = project(hand.keypoints3d[valid], hand.intrinsics)
    error = np.empty(0)
    if hand.keypoints2d is not None:
        error = np.linalg.norm(pixels - hand.keypoints2d[valid], axis=1)
    inside = np.all((pixels >= 0) & (pixels <= size), axis=1)
    return Measured(1000 * float(np.linalg.norm(end - start)), inside, error[np.isfinite(error)])


def read_image(path: Path) -> np.ndarray | Invalid:
    """An image file as uint8 (H, W, 3) RGB, a grey one too."""
    import cv2

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Invalid.NO_IMAGE
    except OSError:
        return Invalid.BAD_IMAGE
    # The decoder fills what a truncated file lacks with grey.
    if path.suffix == ".jpg" and _JPEG_END not in data[-_JPEG_TAIL:]:
        return Invalid.BAD_IMAGE
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    return Invalid.BAD_IMAGE if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
