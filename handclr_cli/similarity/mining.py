"""From a search to positives: mutual ones, videos of the same footage, and hnsw's recall."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..contract.poses import PoseTable
from .neighbours import EmbeddedPoses, Neighbours
from .pool import Engine, Pool, Request

if TYPE_CHECKING:
    from .duplicates import DuplicatePair

RECALL_QUERIES = 1000


@dataclass(frozen=True)
class Mined:
    """The positives of Q queries.

    `positive` int32 (Q, K) are rows of the pool, -1 where there is none; `distance` float32 (Q, K),
    inf there. `recall` is the share of `recall_queries` sampled queries whose nearest was found;
    None where the engine is exact. `left_to_tree` counts the queries that the engine could not
    answer for certain and left to the exact one.
    """

    positive: np.ndarray
    distance: np.ndarray
    recall: float | None = None
    recall_queries: int = 0
    left_to_tree: int = 0

    def nearest(self, share: float) -> Mined:
        """Only the positives within the distance that a share of the queries keeps its nearest at.

        share: 0..1, of the queries that have a positive; 1 keeps all. Queries at the very same
        distance are kept or left together, so there may be more.
        """
        first = np.sort(self.distance[self.positive[:, 0] >= 0, 0])
        kept = max(1, math.ceil(round(share * len(first), 6)))
        if kept >= len(first):
            return self
        near = self.distance <= first[kept - 1]
        return replace(
            self,
            positive=np.where(near, self.positive, np.int32(-1)),
            distance=np.where(near, self.distance, np.inf),
        )


def mine(
    queries: PoseTable,
    span: slice,
    pool: Pool,
    request: Request,
    symmetric: bool = False,
    seed: int = 0,
) -> Mined:
    """Mine the positives of a span of the queries.

    `symmetric` keeps mutual ones only; the pool must then be the queries' own.
    """
    every = queries.embedding()
    embedding, video = every[span], queries.video[span]
    found = pool.search(embedding, video, request, "mine")
    left, (positive, distance) = pool.left_to_tree(), found.positives()
    if symmetric:

        def positives_of(rows: np.ndarray) -> np.ndarray:
            return pool.search(every[rows], queries.video[rows], request, "mutual").positives()[0]

        rows = np.arange(len(queries))[span]
        positive, distance = only_mutual(positive, distance, rows, positives_of)
    if pool.engine.name != "hnsw":
        return Mined(positive, distance, left_to_tree=left)
    return Mined(positive, distance, *_recall(found, embedding, video, pool, request, seed), left)


def same_footage(queries: PoseTable, pool: Pool) -> list[DuplicatePair]:
    """The groups of the queries that show the same footage as another group of the pool."""
    from .duplicates import NEAREST, find_duplicates

    embedding = queries.embedding()
    found = pool.search(embedding, queries.video, Request(NEAREST, distinct=True), "duplicates")
    return find_duplicates(EmbeddedPoses(embedding, pool.groups[queries.video]), found)


def only_mutual(
    positive: np.ndarray,
    distance: np.ndarray,
    rows: np.ndarray,
    positives_of: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Keep a positive only where its query is among the positive's own; what is kept moves up.

    positive: (Q, K) rows, -1 where none; distance: (Q, K); rows: (Q,) the queries' own rows;
    positives_of: finds the positives (R, K) of other rows (R,).
    """
    asked, place = np.nonzero(positive >= 0)
    chosen = positive[asked, place].astype(np.int64)
    others = np.setdiff1d(chosen, rows)
    owners, lists = np.concatenate([rows, others]), positive
    if len(others):
        lists = np.concatenate([positive, positives_of(others)])
    by_owner = np.argsort(owners, kind="stable")
    theirs = by_owner[np.searchsorted(owners, chosen, sorter=by_owner)]
    mutual = np.zeros(len(asked), bool)
    for column in lists.T:
        mutual |= column[theirs] == rows[asked]
    asked, place = asked[mutual], place[mutual]
    rank = np.arange(len(asked)) - np.searchsorted(asked, asked)
    kept, apart = np.full_like(positive, -1), np.full_like(distance, np.inf)
    kept[asked, rank], apart[asked, rank] = positive[asked, place], distance[asked, place]
    return kept, apart


def _recall(
    found: Neighbours,
    embedding: np.ndarray,
    video: np.ndarray,
    pool: Pool,
    request: Request,
    seed: int,
) -> tuple[float | None, int]:
    if not len(video):
        return None, 0
    rows = np.sort(np.random.default_rng(seed).permutation(len(video))[:RECALL_QUERIES])
    exact = Pool(pool.table, pool.groups, Engine("exact-cpu", pool.engine.threads), pool.progress)
    nearest = exact.search(embedding[rows], video[rows], replace(request, top_k=1), "recall")
    return float((found.squared[rows, 0] == nearest.squared[:, 0]).mean()), len(rows)
