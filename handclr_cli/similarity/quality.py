"""Mined pairs measured by the true 3D hands, beside random pairs and the best possible ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..hand.alignment import root_relative
from .truth import BY_KEY

QUERIES = 2000
QUERY_TILE = 128
POOL_TILE = 2048
DEFINITION = (
    "3D distance between two crops in mm: each hand moved so that its wrist is the origin, "
    "no rotation, no scale; the mean over the 21 joints of the Euclidean distance. "
    "Query: a crop with truth whose positive has truth; where there are more of them than queries, "
    "these are a sample by the seed. Mined: the query's nearest positive. "
    "Random: a crop with truth of another video (another group, where some are kept from pairing), "
    "drawn by the seed. Best: the nearest such crop by this very distance. "
    "Mean and median are over the same queries in all three."
)


@dataclass(frozen=True)
class PairQuality:
    """Distances of Q queries in mm, and what was counted.

    `rows` (Q,) int64, ascending; `mined_mm`, `random_mm`, `best_mm` (Q,) float64. `pool` counts the
    rows with truth, `pairs` the queries that could be measured. Of the crops asked about,
    `without_truth` have no truth, and `unpaired` have no positive or one without truth. `joined`
    says how the truth of a crop was found.
    """

    rows: np.ndarray
    mined_mm: np.ndarray
    random_mm: np.ndarray
    best_mm: np.ndarray
    pool: int
    pairs: int
    without_truth: int
    unpaired: int
    joined: str = BY_KEY

    def report(self) -> dict[str, Any]:
        """The numbers ready for JSON; a mean or median of nothing is None."""
        return {
            "queries": len(self.rows),
            "pairs": self.pairs,
            "without_truth": self.without_truth,
            "unpaired": self.unpaired,
            "pool": self.pool,
            "mined_mm": _summary(self.mined_mm),
            "random_mm": _summary(self.random_mm),
            "best_mm": _summary(self.best_mm),
            "definition": f"{DEFINITION} {self.joined}",
        }


def pair_quality(
    keypoints3d: np.ndarray,
    video_id: np.ndarray,
    asked: np.ndarray,
    positive: np.ndarray,
    pool_size: int | None = None,
    queries: int = QUERIES,
    seed: int = 0,
) -> PairQuality:
    """Measure mined pairs by the true hands, beside random pairs and the best possible ones.

    keypoints3d: (N, 21, 3) metres, rows that are not finite have no truth; video_id: (N,) integers;
    asked: (A,) the rows that positives were looked for, ascending; positive: (A,) rows, -1 where
    none, and one of the own video counts as none. The first `pool_size` rows, or all, are the pool
    that positive, random and best are chosen from. At most `queries` rows are measured, a sample
    by `seed`; crops of a row's own video are neither its random nor its best. Costs `queries` x N x
    21.
    """
    known = np.isfinite(keypoints3d).all(axis=(1, 2))
    pool = np.flatnonzero(known[:pool_size])
    is_pair = (positive >= 0) & (video_id[positive] != video_id[asked])
    paired = is_pair & known[asked] & known[positive]
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(np.flatnonzero(paired))[:queries])
    rows = asked[chosen]
    drawn = _random_others(rng, rows, pool, video_id)
    best = _nearest_others(keypoints3d, rows, pool, video_id)
    return PairQuality(
        rows,
        pair_distance_mm(keypoints3d[rows], keypoints3d[positive[chosen]]),
        pair_distance_mm(keypoints3d[rows], keypoints3d[drawn]),
        pair_distance_mm(keypoints3d[rows], keypoints3d[best]),
        pool=len(pool),
        pairs=int(paired.sum()),
        without_truth=int((~known[asked]).sum()),
        unpaired=int((known[asked] & ~paired).sum()),
    )


def pair_distance_mm(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The root-aligned distance of hands, row by row: (Q, 21, 3) metres in, (Q,) float64 mm out.

    The wrist of each is moved to the origin; the mean over the 21 joints of the Euclidean distance.
    """
    first, second = (root_relative(hands.astype(np.float64)) for hands in (first, second))
    return 1000 * np.linalg.norm(first - second, axis=-1).mean(axis=-1)


def _random_others(
    rng: np.random.Generator, rows: np.ndarray, pool: np.ndarray, video_id: np.ndarray
) -> np.ndarray:
    """Draw for each row a row of the pool, evenly among those of other videos; needs one."""
    by_video = pool[np.argsort(video_id[pool], kind="stable")]
    ordered, own = video_id[by_video], video_id[rows]
    begin, end = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
    place = rng.integers(len(pool) - (end - begin))
    return by_video[np.where(place < begin, place, place + end - begin)]


def _nearest_others(
    keypoints3d: np.ndarray, rows: np.ndarray, pool: np.ndarray, video_id: np.ndarray
) -> np.ndarray:
    """Find for each row the nearest row of another video in the pool, of equal ones the lower."""
    nearest = np.full(len(rows), -1, np.int64)
    for start in range(0, len(rows), QUERY_TILE):
        part = slice(start, start + QUERY_TILE)
        queries = _by_joint(keypoints3d[rows[part]])
        least = np.full(len(rows[part]), np.inf, np.float32)
        for at in range(0, len(pool), POOL_TILE):
            others = pool[at : at + POOL_TILE]
            tile = _summed_distance(queries, _by_joint(keypoints3d[others]))
            tile[video_id[rows[part], None] == video_id[others]] = np.inf
            column, low = tile.argmin(axis=1), tile.min(axis=1)
            nearest[part] = np.where(low < least, others[column], nearest[part])
            least = np.minimum(least, low)
    return nearest


def _by_joint(hands: np.ndarray) -> np.ndarray:
    """(B, 21, 3) to float32 (20, 3, B) from the wrist, which is the origin and left out."""
    return np.ascontiguousarray(root_relative(hands)[:, 1:].transpose(1, 2, 0), dtype=np.float32)


def _summed_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum the distances of the joints for all pairs: (J, 3, A), (J, 3, B) to float32 (A, B)."""
    total = np.zeros((first.shape[2], second.shape[2]), np.float32)
    for one, other in zip(first, second, strict=True):
        squared = np.zeros_like(total)
        for along, across in zip(one, other, strict=True):
            difference = along[:, None] - across
            squared += np.square(difference, out=difference)
        total += np.sqrt(squared, out=squared)
    return total


def _summary(distance_mm: np.ndarray) -> dict[str, float | None]:
    if not len(distance_mm):
        return {"mean": None, "median": None}
    return {"mean": float(distance_mm.mean()), "median": float(np.median(distance_mm))}
