"""The positives of which the crops can be shown: their images and keypoints are whole."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from ..hand.plausible import pixel_keypoints
from ..work.skips import Skips
from .positives import Positives


class Usable(NamedTuple):
    """Positives that can be shown, and the number of crops of a doubtful side, which are left out.

    keypoints: the digest of those that the crops have, empty where none are needed.
    """

    pool: Positives
    doubtful: int
    keypoints: bytes

    def contents(self) -> dict[str, bytes]:
        """What a run is known by, of its keypoints."""
        return {"keypoints": self.keypoints} if self.keypoints else {}


def usable_positives(
    index: ShardIndex, pool: Positives, least_side_score: float, posed: bool, skips: Skips
) -> Usable:
    """The positives without crops that cannot be shown.

    Those are of a side that is less sure, their images are damaged or, where crops are to be
    `posed`, their keypoints. Raises HandclrError where none is left, or crops lack the keypoints
    that are needed.
    """
    doubtful = _doubtful(index, pool, least_side_score, skips)
    pool = pool.without(doubtful)
    unusable, keypoints = _unusable(index, pool, posed, skips)
    return Usable(pool.without(unusable), int(doubtful.sum()), keypoints)


def _doubtful(index: ShardIndex, pool: Positives, least: float, skips: Skips) -> np.ndarray:
    """The rows of an index, bool (N,), that could be shown and whose side is less sure.

    Where the JSON cannot be read, the row is skipped. Raises HandclrError where no pair is left.
    """
    doubtful = np.zeros(len(index), bool)
    if not least > 0:
        return doubtful
    for row in np.unique(pool.table()).tolist():
        if row < 0:
            continue
        try:
            score = index[row].side_score
        except HandclrError as error:
            skips.add(error)
            score = -1.0
        doubtful[row] = score is not None and score < least
    if not len(pool.without(doubtful)):
        raise HandclrError("leaves no pair of crops; ask for less", setting="min_side_score")
    return doubtful


def _unusable(
    index: ShardIndex, pool: Positives, posed: bool, skips: Skips
) -> tuple[np.ndarray, bytes]:
    """The rows of an index, bool (N,), that are to be shown and cannot.

    Also the digest of the keypoints of the others, where crops are to be `posed`. Raises
    HandclrError where crops have none, or none can be used.
    """
    unusable, keypoints = np.zeros(len(index), bool), sha256()
    for row in np.unique(pool.table()).tolist():
        if row < 0:
            continue
        error = index.damaged.get(row)
        if error is None and posed:
            sample = index[row]
            error = _damage(sample)
        if error is not None:
            unusable[row] = True
            skips.add(error)
            continue
        skips.used()
        if posed:
            keypoints.update(sample.payload(KEYPOINTS_2D)[0])
    skips.check()
    return unusable, keypoints.digest() if posed else b""


def _damage(sample: Sample) -> HandclrError | None:
    """What is wrong with the keypoints of a sample; raises HandclrError where it has none."""
    if KEYPOINTS_2D not in sample:
        sample.read(KEYPOINTS_2D)
    try:
        pixel_keypoints(sample)
        if not sample.has_pose:
            why = "some joints have no label; find its keypoints by handclr keypoints"
            return HandclrError(f"{sample.source}: sample {sample.key}: {why}")
    except HandclrError as error:
        return error
    return None
