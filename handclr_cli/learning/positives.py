"""Which crops show the same pose: a crop itself, its neighbours in time, or what was mined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.sample import KEY

SOURCES = ("self", "neighbour", "mined")


class Positives:
    """Rows of an index beside the rows that may be their positives.

    `query` (P,) int64; `candidates` (P, K) int64, -1 where there are fewer than K, at least one in
    each row.
    """

    def __init__(self, query: np.ndarray, candidates: np.ndarray) -> None:
        self.query, self.candidates = query, candidates

    def __len__(self) -> int:
        return len(self.query)

    def draw(self, row: int, rng: np.random.Generator) -> tuple[int, int]:
        """A query and one of its candidates, each as likely; takes nothing from `rng` where there
        is no choice.
        """
        candidates = self.candidates[row]
        candidates = candidates[candidates >= 0]
        choice = int(rng.integers(len(candidates))) if len(candidates) > 1 else 0
        return int(self.query[row]), int(candidates[choice])

    def table(self) -> np.ndarray:
        """Query and candidates side by side: int64 (P, 1 + K)."""
        return np.column_stack([self.query, self.candidates])


def own(index: ShardIndex) -> Positives:
    """Every crop is its own positive (SimCLR, PeCLR)."""
    rows = np.arange(len(index))
    return Positives(rows, rows[:, None])


def neighbours(index: ShardIndex) -> Positives:
    """The crops before and after of the same hand in the same video (TempCLR), by their keys.

    A hand that was seen once is its own positive.
    """
    matches = [KEY.fullmatch(key) for key in index.keys]
    tracks = [
        (m["video"], m["hand"], m["number"]) if m else (key, "", "")
        for m, key in zip(matches, index.keys, strict=True)
    ]
    frames = [int(m["frame"]) if m else 0 for m in matches]
    order = sorted(range(len(index)), key=lambda row: (tracks[row], frames[row]))
    candidates = np.full((len(index), 2), -1, np.int64)
    for before, after in itertools.pairwise(order):
        if tracks[before] == tracks[after]:
            candidates[after, 0], candidates[before, 1] = before, after
    alone = (candidates < 0).all(axis=1)
    candidates[alone, 0] = np.flatnonzero(alone)
    return Positives(np.arange(len(index)), candidates)


def mined(index: ShardIndex, files: Sequence[dict[str, np.ndarray]], nearest: int = 1) -> Positives:
    """The `nearest` mined positives (arrays of pairs files, one after the other), those that are in
    the index.

    A crop without a positive, or one that is not in the index, is left out. Raises HandclrError
    where none is left, where a crop was mined twice, or where the files have fewer positives for
    each crop.
    """
    tables = [_mined(index, arrays, nearest) for arrays in files]
    table = np.concatenate(tables)
    if len(np.unique(table[:, 0])) < len(table):
        raise HandclrError(
            "--pairs: a crop was mined in two of the files; remove parts of another run"
        )
    if not len(table):
        raise HandclrError("none of the pairs is in the shards; were they mined from these crops?")
    return Positives(table[:, 0], table[:, 1:])


def _mined(index: ShardIndex, arrays: dict[str, np.ndarray], nearest: int) -> np.ndarray:
    rows, positive = index.rows_of(arrays["key"]), arrays["positive"]
    if positive.shape[1] < nearest:
        there = positive.shape[1]
        raise HandclrError(
            f"--top-k {nearest}: the pairs have {there} for each crop; mine them with --top-k"
            f" {nearest}"
        )
    target_rows = index.rows_of(arrays["target"]) if "target" in arrays else rows
    found = np.full((len(rows), nearest), -1, np.int64)
    there = positive[:, :nearest] >= 0
    found[there] = target_rows[positive[:, :nearest][there]]
    usable = (rows >= 0) & (found >= 0).any(axis=1)
    return np.column_stack([rows, found])[usable]
