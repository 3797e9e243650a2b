"""The labelled crops that a pose model is trained on, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from ..contract.errors import HandclrError, NoCropsError, UsageError
from ..contract.fields import (
    IMAGE,
    INTRINSICS,
    JOINT_COUNT,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    VALID,
    WORLD_3D,
)
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from ..hand.alignment import root_relative
from ..hand.camera import crop_turns, project, turned
from ..hand.placement import given_camera
from ..hand.plausible import pixel_keypoints, require_hands
from ..work.skips import Skips
from .guide import Landmarks


@dataclass(frozen=True)
class TrainingLabels:
    """The labelled samples of an index.

    rows (N,) int64 in the index; names (N,) of unique samples, which may come in versions;
    keypoints2d (N, 21, 2) crop sides, keypoints3d (N, 21, 3) metres from the wrist along the axes
    of the crop's own camera, float32; valid (N, 21) bool: the joint has labels; posed (N,) bool:
    there are 3D labels, not 2D ones alone. What the landmarker found in the crops: guide2d (N, 21,
    2) crop sides, guide3d (N, 21, 3) metres, float32; guided (N,) bool: it found a hand. digests
    (N, 32) uint8: of what they were read from, to the bit, which what is computed from it is not on
    every processor.
    """

    rows: np.ndarray
    names: np.ndarray
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    valid: np.ndarray
    posed: np.ndarray
    guide2d: np.ndarray
    guide3d: np.ndarray
    guided: np.ndarray
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def corrected(self) -> np.ndarray:
        """Which say what is wrong with what the landmarker found, bool (N,): both are there."""
        return self.guided & self.posed

    def take(self, which: np.ndarray) -> TrainingLabels:
        """Some of them, by position or by a mask (N,)."""
        return TrainingLabels(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def hands(self) -> list[Landmarks | None]:
        """What the landmarker found in each crop: points (21, 2) crop sides, world (21, 3)."""
        known = zip(self.guide2d, self.guide3d, self.guided, strict=True)
        return [(points, world) if found else None for points, world, found in known]

    def followed_by(self, others: TrainingLabels) -> TrainingLabels:
        """These and then others of the same index."""
        pairs = ((getattr(self, name), getattr(others, name)) for name in self.__dataclass_fields__)
        return TrainingLabels(*map(np.concatenate, pairs))


def read_training_labels(
    index: ShardIndex, skips: Skips | None = None, flat: bool = False
) -> TrainingLabels:
    """Read the labels of all samples with 2D and 3D keypoints that can be used.

    With `flat` also of those with 2D keypoints alone. A sample is one with others where the JSON
    gives them the same `sample`; without it, each is unique. Raises HandclrError where none has 3D
    keypoints, or they are not of hands in metres.
    """
    skips = Skips() if skips is None else skips
    columns = [name for name in TrainingLabels.__dataclass_fields__ if name != "rows"]
    rows: list[int] = []
    known: list[dict[str, Any]] = []
    for row, sample in enumerate(index):
        if not (_is_posed(sample) or (flat and KEYPOINTS_2D in sample)):
            continue
        try:
            known.append(_label(sample))
        except HandclrError as error:
            skips.add(error)
            continue
        skips.used()
        rows.append(row)
    skips.check()
    if not len(index):
        raise NoCropsError
    if not any(label["posed"] for label in known):
        missing = f"no sample has labels, {KEYPOINTS_2D.suffix} and {KEYPOINTS_3D.suffix}"
        made = "make labelled shards by handclr import or handclr synth labelled"
        raise HandclrError(f"{missing}; {made}; handclr predict needs none")
    arrays = {}
    for name in columns:
        arrays[name] = np.array([label[name] for label in known])
    found = TrainingLabels(rows=np.array(rows), **arrays)
    posed = found.take(found.posed)
    require_hands(posed.keypoints3d, posed.valid, lambda row: index.keys[posed.rows[row]])
    return found


def _is_posed(sample: Sample) -> bool:
    """Whether a sample has 3D keypoints, and 2D ones or a camera that shows where they are seen."""
    return KEYPOINTS_3D in sample and (KEYPOINTS_2D in sample or INTRINSICS in sample)


def _label(sample: Sample) -> dict[str, Any]:
    """The labels of a sample, by the fields of TrainingLabels.

    Raises HandclrError where one is damaged, or the image is, as far as its bytes say, or where
    nothing tells where the hand is seen.
    """
    side, is_posed = np.float32(sample.checked_side()), KEYPOINTS_3D in sample
    is_found = sample.has_landmarks
    pose = np.zeros((JOINT_COUNT, 3), np.float32)
    if is_posed:
        pose = sample.keypoints3d
    # Of a labelled crop in which the landmarker has looked, the 2D keypoints are its own.
    if is_posed and (is_found or KEYPOINTS_2D not in sample):
        points = _projected(sample, pose)
    else:
        points = pixel_keypoints(sample)
    guide = np.full((JOINT_COUNT, 2), side / 2, np.float32), np.zeros((JOINT_COUNT, 3), np.float32)
    if is_found:
        guide = pixel_keypoints(sample), sample.world3d
    return {
        "names": str(sample.info.get("sample", sample.key)),
        "keypoints2d": points / side,
        "keypoints3d": _in_own_camera(sample, pose, side) if is_posed else pose,
        "valid": sample.valid,
        "posed": is_posed,
        "guide2d": guide[0] / side,
        "guide3d": guide[1],
        "guided": is_found,
        "digests": _digest(sample),
    }


def _digest(sample: Sample) -> np.ndarray:
    """The digest, uint8 (32,), of what is told of a crop; of its image, of the size alone."""
    found = sha256(str(sample.size_of(IMAGE)).encode())
    for field in (KEYPOINTS_2D, KEYPOINTS_3D, VALID, INTRINSICS, WORLD_3D):
        found.update(f" {sample.size_of(field)} ".encode())
        if field in sample:
            found.update(sample.payload(field)[0])
    return np.frombuffer(found.digest(), np.uint8)


def _projected(sample: Sample, pose: np.ndarray) -> np.ndarray:
    """Where the labelled joints of a pose (21, 3) are seen, crop px (21, 2); 0 for the others.

    Raises HandclrError without the camera.
    """
    if INTRINSICS not in sample:
        why = f"its {KEYPOINTS_2D.suffix} is the landmarker's, and without {INTRINSICS.suffix}"
        rest = "nothing tells where its labels are seen"
        raise HandclrError(f"{sample.source}: sample {sample.key}: {why} {rest}")
    points, valid = np.zeros((JOINT_COUNT, 2), np.float32), sample.valid
    points[valid] = project(pose[valid].astype(np.float64), given_camera(sample))
    return points


def _in_own_camera(sample: Sample, pose: np.ndarray, side: np.float32) -> np.ndarray:
    """A pose (21, 3) from the wrist, along the axes of the crop's own camera if that is known."""
    relative = root_relative(pose.astype(np.float64))
    if INTRINSICS in sample:
        turns = crop_turns(given_camera(sample)[None], np.array([float(side)]))
        relative = turned(relative[None], turns)[0]
    return relative.astype(np.float32)


def hold_out(
    labels: TrainingLabels, share: float, seed: int
) -> tuple[TrainingLabels, TrainingLabels]:
    """What to train on, and a seeded share of the unique samples, in all versions, held out."""
    held = _drawn(labels.names, share, [seed, 1]) if share else np.zeros(len(labels), bool)
    if held.all():
        raise UsageError("leaves nothing to train on", setting="hold_out")
    return labels.take(~held), labels.take(held)


def choose_fraction(labels: TrainingLabels, share: float, seed: int) -> TrainingLabels:
    """A seeded share of the unique samples, in all versions (FreiHAND has four of each).

    Not the first n of them, which would be of one studio.
    """
    return labels.take(_drawn(labels.names, share, seed))


def _drawn(names: np.ndarray, share: float, seed: int | list[int]) -> np.ndarray:
    unique = np.unique(names)
    count = max(1, round(share * len(unique)))
    return np.isin(names, np.random.default_rng(seed).permutation(unique)[:count])
