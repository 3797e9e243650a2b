"""Mined pairs: queries, the pool, which row of it is whose positive, and where their crops are."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .errors import HandclrError
from .index import ShardIndex
from .provenance import Provenance


@dataclass(frozen=True)
class Pairs:
    """Queries and the pool by their keys, with the positives of each query.

    `key` bytes (Q,) and `video` (Q,) are the queries' keys and the numbers of their videos,
    `target` bytes (M,) and `target_video` (M,) those of the pool. `positive` (Q, K) int32 are rows
    of the pool, nearest first, -1 where none; `distance` (Q, K) float32, inf there.
    """

    key: np.ndarray
    video: np.ndarray
    target: np.ndarray
    target_video: np.ndarray
    positive: np.ndarray
    distance: np.ndarray

    def arrays(self, elsewhere: bool) -> dict[str, np.ndarray]:
        """The arrays of a pairs file.

        Where positives are `elsewhere` than among the queries, the file names each of them once.
        """
        if not elsewhere:
            return {"key": self.key, "positive": self.positive, "distance": self.distance}
        used = np.unique(self.positive[self.positive >= 0])
        place = np.where(self.positive < 0, -1, np.searchsorted(used, self.positive))
        return {
            "key": self.key,
            "target": self.target[used],
            "positive": place.astype(np.int32),
            "distance": self.distance,
        }


@dataclass(frozen=True)
class PairCrops:
    """Where the crops of pairs are: positions in `index`, -1 where it lacks one.

    `place` (Q,) int64 are those of the queries, `target_place` (M,) int64 those of the pool.
    """

    index: ShardIndex
    place: np.ndarray
    target_place: np.ndarray


# The arrays of a file of pairs, and its provenance.
PairsFile = tuple[dict[str, np.ndarray], Provenance | None]


def checked_parts(files: list[PairsFile]) -> list[PairsFile]:
    """The files, if they have all parts of each run; raises HandclrError where one is missing.

    A part I/N that `handclr mine` makes has the pairs of some of the queries.
    """
    there: dict[int, set[int]] = {}
    for _, origin in files:
        arguments = (origin or {}).get("arguments")
        part = arguments.get("part") if isinstance(arguments, dict) else None
        if isinstance(part, str) and (told := re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", part)):
            there.setdefault(int(told[2]), set()).add(int(told[1]))
    for parts, found in there.items():
        if missing := [part for part in range(parts) if part not in found]:
            first = f"part {missing[0]}/{parts}"
            more = f" and {len(missing) - 1:,} more are" if len(missing) > 1 else " is"
            why = f"{first}{more} missing; name the files of all {parts:,} parts"
            raise HandclrError(why, setting="pairs")
    return files
