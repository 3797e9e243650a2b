"""What every search works on: poses with their exclusion groups, and the nearest rows so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

NOBODY = np.iinfo(np.int32).max


class EmbeddedPoses(NamedTuple):
    """Poses to search, or to search for.

    `embedding` (N, D) float32, finite. `group` (N,) int32 from 0 on, the video of each pose or
    something coarser: poses of one group are never each other's positives.
    """

    embedding: np.ndarray
    group: np.ndarray

    def take(self, rows: np.ndarray | slice) -> EmbeddedPoses:
        """The poses of these rows."""
        return EmbeddedPoses(self.embedding[rows], self.group[rows])


@dataclass(frozen=True)
class Neighbours:
    """The K nearest rows of a pool for each of Q queries; a search improves them in place.

    `row` (Q, K) int32, NOBODY where there is none yet; `squared` (Q, K) float64 squared distances,
    ascending, equal ones by row; `group` (Q, K) int32, the groups of the rows. A place without a
    row holds the square of the greatest distance allowed: farther rows do not enter. With
    `distinct`, a group has one place at most.
    """

    row: np.ndarray
    squared: np.ndarray
    group: np.ndarray
    distinct: bool

    @classmethod
    def nobody(
        cls, queries: int, top_k: int, distinct: bool = False, max_distance: float = np.inf
    ) -> Neighbours:
        """Nothing searched yet."""
        shape, limit = (queries, top_k), float(max_distance)
        return cls(
            np.full(shape, NOBODY, np.int32),
            np.full(shape, limit * limit),  # not a power, which raises where it is too large
            np.full(shape, -1, np.int32),
            distinct,
        )

    def take(self, rows: np.ndarray | slice) -> Neighbours:
        """The neighbours of some queries: a copy where `rows` are numbers, a view of a slice."""
        return Neighbours(self.row[rows], self.squared[rows], self.group[rows], self.distinct)

    def put(self, rows: np.ndarray, found: Neighbours) -> None:
        """Replace the neighbours of some queries."""
        self.row[rows], self.squared[rows], self.group[rows] = found.row, found.squared, found.group

    def offer(
        self, queries: np.ndarray, row: np.ndarray, squared: np.ndarray, group: np.ndarray
    ) -> None:
        """Let candidates enter: for each (C,) its query, row, squared distance and group.

        Candidates of a query's own group must have been left out, and no row offered twice.
        """
        top_k = self.row.shape[1]
        better = squared <= self.squared[queries, -1]
        queries, row, squared, group = (values[better] for values in (queries, row, squared, group))
        asked, place = np.unique(queries, return_inverse=True)
        kept = np.repeat(np.arange(len(asked)), top_k)
        place = np.concatenate([kept, place])
        row = np.concatenate([self.row[asked].ravel(), row])
        squared = np.concatenate([self.squared[asked].ravel(), squared])
        group = np.concatenate([self.group[asked].ravel(), group])
        order = np.lexsort((row, squared, place))
        if self.distinct:
            order = order[_first_of_group(place[order], row[order], group[order])]
        place, row, squared, group = (values[order] for values in (place, row, squared, group))
        rank = np.arange(len(place)) - np.searchsorted(place, place)
        best = rank < top_k
        at = asked[place[best]], rank[best]
        self.row[at], self.squared[at], self.group[at] = row[best], squared[best], group[best]

    def positives(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows int32 (Q, K), -1 where none, and Euclidean distances float32 (Q, K), inf there."""
        found = self.row != NOBODY
        distance = np.where(found, np.sqrt(self.squared), np.inf).astype(np.float32)
        return np.where(found, self.row, -1), distance


class Searcher(Protocol):
    """A pool of poses made ready by one engine."""

    def search(
        self, queries: EmbeddedPoses, found: Neighbours, on_rows: Callable[[int], None]
    ) -> None:
        """Improve `found`, the rows of which are the queries', by the poses of the pool.

        Tells `on_rows` how many queries were answered, once for each part of them.
        """


class Fallback:
    """A searcher, made when first needed, for what another one could not answer for certain.

    `answered` counts the queries.
    """

    def __init__(self, make: Callable[[], Searcher]) -> None:
        self._make = make
        self._searcher: Searcher | None = None
        self.answered = 0

    def search(
        self,
        rows: np.ndarray,
        queries: EmbeddedPoses,
        found: Neighbours,
        on_rows: Callable[[int], None],
    ) -> None:
        """Improve the rows (R,) of `found`; those of the others stay as they are."""
        if not len(rows):
            return
        self._searcher = self._searcher or self._make()
        self.answered += len(rows)
        part = found.take(rows)
        self._searcher.search(queries.take(rows), part, on_rows)
        found.put(rows, part)


def squared_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of (..., D) and (..., D), broadcast: float64 (...).

    Summed axis by axis, never fused or regrouped: every engine does it in this order, so that all
    of them agree to the last bit and ties are ties everywhere.
    """
    total = np.zeros(np.broadcast_shapes(first.shape[:-1], second.shape[:-1]))
    for axis in range(first.shape[-1]):
        apart = first[..., axis].astype(np.float64) - second[..., axis]
        total += apart * apart
    return total


def _first_of_group(query: np.ndarray, row: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Of candidates sorted by query and distance, the first of each group and all empty places."""
    name = np.where(row == NOBODY, -1 - np.arange(len(row)), group)
    _, first = np.unique(np.stack([query, name], axis=1), axis=0, return_index=True)
    return np.sort(first)
