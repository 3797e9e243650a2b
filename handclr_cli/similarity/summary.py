"""Mined pairs in numbers: how far apart, how many are mutual, whether many choose the same few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

QUANTILES = {"min": 0, "p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "max": 100}
TILE = 1 << 22
DEFINITIONS = {
    "queries": "crops that a positive was looked for.",
    "videos": "different videos of the queries.",
    "without_positive": "queries for which no crop was allowed.",
    "pool": "crops that could be chosen.",
    "top_k": "positives looked for, K.",
    "distance": (
        "Euclidean distance between the pose embeddings of a query and its nearest positive, "
        "over the queries that have one: least, percentiles with linear interpolation, greatest."
    ),
    "mutual": (
        "of the queries whose nearest positive is a query too ('pairs'), "
        "the share that are in turn its nearest positive; "
        "null where the queries are not crops of the pool. "
        "Of crops at equal distance the first row is nearest."
    ),
    "most_chosen": (
        "the crop of the pool that is the nearest positive of the most queries "
        "(the first of several): its row, and of how many it is."
    ),
    "never_chosen": "share of the pool that is the nearest positive of no query.",
    "skewness": (
        "hubness (Radovanovic et al., JMLR 2010). "
        "N_K of a crop: how many queries have it among their K positives. "
        "The third central moment of N_K over the pool, "
        "divided by the cube of its standard deviation: near 0 where crops are chosen evenly, "
        "large where many choose a few hubs; null where N_K is the same for all."
    ),
}


@dataclass(frozen=True)
class PairSummary:
    """Counts, quantiles and shares of mined pairs; DEFINITIONS says what each is.

    `distance` has a value for each name in QUANTILES, None where no query has a positive. `mutual`
    and `never_chosen` are in 0..1. `mutual_pairs` counts what `mutual` is over; both are None where
    queries are not in the pool, and `mutual` where it is over nothing. `most_chosen_row` is a row
    of the pool, None where no crop is chosen.
    """

    queries: int
    videos: int
    without_positive: int
    pool: int
    top_k: int
    distance: dict[str, float | None]
    mutual: float | None
    mutual_pairs: int | None
    most_chosen_row: int | None
    most_chosen_times: int
    never_chosen: float | None
    skewness: float | None

    def report(self) -> dict[str, Any]:
        """The numbers and their definitions, ready for JSON."""
        return {
            "queries": self.queries,
            "videos": self.videos,
            "without_positive": self.without_positive,
            "pool": self.pool,
            "top_k": self.top_k,
            "distance": dict(self.distance),
            "mutual": {"share": self.mutual, "pairs": self.mutual_pairs},
            "most_chosen": {"row": self.most_chosen_row, "times": self.most_chosen_times},
            "never_chosen": self.never_chosen,
            "skewness": self.skewness,
            "definitions": DEFINITIONS,
        }


def summarise(
    positive: np.ndarray,
    distance: np.ndarray,
    query_rows: np.ndarray | None,
    video: np.ndarray,
    pool: int,
) -> PairSummary:
    """Summarise mined pairs.

    positive: (Q, K) int32 rows of the pool, nearest first, -1 where none; distance: (Q, K) float32,
    inf there; query_rows: (Q,) int64, the row of the pool that each query is, all different, or
    None where queries are not in the pool; video: (Q,) integers, the video of each query; pool:
    rows that could be chosen. Costs Q K.
    """
    nearest = positive[:, 0]
    paired = nearest >= 0
    mutual = mutual_pairs = None
    if query_rows is not None:
        mutual, mutual_pairs = _mutual(nearest, query_rows, pool)
    chosen = np.bincount(nearest[paired], minlength=pool)
    times = int(chosen.max(initial=0))
    return PairSummary(
        queries=len(positive),
        videos=len(np.unique(video)),
        without_positive=int((~paired).sum()),
        pool=pool,
        top_k=positive.shape[1],
        distance=_quantiles(distance[paired, 0]),
        mutual=mutual,
        mutual_pairs=mutual_pairs,
        most_chosen_row=int(chosen.argmax()) if times else None,
        most_chosen_times=times,
        never_chosen=float((chosen == 0).mean()) if pool else None,
        skewness=_skewness(_occurrences(positive, pool)),
    )


def _quantiles(distance: np.ndarray) -> dict[str, float | None]:
    if not len(distance):
        return dict.fromkeys(QUANTILES)
    values = np.percentile(distance.astype(np.float64), list(QUANTILES.values()))
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def _mutual(nearest: np.ndarray, query_rows: np.ndarray, pool: int) -> tuple[float | None, int]:
    """The share of mutual pairs, and over how many: those whose positive is itself a query."""
    query_of = np.full(pool, -1, np.int64)
    query_of[query_rows] = np.arange(len(query_rows))
    asked = np.flatnonzero(nearest >= 0)
    partner = query_of[nearest[asked]]
    asked, partner = asked[partner >= 0], partner[partner >= 0]
    if not len(asked):
        return None, 0
    return float((nearest[partner] == query_rows[asked]).mean()), len(asked)


def _occurrences(positive: np.ndarray, pool: int) -> np.ndarray:
    """How often each row of the pool is a positive, (pool,) int64, at whichever of the K ranks."""
    counts = np.zeros(pool, np.int64)
    step = max(1, TILE // max(1, positive.shape[1]))
    for start in range(0, len(positive), step):
        part = positive[start : start + step]
        counts += np.bincount(part[part >= 0], minlength=pool)
    return counts


def _skewness(counts: np.ndarray) -> float | None:
    if not len(counts) or (counts == counts[0]).all():
        return None
    apart = counts - counts.mean()
    return float((apart**3).mean() / (apart**2).mean() ** 1.5)
