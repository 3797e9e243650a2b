"""Mining as a plain loop, and any engine's answers beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours, Searcher

Engine = Callable[[EmbeddedPoses, int], Searcher]


def poses(embedding: object, group: object) -> EmbeddedPoses:
    return EmbeddedPoses(np.asarray(embedding, np.float32), np.asarray(group, np.int32))


def by_hand(
    queries: EmbeddedPoses,
    pool: EmbeddedPoses,
    top_k: int,
    distinct: bool = False,
    max_distance: float = np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 1 as it is written: for every query, sort the poses of other groups by distance, then by
    row.
    """
    positive = np.full((len(queries.group), top_k), -1, np.int32)
    distance = np.full((len(queries.group), top_k), np.inf, np.float32)
    points = pool.embedding.astype(np.float64)
    for query, (point, own) in enumerate(
        zip(queries.embedding.astype(np.float64), queries.group, strict=True)
    ):
        squared = ((points - point) ** 2).sum(axis=1)
        found: list[int] = []
        for row in np.lexsort((np.arange(len(points)), squared)).tolist():
            taken = distinct and pool.group[row] in pool.group[found]
            if (
                pool.group[row] != own
                and squared[row] <= max_distance**2
                and not taken
                and len(found) < top_k
            ):
                found.append(row)
        positive[query, : len(found)] = found
        distance[query, : len(found)] = np.sqrt(squared[found])
    return positive, distance


def search(
    engine: Engine,
    queries: EmbeddedPoses,
    pool: EmbeddedPoses,
    top_k: int = 1,
    distinct: bool = False,
    max_distance: float = np.inf,
    cut: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """What an engine finds; a `cut` gives it the pool in two parts."""
    found = Neighbours.nobody(len(queries.group), top_k, distinct, max_distance)
    reported: list[int] = []
    for part in (slice(0, cut), slice(cut, None)) if cut else (slice(0, None),):
        engine(pool.take(part), part.start).search(queries, found, reported.append)
        assert sum(reported) == len(queries.group)
        reported.clear()
    return found.positives()


def check(
    engine: Engine, pool: EmbeddedPoses, top_k: int = 1, **asked: object
) -> tuple[np.ndarray, np.ndarray]:
    """Compare every row of a pool against itself with the loop."""
    positive, distance = search(engine, pool, pool, top_k, **asked)  # type: ignore[arg-type]
    asked.pop("cut", None)
    expected, apart = by_hand(pool, pool, top_k, **asked)  # type: ignore[arg-type]
    np.testing.assert_array_equal(positive, expected)
    np.testing.assert_allclose(distance, apart, rtol=1e-6)
    assert (positive.dtype, distance.dtype) == (np.int32, np.float32)
    return positive, distance
