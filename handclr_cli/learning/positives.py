"""Which crops show the same pose: a crop itself, its neighbours in time, or what was mined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from .. import console
from ..contract.errors import HandclrError, NoCropsError
from ..contract.index import ShardIndex
from ..contract.sample import KEY


class Positives:
    """Rows of an index beside the rows that may be their positives.

    `query` (P,) int64; `candidates` (P, K) int64, at least one in each row, -1 where there are
    fewer than K.
    """

    def __init__(self, query: np.ndarray, candidates: np.ndarray) -> None:
        self.query, self.candidates = query, candidates

    def __len__(self) -> int:
        return len(self.query)

    def draw(self, row: int, rng: np.random.Generator) -> tuple[int, int]:
        """A query and one of its candidates, each with the same probability.

        Where there is only one, nothing is taken from `rng`.
        """
        candidates = self.candidates[row]
        candidates = candidates[candidates >= 0]
        choice = int(rng.integers(len(candidates))) if len(candidates) > 1 else 0
        return int(self.query[row]), int(candidates[choice])

    def without(self, unusable: np.ndarray) -> Positives:
        """Those left where rows of the index, bool (N,), can be shown neither as query nor else."""
        left = (self.candidates >= 0) & ~unusable[self.candidates]
        kept = left.any(axis=1) & ~unusable[self.query]
        return Positives(self.query[kept], np.where(left, self.candidates, -1)[kept])

    def table(self) -> np.ndarray:
        """Query and candidates side by side: int64 (P, 1 + K)."""
        return np.column_stack([self.query, self.candidates])


def own(index: ShardIndex) -> Positives:
    """Every crop is its own positive (SimCLR, PeCLR)."""
    rows = np.arange(len(index))
    return Positives(rows, rows[:, None])


def neighbours(index: ShardIndex) -> Positives:
    """The crops before and after of the same hand in the same video (TempCLR), by their keys.

    Where a key does not say them, the JSON does. A hand that was seen once is its own positive.
    Raises HandclrError where a crop does not say which hand of which frame of which video it shows,
    or two show the same.
    """
    moments = [_moment(index, row) for row in range(len(index))]
    order = sorted(range(len(index)), key=moments.__getitem__)
    candidates = np.full((len(index), 2), -1, np.int64)
    for before, after in itertools.pairwise(order):
        if moments[before][0] == moments[after][0]:
            _refuse_same_moment(index, moments, before, after)
            candidates[after, 0], candidates[before, 1] = before, after
    alone = (candidates < 0).all(axis=1)
    candidates[alone, 0] = np.flatnonzero(alone)
    return Positives(np.arange(len(index)), candidates)


# Video, hand and its number in the frame; and the frame.
_Moment = tuple[tuple[str, str, str], int]


def _moment(index: ShardIndex, row: int) -> _Moment:
    """Which hand in which frame a crop shows, by its key or else by its JSON."""
    match = KEY.fullmatch(index.keys[row])
    if match:
        return (match["video"], match["hand"], match["number"]), int(match["frame"])
    sample = index[row]
    video, frame, hand = sample.named_video, sample.info.get("frame"), sample.info.get("hand")
    if video is None or type(frame) is not int or hand not in ("left", "right"):
        lacking = "neither its key nor a JSON member says video, frame and hand"
        why = f"{sample.source}: sample {sample.key}: {lacking}; without them, time has no order"
        raise HandclrError(why, setting="positives")
    return (video, str(hand), "json"), frame


def _refuse_same_moment(
    index: ShardIndex, moments: Sequence[_Moment], first: int, second: int
) -> None:
    if moments[first] == moments[second]:
        both = f"{index.keys[first]} and {index.keys[second]}"
        why = f"{both} show the same hand of the same frame, by their JSON; which is which?"
        raise HandclrError(why, setting="positives")


def mined(index: ShardIndex, files: Sequence[dict[str, np.ndarray]], nearest: int = 1) -> Positives:
    """The `nearest` mined positives of each crop, of those that are in the index.

    `files` are the arrays of pairs files, which are read as one. A crop that is not in the index,
    or has no positive there, is left out. Raises HandclrError where none is left, where a crop was
    mined twice, or where the files have fewer positives for each crop.
    """
    if not len(index):
        raise NoCropsError
    tables = [_mined(index, arrays, nearest) for arrays in files]
    table = np.concatenate(tables)
    if len(np.unique(table[:, 0])) < len(table):
        twice = "a crop was mined in two of the files; remove parts of another run"
        raise HandclrError(twice, setting="pairs")
    if not len(table):
        raise HandclrError(_why_none(index, files), setting="pairs")
    return Positives(table[:, 0], table[:, 1:])


def _why_none(index: ShardIndex, files: Sequence[dict[str, np.ndarray]]) -> str:
    """Why no crop of an index has a mined positive there, and what to do."""
    if not any((arrays["positive"] >= 0).any() for arrays in files):
        without = console.called("method", "simclr")
        none = "handclr mine found no positive for any crop"
        return f"{none}; mine more videos, or train without pairs ({without})"
    if any((index.rows_of(arrays["key"]) >= 0).any() for arrays in files):
        return "the shards lack the positives of all their crops; name the shards of all videos"
    again = "mine them from these by handclr pca and handclr mine"
    return f"none of the pairs is in the shards; were they mined from these crops? If not, {again}"


def _mined(index: ShardIndex, arrays: dict[str, np.ndarray], nearest: int) -> np.ndarray:
    rows, positive = index.rows_of(arrays["key"]), arrays["positive"]
    if positive.shape[1] < nearest:
        few = f"the pairs have {positive.shape[1]} for each crop; mine {nearest} for each"
        raise HandclrError(few, setting="top_k")
    target_rows = index.rows_of(arrays["target"]) if "target" in arrays else rows
    found = np.full((len(rows), nearest), -1, np.int64)
    there = positive[:, :nearest] >= 0
    found[there] = target_rows[positive[:, :nearest][there]]
    usable = (rows >= 0) & (found >= 0).any(axis=1)
    return np.column_stack([rows, found])[usable]
