"""The same footage under two names: videos that share an improbable number of coincident poses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta, binom

from .neighbours import NOBODY, EmbeddedPoses, Neighbours

NEAREST = 8
RATIO = 1 / 3
EXACT = 1e-4
APART = 1 / 2
LEAST_POSES = 3
LEAST_SHARE = 0.25
LEVEL = 1e-3
LEAST_DIMENSION = 2.0
CROPS_TO_TRUST = 50
CROPS_TO_FIT = 1 << 18
CROPS_PER_PAIR = 2000
CHUNK = 1 << 18


@dataclass(frozen=True, order=True)
class DuplicatePair:
    """Two groups that show the same footage, the lower number first.

    Of `crops` distinct poses of one group whose nearest group is the other, `coincident` coincide
    with it. `log10_chance` is the logarithm of the probability of as many by chance, in any of the
    pairs that were tested.
    """

    first: int
    second: int
    coincident: int
    crops: int
    log10_chance: float

    def report(self, names: Sequence[str]) -> dict[str, Any]:
        """The fields, with the names of the groups in place of their numbers."""
        return {**asdict(self), "first": names[self.first], "second": names[self.second]}


class _Entries(NamedTuple):
    """Crops with a group that each may coincide with, all (E,).

    Sorted by `pair`, which packs the numbers of both groups, then by `crop`.
    """

    pair: np.ndarray
    crop: np.ndarray
    apart: np.ndarray  # how far another crop must be to count as well
    coincident: np.ndarray
    exact: np.ndarray

    def take(self, rows: np.ndarray | slice) -> _Entries:
        return _Entries(*(values[rows] for values in self))


def find_duplicates(queries: EmbeddedPoses, found: Neighbours) -> list[DuplicatePair]:
    """Find the groups that are the same footage, by the nearest distinct groups of each query.

    queries: all crops of the videos asked for, of a whole pool or only new ones, in the order of
    time. found: (Q, K) with `distinct`, K = NEAREST for up to NEAREST - 1 other copies of a video;
    it may have a greatest distance. Pairs come in ascending order. Raises ValueError where `found`
    is not distinct.

    A crop coincides with its j nearest groups where they are within RATIO of the distance to the
    next group. Chance does that with probability RATIO^m in m dimensions, whatever the density
    (Facco et al., Estimating the intrinsic dimension of datasets by a minimal neighborhood
    information, 2017). Frames of a slow video are not independent: of crops nearer to each other
    than APART of that next distance, or so near that both might coincide with one and the same
    pose, one counts. Where no next group is known, only poses equal up to EXACT of the spread
    coincide.
    """
    if not found.distinct:
        raise ValueError("near-duplicates are found among the nearest rows of distinct groups")
    if not found.row.size:
        return []
    exact = EXACT * _spread(queries.embedding)
    log_chances = intrinsic_dimension(queries, found) * np.log([RATIO, EXACT])
    tests, pairs = _pairs_to_test(_entries(queries.group, found, exact))
    best: dict[tuple[int, int], DuplicatePair] = {}
    for entries in pairs:
        distinct = entries.take(_net(queries.embedding[entries.crop], entries.apart))
        counted = (distinct.coincident, distinct.exact)
        for hits, log_chance in zip(counted, log_chances, strict=True):
            numbers = int(entries.pair[0]), int(hits.sum()), len(hits)
            pair = _judge(*numbers, log_chance, len(log_chances) * tests)
            if pair is not None:
                known = best.get((pair.first, pair.second), pair)
                best[pair.first, pair.second] = min(known, pair, key=lambda one: one.log10_chance)
    return sorted(best.values())


def intrinsic_dimension(queries: EmbeddedPoses, found: Neighbours) -> float:
    """Estimate the dimension m of the poses near each other, from LEAST_DIMENSION to D.

    (d_h / d_K)^m is Beta(h, K - h); its median over crops with all K places gives m. From h = K / 2
    on, so that it hardly matters whether every video is there once or twice. LEAST_DIMENSION, the
    cautious end, where less than CROPS_TO_TRUST crops tell.
    """
    size, top_k = queries.embedding.shape[1], found.row.shape[1]
    half = max(top_k // 2, 1)
    part = slice(None, None, -(-len(found.row) // CROPS_TO_FIT))
    near, far = found.squared[part, half - 1], found.squared[part, -1]
    usable = (near > 0) & (found.row[part, -1] != NOBODY)
    if half == top_k or usable.sum() < CROPS_TO_TRUST:
        return min(LEAST_DIMENSION, size)
    shrink = -float(np.log(np.median(near[usable] / far[usable]))) / 2
    expected = -float(np.log(beta.median(half, top_k - half)))
    return float(np.clip(expected / max(shrink, expected / size), min(LEAST_DIMENSION, size), size))


def _spread(embedding: np.ndarray) -> float:
    """The root mean square distance to the mean, of a part of the poses where they are many."""
    part = embedding[:: -(-len(embedding) // CROPS_TO_FIT)]
    return float(np.sqrt(part.var(axis=0, dtype=np.float64).sum()))


def _entries(group: np.ndarray, found: Neighbours, exact: float) -> _Entries:
    """Each crop with its nearest group, and all it coincides with."""
    parts = []
    for start in range(0, len(group), CHUNK):
        rows = slice(start, start + CHUNK)
        part = _entries_of(group[rows], found.take(rows), exact)
        parts.append(part._replace(crop=part.crop + start))
    entries = _Entries(*(np.concatenate(values) for values in zip(*parts, strict=True)))
    return entries.take(np.lexsort((entries.crop, entries.pair)))


def _entries_of(group: np.ndarray, found: Neighbours, exact: float) -> _Entries:
    there = found.row != NOBODY
    distance = np.sqrt(found.squared)
    depth, following = _depths(there, distance)
    equal = there & (distance <= exact)
    within = np.arange(there.shape[1]) < depth[:, None]
    nearest = there & (np.arange(there.shape[1]) == 0)
    crop, place = np.nonzero(within | equal | nearest)
    gap = following[crop, np.maximum(depth[crop], 1) - 1]
    alone = equal[crop, place] | ~np.isfinite(gap)
    coincident = (within | equal)[crop, place]
    # Crops nearer to each other than this might coincide with the same pose.
    shared = np.where(coincident, 2 * distance[crop, place], 0)
    apart = np.maximum(np.where(alone, 0, np.maximum(APART * gap, shared)), 3 * exact)
    pair = group[crop].astype(np.int64) << 32 | found.group[crop, place].astype(np.int64)
    return _Entries(pair, crop, apart, coincident, equal[crop, place])


def _depths(there: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of its nearest groups a crop coincides with (Q,), and the distance to the next one.

    there, distance: (Q, K), and so is the distance to the next group after each.
    """
    following = np.pad(distance[:, 1:], [(0, 0), (0, 1)], constant_values=np.inf)
    ends = there & np.isfinite(following) & (distance <= RATIO * following)
    return np.where(ends, np.arange(1, ends.shape[1] + 1), 0).max(axis=1), following


def _pairs_to_test(entries: _Entries) -> tuple[int, Iterator[_Entries]]:
    """Count the ordered pairs of groups with enough crops; yield the entries of the likely ones."""
    _, begin, count = np.unique(entries.pair, return_index=True, return_counts=True)
    hits = np.add.reduceat(entries.coincident, begin, dtype=np.int64) if len(begin) else begin
    tests = int((count >= LEAST_POSES).sum())
    worth = np.flatnonzero(hits >= LEAST_POSES)

    def spaced(first: int, length: int) -> _Entries:
        kept = min(length, CROPS_PER_PAIR)
        return entries.take(first + np.arange(kept) * length // kept)

    return tests, (spaced(int(begin[place]), int(count[place])) for place in worth)


def _net(points: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Rows (M,) of points that are farther from each other than either needs, the first come first.

    The order is that of time, so that coincident ones are not preferred.
    """
    points = points.astype(np.float64)
    left, kept = np.arange(len(points)), []
    while len(left):
        row, left = left[0], left[1:]
        kept.append(row)
        squared = ((points[left] - points[row]) ** 2).sum(axis=1)
        left = left[squared > np.maximum(apart[left], apart[row]) ** 2]
    return np.array(kept, np.intp)


def _judge(
    pair: int, coincident: int, crops: int, log_chance: float, tests: int
) -> DuplicatePair | None:
    """The pair, where it has enough coincidences and more than chance allows."""
    if coincident < max(LEAST_POSES, LEAST_SHARE * crops):
        return None
    tail = binom.logsf(coincident - 1, crops, np.exp(log_chance))
    if not np.isfinite(tail):  # too improbable for its logarithm: its leading term bounds it
        tail = crops * np.log(2) + coincident * log_chance
    log10 = float((tail + np.log(tests)) / np.log(10))
    if log10 >= np.log10(LEVEL):
        return None
    first, second = sorted((pair >> 32, pair & 0xFFFFFFFF))
    return DuplicatePair(first, second, coincident, crops, round(log10, 2))
