"""Mined pairs: queries, the pool, which row of it is whose positive, and where their crops are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .index import ShardIndex


@dataclass(frozen=True)
class Pairs:
    """Queries and the pool by their keys, with the positives of each query.

    `key` bytes (Q,) and `video` (Q,) are the queries' keys and the numbers of their videos,
    `target` bytes (M,) and `target_video` (M,) those of the pool. `positive` (Q, K) int32 are rows
    of the pool, nearest first, -1 where none; `distance` (Q, K) float32, inf there.
    """

    key: np.ndarray
    video: np.ndarray
    target: np.ndarray
    target_video: np.ndarray
    positive: np.ndarray
    distance: np.ndarray

    def arrays(self, elsewhere: bool) -> dict[str, np.ndarray]:
        """The arrays of a pairs file.

        Where positives are `elsewhere` than among the queries, the file names each of them once.
        """
        if not elsewhere:
            return {"key": self.key, "positive": self.positive, "distance": self.distance}
        used = np.unique(self.positive[self.positive >= 0])
        place = np.where(self.positive < 0, -1, np.searchsorted(used, self.positive))
        return {
            "key": self.key,
            "target": self.target[used],
            "positive": place.astype(np.int32),
            "distance": self.distance,
        }


@dataclass(frozen=True)
class PairCrops:
    """Where the crops of pairs are: positions in `index`, -1 where it lacks one.

    `place` (Q,) int64 are those of the queries, `target_place` (M,) int64 those of the pool.
    """

    index: ShardIndex
    place: np.ndarray
    target_place: np.ndarray
