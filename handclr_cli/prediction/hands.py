"""The hands that were predicted, in rows: where each was seen, and where it is."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from ..hand.placement import Placed


@dataclass(frozen=True)
class PosedHands:
    """Hands in the order in which they are written, N rows.

    `key` and `video` are texts, `video` "" where it is unknown; `frame` int64 (N,), -1 where
    unknown; `time_s` float64 (N,), NaN where unknown and of images; `hand` "left", "right" or "";
    `score` and `side_score` float64 (N,) from 0 to 1, NaN where unknown; `track` int64 (N,), from 1
    in the order in which the tracks of a video begin, 0 where unknown; `size` int64 (N, 2), width
    and height of the source in pixels, 0 where unknown; `boxed` bool (N,), whether the place in the
    source is known, else the crop is its own; `known` texts, where the camera comes from,
    as `Cut` has it; `placed` as `placement.placed`.
    """

    key: np.ndarray
    video: np.ndarray
    frame: np.ndarray
    time_s: np.ndarray
    hand: np.ndarray
    score: np.ndarray
    track: np.ndarray
    side_score: np.ndarray
    size: np.ndarray
    boxed: np.ndarray
    known: np.ndarray
    placed: Placed

    def __len__(self) -> int:
        return len(self.key)

    def take(self, rows: np.ndarray) -> PosedHands:
        """The hands of some rows, bool (N,) or positions."""
        chosen = {}
        for each in fields(self):
            if each.name != "placed":
                chosen[each.name] = getattr(self, each.name)[rows]
        return replace(self, **chosen, placed=Placed(*(column[rows] for column in self.placed)))


class FilmFrame(NamedTuple):
    """A frame of a film of hands: its number and time as `PosedHands` has them.

    `film_s` is when the film shows it, in seconds.
    """

    number: int
    time_s: float | None
    film_s: float
