"""Predictions in the order of the labels: placed in space, or read from a file of any program."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import basename
from typing import NamedTuple

import numpy as np

from ..choices import Bone
from ..contract.errors import HandclrError
from ..contract.npz import read_npz, repeated_key
from ..contract.provenance import Provenance
from ..hand import placement
from ..hand.alignment import root_relative
from ..hand.joints import REFERENCE_BONE, WRIST
from ..hand.plausible import wrong_unit
from .labels import Labels

SCALES: dict[Bone, str] = {
    "training": (
        "predictions are in reference bones; "
        "metres by the training set's mean bone of {bone_mm:.2f} mm"
    ),
    "true": "predictions are in reference bones; metres by the true bone of each sample's label",
}


@dataclass(frozen=True)
class Predicted:
    """Hands float64 (N, 21, 3) metres; `placed` in the crop's camera frame, or without a position.

    `scale` says what the metres come from; `position` says what the positions come from, or why
    there are none. For a file, `origin` is the provenance and `unused` the number of its hands that
    are not evaluated. `depth_sigma` (N,) metres is as `placement.placed` has it, where known.
    `found` is in how many of the crops there was a hand, where that can fail; the others' hands are
    the mean of these.
    """

    keypoints3d: np.ndarray
    placed: bool
    scale: str
    position: str
    origin: Provenance | None = None
    unused: int = 0
    depth_sigma: np.ndarray | None = None
    found: int | None = None


def scaled(hands: np.ndarray, labels: Labels, bone: Bone, mean_bone: float) -> np.ndarray:
    """Give hands the size that `bone` says: float64 (N, 21, 3) metres.

    `hands` (N, 21, 3) or (21, 3) are in metres for a reference bone of `mean_bone` metres.
    """
    hands = np.broadcast_to(np.asarray(hands, np.float64), labels.keypoints3d.shape)
    if bone == "training":
        return hands
    start, end = (labels.keypoints3d[:, joint].astype(np.float64) for joint in REFERENCE_BONE)
    return hands * (np.linalg.norm(end - start, axis=-1) / mean_bone)[:, None, None]


def place_predictions(hands: np.ndarray, seen: np.ndarray, labels: Labels, scale: str) -> Predicted:
    """Put hands where their 2D predictions show them, as predict does.

    `hands` (N, 21, 3) are in metres, and `scale` says of what; `seen` (N, 21, 2) are their 2D
    predictions in crop sides. Unless every sample has intrinsics, all stay with the wrist at the
    origin: a mean over some would not be the data set's.
    """
    hands = root_relative(hands)
    if not labels.have_cameras:
        without = int(np.isnan(labels.intrinsics).any(axis=(1, 2)).sum())
        position = f"none: {without} of {len(labels)} samples have no intrinsics.npy"
        return Predicted(hands, False, scale, position)
    cuts = []
    cameras = labels.intrinsics.astype(np.float64)
    for side, camera in zip(labels.side.tolist(), cameras, strict=True):
        cuts.append(placement.Cut(side, (0, 0, side, side), False, camera, placement.GIVEN))
    found = placement.placed(hands, seen, cuts)
    position = (
        "the translation that fits the predicted 2D keypoints best by the crop's intrinsics, "
        "with errors in both 2D and 3D"
    )
    if nowhere := int((~found.fitted).sum()):
        uncertain = (
            "fit no certain place before the camera and stand where their extent looks right"
        )
        position += f"; {nowhere} {uncertain}"
    hands, sigma = found.keypoints3d.astype(np.float64), found.depth_sigma
    return Predicted(hands, True, scale, position, depth_sigma=sigma)


def read_predictions(path: str, labels: Labels) -> Predicted:
    """Read `key` and `keypoints3d` of an NPZ file and put them into the labels' order.

    Raises HandclrError where labelled samples have no prediction, a key comes twice, or the hands
    are not in metres.
    """
    arrays, origin = read_npz(path, "predictions", only=("key", "keypoints3d", "depth_sigma"))
    keys = arrays["key"]
    rows = _rows(path, keys, labels.keys)
    lacking = rows < 0
    if lacking.any():
        first = labels.keys[lacking][0].decode("utf-8", "replace")
        raise HandclrError(
            f"{path}: {int(lacking.sum())} of {len(labels)} labelled samples have no prediction, "
            f"the first is {first}; predict all of them, under the keys of the shards"
        )
    hands = arrays["keypoints3d"][rows].astype(np.float64)
    if wrong := wrong_unit(hands):
        raise HandclrError(f"{path}: keypoints3d is not in metres: {wrong}")
    there = has_position(hands)
    position = "as given in the predictions"
    if not there:
        position = "none: the predictions have their wrists at the origin"
    scale = f"metres as given in {basename(path)}"
    sigma = arrays["depth_sigma"][rows] if there and "depth_sigma" in arrays else None
    return Predicted(hands, there, scale, position, origin, len(keys) - len(labels), sigma)


def has_position(hands: np.ndarray) -> bool:
    """Whether hands (N, 21, 3) metres are somewhere in a camera frame.

    Hands that all have the wrist at the origin have no position.
    """
    return bool(np.abs(hands[:, WRIST]).max(initial=0) > 1e-6)


class Evaluated(NamedTuple):
    """What an evaluation wrote: predictions and labels, as in Labels and Predicted."""

    keys: np.ndarray
    keypoints3d: np.ndarray
    truth3d: np.ndarray
    valid: np.ndarray
    units: np.ndarray
    origin: Provenance | None


def read_evaluated(path: str) -> Evaluated:
    """Read an NPZ file that handclr evaluate wrote. Raises HandclrError where it holds no truth."""
    arrays, origin = read_npz(path, "predictions")
    if "truth3d" not in arrays:
        raise HandclrError(f"{path}: holds no truth3d; write it with handclr evaluate")
    valid = np.asarray(arrays.get("valid", np.ones(arrays["keypoints3d"].shape[:2])), bool)
    units = arrays.get("unit", arrays["key"])
    return Evaluated(arrays["key"], arrays["keypoints3d"], arrays["truth3d"], valid, units, origin)


def read_pair(first: str, second: str) -> tuple[Evaluated, Evaluated]:
    """Read two files that handclr evaluate wrote, the second put into the order of the first.

    Raises HandclrError where they are not of the same samples with the same labels.
    """
    a, b = read_evaluated(first), read_evaluated(second)
    _rows(first, a.keys, a.keys)
    rows = _rows(second, b.keys, a.keys)
    alone = int((rows < 0).sum()), len(b.keys) - int((rows >= 0).sum())
    if any(alone):
        raise HandclrError(
            f"{first} and {second} are not of the same samples: "
            f"{alone[0]} keys are in the first only, {alone[1]} in the second only; "
            "evaluate both on the same shards"
        )
    b = Evaluated._make([*(column[rows] for column in b[:-1]), b.origin])
    same = (a.valid == b.valid).all() and np.allclose(a.truth3d, b.truth3d, rtol=0, atol=1e-6)
    if not same or (a.units != b.units).any():
        raise HandclrError(
            f"{first} and {second} have other labels under the same keys; "
            "evaluate both on the same shards, with intervals by the same field"
        )
    return a, b


def _rows(path: str, keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of `wanted` among keys, int64, -1 where not there.

    Raises HandclrError where a key comes twice.
    """
    twice = repeated_key(keys)
    if twice is not None:
        raise HandclrError(
            f"{path}: key {twice.decode('utf-8', 'replace')} appears twice; keys must be unique"
        )
    rows = {key: row for row, key in enumerate(keys.tolist())}
    return np.array([rows.get(key, -1) for key in wanted.tolist()], np.int64)
