"""Which pairs to show to people: a sheet of crops beside their positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from .. import console
from ..choices import RankName
from ..console import printable
from ..contract.errors import HandclrError, UsageError
from ..contract.fields import KEYPOINTS_2D
from ..contract.pairs import PairCrops, Pairs
from ..contract.sample import KEY
from .sheets import Tile, pair_sheet

RANKS: tuple[str, ...] = get_args(RankName)
POSITIVES_SHOWN = 8


def pairs_page(pairs: Pairs, crops: PairCrops, rank: str, count: int, seed: int) -> np.ndarray:
    """Draw `count` queries beside their positives, chosen by `rank`: an RGB uint8 page.

    Raises HandclrError where there is no pair, or no pair whose crops are both there.
    """
    if not (pairs.positive >= 0).any():
        raise HandclrError("there are no pairs to draw", setting="sheet")
    nearest = pairs.positive[:, 0]
    there = (crops.place >= 0) & (crops.target_place[nearest] >= 0)
    rows = np.flatnonzero((nearest >= 0) & there)
    if not len(rows):
        why = "the crops in the shards are not those of the pairs"
        raise HandclrError(why, setting="sheet")
    videos = pairs.video[rows], pairs.target_video[nearest[rows]]
    chosen = rows[choose_rows(pairs.distance[rows, 0], rank, count, seed, *videos)]
    drawn = []
    for row in chosen.tolist():
        try:
            drawn.append(_tiles(pairs, row, crops))
        except HandclrError as error:
            console.warn(f"{error}; not drawn")
    return pair_sheet(drawn)


def _tiles(pairs: Pairs, row: int, crops: PairCrops) -> list[Tile]:
    """A query and its first positives that have a picture."""
    chosen = pairs.positive[row]
    place = crops.target_place[chosen]
    ranks = np.flatnonzero((chosen >= 0) & (place >= 0))[:POSITIVES_SHOWN]
    samples = [crops.index[at] for at in (crops.place[row], *place[ranks])]
    keys = [sample.key for sample in samples]
    captions = pair_captions(keys[0], keys[1:], pairs.distance[row, ranks], ranks + 1)
    tiles = []
    for sample, caption in zip(samples, captions, strict=True):
        keypoints = sample.keypoints2d if KEYPOINTS_2D in sample else None
        tiles.append(Tile(sample.image, caption, keypoints))
    return tiles


def choose_rows(
    distance: np.ndarray,
    rank: str,
    count: int,
    seed: int = 0,
    video: np.ndarray | None = None,
    positive_video: np.ndarray | None = None,
) -> np.ndarray:
    """Choose at most `count` queries whose pairs to show: their rows, int64.

    distance: (Q,) of each query's positive, not finite where there is none: never shown. rank:
    "best", nearest first; "worst", farthest first; "quantiles", at even ranks from the nearest to
    the farthest, both among them; "random", drawn by `seed`, in the order of the rows. Equal
    distances go by row.

    video, positive_video: (Q,) integers, the videos of each query and of its positive in one
    numbering. Given both, the best and the worst are of different pairs of videos, as otherwise two
    videos that resemble each other fill the sheet. A with B is the pair B with A; a pair of videos
    comes twice only where there are fewer pairs than `count`. Raises UsageError for another rank.
    """
    if rank not in RANKS:
        raise UsageError(f"rank {rank!r}: not one of {', '.join(RANKS)}")
    found = np.flatnonzero(np.isfinite(distance))
    if rank == "random":
        return np.sort(np.random.default_rng(seed).permutation(found)[:count])
    sign = -1 if rank == "worst" else 1
    ranked = found[np.argsort(sign * distance[found], kind="stable")]
    if rank == "quantiles":
        return ranked[spread(len(ranked), count)]
    if video is not None and positive_video is not None:
        turn = _turns(video[ranked], positive_video[ranked])
        return ranked[np.sort(np.argsort(turn, kind="stable")[:count])]
    return ranked[:count]


def spread(length: int, count: int) -> np.ndarray:
    """At most `count` different rows of `length`, evenly from the first to the last."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))


def pair_captions(
    query: str,
    positives: Sequence[str],
    distance: Sequence[float] | np.ndarray,
    ranks: Sequence[int] | np.ndarray,
) -> list[str]:
    """The captions of a row of a pair sheet: one for the query's key, then one for each positive's.

    The query has its video and its frame; a positive has before them its rank, from 1 among all
    positives of the query, and its distance.
    """
    captions = [_lines(query)]
    for rank, key, apart in zip(ranks, positives, distance, strict=True):
        captions.append(f"{rank}: d {apart:.4f}\n{_lines(key)}")
    return captions


def _turns(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How many rows before each one are of the same two videos: int64 (N,).

    first, second: (N,) the videos of each row; A with B is the same as B with A.
    """
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    new = np.ones(len(order), bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    place = np.arange(len(order))
    turn = np.empty(len(order), np.int64)
    turn[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return turn


def _lines(key: str) -> str:
    """A key in two lines, video above frame and hand, where it is made of these."""
    key = printable(key)
    match = KEY.fullmatch(key)
    return f"{match['video']}\n{key[match.end('video') + 1 :]}" if match else key
