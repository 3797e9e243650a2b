"""Exact search without an index: every query against every pose of the pool, in tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .neighbours import EmbeddedPoses, Neighbours, squared_distance

TILE = 1 << 22
CHUNK = 1 << 18


class Tiles:
    """A pool that is searched row by row; its first row has the number `first_row` in answers."""

    def __init__(self, pool: EmbeddedPoses, first_row: int = 0) -> None:
        by_group = np.argsort(pool.group, kind="stable")
        self.pool, self.row = pool.take(by_group), by_group + first_row
        _, self.groups_begin = np.unique(self.pool.group, return_index=True)
        points = self.pool.embedding.astype(np.float64)
        self.centre = points.mean(axis=0) if len(points) else np.zeros(points.shape[1])
        self.points = points - self.centre
        self.squares = (self.points**2).sum(axis=1)

    def search(
        self, queries: EmbeddedPoses, found: Neighbours, on_rows: Callable[[int], None]
    ) -> None:
        """Improve `found` by the poses of this pool; ties go to the lower row. Costs Q N D.

        Distances are computed in float64 by the expanded square, whose error a margin covers;
        whatever the margin leaves open is decided by the direct difference.
        """
        step = max(1, TILE // max(len(self.points), 1))
        for start in range(0, len(queries.group), step):
            rows = slice(start, start + step)
            self._search_tile(queries.take(rows), found.take(rows))
            on_rows(len(queries.group[rows]))

    def _search_tile(self, queries: EmbeddedPoses, found: Neighbours) -> None:
        points = queries.embedding.astype(np.float64) - self.centre
        squares = (points**2).sum(axis=1)
        tile = squares[:, None] + self.squares - 2 * points @ self.points.T
        tile[queries.group[:, None] == self.pool.group] = np.inf
        float64 = np.finfo(np.float64)
        longest = squares.max(initial=0), self.squares.max(initial=0)
        largest = max(*map(float, longest), float64.tiny)
        slack = (8 * points.shape[1] + 64) * float64.eps * largest
        limit, last = found.squared[:, -1], found.row.shape[1] - 1
        rivals = np.minimum.reduceat(tile, self.groups_begin, axis=1) if found.distinct else tile
        if last < rivals.shape[1]:
            limit = np.minimum(limit, np.partition(rivals, last, axis=1)[:, last])
        limit = np.minimum(limit, float64.max)
        asked, row = np.nonzero(tile <= limit[:, None] + slack)
        for at in range(0, len(asked), CHUNK):  # equal points may leave the whole tile open
            who, what = asked[at : at + CHUNK], row[at : at + CHUNK]
            squared = squared_distance(queries.embedding[who], self.pool.embedding[what])
            found.offer(who, self.row[what], squared, self.pool.group[what])
