"""The nearest poses in any other video: J = SiM(I) (Eq. 1), exact Euclidean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TILE = 1 << 22
CHUNK = 1 << 18


def mine_exact(
    embedding: np.ndarray, group: np.ndarray, top_k: int = 1, on_rows: Callable[[int], None] = lambda rows: None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the `top_k` nearest rows of other groups for every row.

    embedding: (N, D) finite; group: (N,) integers, the video of each row. Returns positive int32 (N, K),
    nearest first, ties to the lower row, -1 where there are too few; and distance float32 (N, K), inf there.
    Distances are computed in tiles in float64 by the expanded square, whose error a margin covers; whatever
    the margin leaves open is decided by the direct difference. Costs N^2 D.
    """
    given = np.asarray(embedding, np.float64)
    points = given - given.mean(axis=0) if len(given) else given
    squares = (points**2).sum(axis=1)
    slack = 64 * np.finfo(np.float64).eps * max(float(squares.max(initial=0.0)), np.finfo(np.float64).tiny)
    positive = np.full((len(points), top_k), -1, np.int32)
    distance = np.full((len(points), top_k), np.inf, np.float32)
    step = max(1, TILE // max(len(points), 1))
    for start in range(0, len(points), step):
        rows = slice(start, min(start + step, len(points)))
        tile = squares[rows, None] + squares[None] - 2 * points[rows] @ points.T
        tile[group[rows, None] == group[None]] = np.inf
        _nearest(given, tile, rows.start, slack, positive[rows], distance[rows])
        on_rows(rows.stop - rows.start)
    return positive, distance


def _nearest(
    points: np.ndarray, tile: np.ndarray, start: int, slack: float, positive: np.ndarray, distance: np.ndarray
) -> None:
    """Fill the rows of `positive` and `distance` from approximate squared distances with error below `slack`."""
    top_k = min(positive.shape[1], tile.shape[1])
    kth = tile.min(axis=1) if top_k == 1 else np.partition(tile, top_k - 1, axis=1)[:, top_k - 1]
    kth = np.where(np.isfinite(kth), kth, np.finfo(np.float64).max)
    rows, columns = np.nonzero(tile <= kth[:, None] + slack)
    squared = np.empty(len(rows))
    for at in range(0, len(rows), CHUNK):  # equal points may leave the whole tile open
        part = slice(at, at + CHUNK)
        squared[part] = ((points[rows[part] + start] - points[columns[part]]) ** 2).sum(axis=1)
    order = np.lexsort((columns, squared, rows))
    rows, columns, squared = rows[order], columns[order], squared[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    best = rank < top_k
    positive[rows[best], rank[best]] = columns[best]
    distance[rows[best], rank[best]] = np.sqrt(squared[best])
