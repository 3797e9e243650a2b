"""Which crops are evaluated: those of the shards, or crops cut again around a detector's points."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import INTRINSICS, JOINT_COUNT, KEYPOINTS_2D
from ..contract.index import ShardIndex
from ..contract.provenance import Provenance
from ..contract.sample import Sample
from ..hand.camera import crop_camera, crop_turns
from ..hand.placement import given_camera
from ..hand.square import Box, cut, square_box, to_source
from .labels import Labels

# The margin that extract cuts by around the keypoints that it finds.
DETECTED_MARGIN = 1.5
_MAKERS = {"ground truth": {"import", "synth"}, "detected": {"extract"}}

# Called with crops; with what the landmarker found in them too, where it `takes_landmarks`.
Model = Callable[..., tuple[np.ndarray, np.ndarray]]


def crop_kind(origins: Sequence[Provenance]) -> str:
    """What the crops were cut by, as the history of their files says.

    "ground truth", "detected", both, or "unknown".
    """
    records = _records(origins)
    makers = set()
    for record in records:
        if _arguments(record).get("crop") == "detected":
            return "detected"
        makers.add(str(record.get("stage", "")).split(" ")[0])
    return " and ".join(kind for kind, stages in _MAKERS.items() if makers & stages) or "unknown"


def detected_kind(origins: Sequence[Provenance], labels: Labels) -> str:
    """What `predict_detected` cuts by.

    Raises HandclrError where the 2D keypoints are not those of a detector.
    """
    if not any(record.get("stage") == "keypoints" for record in _records(origins)):
        raise HandclrError(
            "the 2D keypoints are not a detector's; "
            "pipe the shards through handclr keypoints first, "
            "which then has to keep the crops without a hand",
            setting="crop",
        )
    where, found = crop_kind(origins), int(labels.seen.sum())
    return (
        f"detected: {DETECTED_MARGIN:g} times MediaPipe's keypoints, "
        f"looked for in the {where} crop; "
        f"found in {found} of {len(labels)}, the others as they were"
    )


def predict_detected(
    model: Model, index: ShardIndex, rows: np.ndarray, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predict from crops cut again around their 2D keypoints.

    Yields xyz (n, 21, 3) and uv (n, 21, 2) for each batch of rows. `model` takes crops, and, if it
    says so, landmarks in sides of these, and returns xyz and uv, in sides of what it was given;
    here uv is in sides of the crop in the shard, and xyz of one that has `own_axes` along those of
    its camera. A crop without 2D keypoints stays as it is; of one that cannot be decoded both are
    NaN.
    """
    has_own_axes = getattr(model, "own_axes", False)
    for first in range(0, len(rows), batch):
        part = rows[first : first + batch].tolist()
        crops, cuts, told = [], [], []
        for at, row in enumerate(part):
            sample = index[row]
            with contextlib.suppress(HandclrError):
                box = _detected_box(sample)
                landmarks = _landmarks_in(box, sample)
                turn = _turn_from(box, sample) if has_own_axes else np.eye(3)
                crops.append(cut(sample.image, box, sample.side, False))
                cuts.append((at, box, sample.side, turn))
                told.append(landmarks)
        hands, seen = (np.full((len(part), JOINT_COUNT, each), np.nan) for each in (3, 2))
        xyz, uv = model(crops, told) if getattr(model, "takes_landmarks", False) else model(crops)
        for hand, points, (at, box, side, turn) in zip(xyz, uv, cuts, strict=True):
            hands[at], seen[at] = hand @ turn.T, to_source(points, box, 1, False) / side
        yield hands, seen


def _landmarks_in(box: Box, sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
    """The landmarks that a sample holds, points (21, 2) in sides of a box, and world (21, 3)."""
    if sample.has_landmarks:
        return (sample.keypoints2d - box[:2]) / (box[2] - box[0]), sample.world3d
    return None


def _turn_from(box: Box, sample: Sample) -> np.ndarray:
    """The rotation (3, 3) from the axes of a box's own camera to those of the crop's own."""
    if INTRINSICS not in sample:
        return np.eye(3)
    camera = given_camera(sample)
    cameras = np.stack([camera, crop_camera(camera, box, sample.side)])
    whole, part = crop_turns(cameras, np.full(2, float(sample.side)))
    turn: np.ndarray = whole @ part.T
    return turn


def _detected_box(sample: Sample) -> Box:
    if KEYPOINTS_2D in sample:
        return square_box(sample.keypoints2d, DETECTED_MARGIN)
    return 0, 0, sample.side, sample.side


def _records(origins: Sequence[Provenance]) -> list[Provenance]:
    """The stages that made some files, as they describe themselves."""
    found: list[Provenance] = []
    for origin in origins:
        found += [*(origin.get("history") or ()), origin]
    return found


def _arguments(record: Provenance) -> dict[str, Any]:
    return record.get("arguments") or {}
