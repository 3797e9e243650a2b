"""Mined pairs: queries, the pool, and which row of it is whose positive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairs:
    """Keys bytes of the queries (Q,) and of the pool (M,) with the numbers of their videos, and the
    positives.

    `positive` (Q, K) int32 rows of the pool, nearest first, -1 where none; `distance` (Q, K)
    float32, inf there.
    """

    key: np.ndarray
    video: np.ndarray
    target: np.ndarray
    target_video: np.ndarray
    positive: np.ndarray
    distance: np.ndarray

    def arrays(self, elsewhere: bool) -> dict[str, np.ndarray]:
        """The arrays of a pairs file; positives that are `elsewhere` than among the queries are
        named, each once.
        """
        if not elsewhere:
            return {"key": self.key, "positive": self.positive, "distance": self.distance}
        used = np.unique(self.positive[self.positive >= 0])
        place = np.where(self.positive < 0, -1, np.searchsorted(used, self.positive)).astype(
            np.int32
        )
        return {
            "key": self.key,
            "target": self.target[used],
            "positive": place,
            "distance": self.distance,
        }
