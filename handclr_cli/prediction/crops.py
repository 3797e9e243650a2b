"""What a crop says of its hand: from where it is, how sure that is, and how it was cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..contract.sample import KEY, LAST_FRAME, Sample
from ..hand.placement import Cut, cut_of

# Texts as objects: NumPy's own would give each the room of the longest.
_COLUMNS: dict[str, Any] = {
    **{"key": object, "video": object, "frame": np.int64, "time_s": np.float64, "hand": object},
    **{"score": np.float64, "side_score": np.float64, "size": np.int64, "boxed": np.bool_},
}
# A crop shows a right hand: of one that was mirrored, the source shows a left one.
_SIDES = {True: "left", False: "right", None: ""}


class Crop(NamedTuple):
    """A crop's key, and what its JSON says, as `PosedHands` has it; `track` is that of the JSON.

    A `track` of None is unknown; `cut` is how the crop lies in its source, and `boxed` whether that
    is known.
    """

    key: str
    video: str
    frame: int
    time_s: float
    hand: str
    score: float
    track: int | None
    side_score: float
    size: tuple[int, int]
    boxed: bool
    cut: Cut


def read_crop(sample: Sample, fov_deg: float, side: int | None = None) -> Crop:
    """Read a sample; `side` is that of a crop without a picture.

    Raises HandclrError where the crop or its JSON is damaged.
    """
    cut, info = cut_of(sample, fov_deg, side), sample.info
    return Crop(
        key=sample.key,
        video=sample.named_video or "",
        frame=frame_of(sample),
        time_s=_number(info.get("time_s")),
        hand=sample.hand or _SIDES[sample.flipped],
        score=_number(info.get("score")),
        track=_whole(info.get("track")),
        side_score=math.nan if sample.side_score is None else sample.side_score,
        size=_size(info.get("source_size")),
        boxed="box" in info,
        cut=cut,
    )


def frame_of(sample: Sample) -> int:
    """The frame that a crop is from, by its JSON, else by its key; -1 where neither says it."""
    frame, match = _whole(sample.info.get("frame")), KEY.fullmatch(sample.key)
    if frame is None and match:
        frame = int(match["frame"])
    return -1 if frame is None or frame > LAST_FRAME else frame


def columns_of(crops: Sequence[Crop]) -> dict[str, np.ndarray]:
    """What `PosedHands` has of crops, in their order, beside where the hands are."""
    columns: dict[str, np.ndarray] = {}
    for name, dtype in _COLUMNS.items():
        columns[name] = np.array([getattr(crop, name) for crop in crops], dtype)
    columns["size"] = columns["size"].reshape(-1, 2)
    columns["track"] = track_numbers(crops)
    columns["known"] = np.array([crop.cut.known for crop in crops], object)
    return columns


def track_numbers(crops: Sequence[Crop]) -> np.ndarray:
    """The tracks of crops numbered from 1 in each video, as they begin; 0 where unknown, (N,)."""
    begins: dict[tuple[str, int], tuple[int, int]] = {}
    for row, crop in enumerate(crops):
        if crop.track is not None:
            name, first = (crop.video, crop.track), (crop.frame, row)
            begins[name] = min(begins.get(name, first), first)
    numbers: dict[tuple[str, int], int] = {}
    counts: dict[str, int] = {}
    for name in sorted(begins, key=lambda name: begins[name]):
        numbers[name] = counts[name[0]] = counts.get(name[0], 0) + 1
    found = []
    for crop in crops:
        found.append(0 if crop.track is None else numbers[crop.video, crop.track])
    return np.array(found, np.int64)


def _whole(value: Any) -> int | None:
    """A whole number that is not negative, None for all else."""
    return value if type(value) is int and value >= 0 else None


def _number(value: Any) -> float:
    """A finite number, NaN for all else."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _size(value: Any) -> tuple[int, int]:
    """Width and height; `cut_of` has refused what is neither that nor missing."""
    return (int(value[0]), int(value[1])) if value else (0, 0)
