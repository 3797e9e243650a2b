"""The true hands of crops: by where a crop lies in its frame, or by its key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import JOINT_COUNT, KEYPOINTS_3D
from ..contract.index import ShardIndex
from ..contract.inputs import display_name
from ..contract.sample import Sample
from ..hand.square import Box, box_overlap

LEAST_OVERLAP = 0.3
MIRROR = np.array([-1, 1, 1])

BY_KEY = "Truth is looked up by key, so a hand taken for one of the other side has none."
BY_SQUARE = (
    "The truth of a crop is the hand of its frame whose square overlaps the crop's most, at least "
    f"{LEAST_OVERLAP:g} of their union, as the crop shows it: mirrored where the hand is taken for "
    "one of the other side; of a crop without frame and square, the hand under its key."
)

Place = tuple[str, int]


class TrueHands(NamedTuple):
    """The true hands of N crops: float32 (N, 21, 3) metres, NaN where none, and how they were
    found.
    """

    keypoints3d: np.ndarray
    joined: str


class TrueHand(NamedTuple):
    """A hand of a frame: its square in pixels of the frame, whether its sample is mirrored, and the
    row of that.
    """

    box: Box
    flipped: bool
    row: int


def true_hands(shards: Sequence[str], keys: np.ndarray, crops: ShardIndex | None) -> TrueHands:
    """The hands of shards with 3D keypoints under keys bytes (N,), or those that the crops show.

    Raises HandclrError where there are none.
    """
    truth = Truth(ShardIndex(shards), display_name(shards[0]))
    return truth.by_key(keys) if crops is None else truth.by_square(keys, crops)


class Truth:
    """Shards with 3D keypoints, by key and by the frames that the hands are in.

    name: of the shards, in messages.
    """

    def __init__(self, index: ShardIndex, name: str) -> None:
        self._index, self._name = index, name

    @cached_property
    def _frames(self) -> dict[Place, list[TrueHand]]:
        frames = defaultdict(list)
        for row, sample in enumerate(self._index):
            placed = place_of(sample)
            if placed and _is_whole(sample):
                place, box = placed
                frames[place].append(TrueHand(box, bool(sample.flipped), row))
        return frames

    def by_key(self, keys: np.ndarray) -> TrueHands:
        """The hands under keys bytes (N,).

        Raises HandclrError where none of the keys is in the shards, or none of them has 3D
        keypoints.
        """
        hands, place = _unknown(len(keys)), self._index.rows_of(keys)
        if (place < 0).all():
            why = f"no key in {self._name} is one of the poses"
            raise HandclrError(f"{why}; is this the truth of the same footage?", setting="truth")
        for row in np.flatnonzero(place >= 0).tolist():
            self._put(hands[row], place[row])
        if np.isnan(hands).all():
            why = f"no sample in {self._name} has {KEYPOINTS_3D.suffix}; name shards with 3D labels"
            raise HandclrError(why, setting="truth")
        return TrueHands(hands, BY_KEY)

    def by_square(self, keys: np.ndarray, crops: ShardIndex) -> TrueHands:
        """The hands that crops show, as they show them.

        keys bytes (N,) are looked up among the crops. Raises HandclrError where none of them has a
        hand.
        """
        hands = _unknown(len(keys))
        for row, crop in enumerate(crops.rows_of(keys).tolist()):
            if crop >= 0:
                self._find(crops[crop], hands[row])
        if np.isnan(hands).all():
            why = f"no crop shows a hand of {self._name}"
            raise HandclrError(f"{why}; is this the truth of the same footage?", setting="truth")
        return TrueHands(hands, BY_SQUARE)

    def nearest(self, sample: Sample) -> TrueHand | None:
        """The hand whose square overlaps that of a crop most; None where it overlaps none."""
        placed = place_of(sample)
        if placed is None:
            return None
        place, box = placed
        hands = self._frames.get(place, ())
        best = max(hands, key=lambda hand: box_overlap(box, hand.box), default=None)
        return best if best and box_overlap(box, best.box) >= LEAST_OVERLAP else None

    def sample(self, hand: TrueHand) -> Sample:
        """The sample that a hand is from."""
        return self._index[hand.row]

    def _find(self, crop: Sample, hand: np.ndarray) -> None:
        """Put the hand that a crop shows into (21, 3)."""
        if place_of(crop) is None:
            if crop.key in self._index:
                self._put(hand, self._index.row(crop.key))
            return
        nearest = self.nearest(crop)
        if nearest:
            hand[:] = self.sample(nearest).keypoints3d
            if nearest.flipped != bool(crop.flipped):
                hand *= MIRROR

    def _put(self, hand: np.ndarray, row: int) -> None:
        sample = self._index[row]
        if _is_whole(sample):
            hand[:] = sample.keypoints3d


def _is_whole(sample: Sample) -> bool:
    """Whether all joints have 3D labels: the others lie anywhere."""
    return KEYPOINTS_3D in sample and sample.is_whole


def place_of(sample: Sample) -> tuple[Place, Box] | None:
    """Video and frame of a crop, and its square; None where it is not cut out of a frame."""
    video, frame, box = sample.named_video, sample.info.get("frame"), sample.info.get("box")
    if video is None or type(frame) is not int or type(box) is not list:
        return None
    if [type(side) for side in box] != [int] * 4:
        return None
    x0, y0, x1, y1 = box
    return (video, frame), (x0, y0, x1, y1)


def _unknown(count: int) -> np.ndarray:
    return np.full((count, JOINT_COUNT, 3), np.nan, np.float32)
