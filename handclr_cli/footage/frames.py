"""The words for footage: what is read, which of it, and what comes of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..console import printable
from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D, WORLD_3D, encode_array
from ..hand.square import to_crop


class UnreadableError(HandclrError):
    """Footage, or a part of it, that cannot be decoded; it can be skipped.

    `reason` is one of few fixed phrases, so that failures can be counted by it; the message is one
    line: path, reason, detail.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, detail: str = "") -> None:
        super().__init__(os.fspath(path), reason, detail)
        self.path, self.reason, self.detail = os.fspath(path), reason, detail

    def line(self) -> str:
        """Path, reason and detail, escaped."""
        return printable(": ".join(part for part in (self.path, self.reason, self.detail) if part))


class NothingReadError(HandclrError):
    """Footage of which not a single frame can be decoded."""

    def __init__(self) -> None:
        what = "none of the footage can be read; nothing was written"
        super().__init__(f"{what}; convert videos that other programs can play to MP4")


OnSkip = Callable[[UnreadableError], None]


@dataclass(frozen=True)
class Footage:
    """One video, or the sorted images of one folder.

    `name` is that of its crops' JSON; `id` is what the keys of its crops begin with.
    """

    name: str
    id: str
    files: tuple[Path, ...]
    is_video: bool


@dataclass(frozen=True)
class Frame:
    """A decoded frame: number in the footage, time in seconds (None for images), and pixels.

    `image` is uint8 (H, W, 3) RGB.
    """

    number: int
    time_s: float | None
    image: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """Which frames to look at: some of each second, every N-th, or those of certain numbers.

    `fps` frames per second of video, all images of a folder; `every` N-th frame or image;
    `numbers`, frame numbers in any order. `numbers` override `every`, and `every` overrides `fps`.
    """

    fps: float = 1.0
    every: int | None = None
    numbers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Hand:
    """A hand found in an image: float64 (21, 2) keypoints in pixels, its side, the confidence.

    `side` is "left" or "right". `world` is float64 (21, 3), metres from the wrist along the axes of
    the camera (x right, y down, z away from it). Of a hand known by its box only, the keypoints are
    two corners, and `world` is None. Where hands are joined to tracks, `track` is the number of its
    own, `side` that track's, and `side_score` how sure that is, 0.5 to 1.
    """

    keypoints: np.ndarray
    side: str
    score: float
    world: np.ndarray | None = None
    track: int | None = None
    side_score: float | None = None

    def in_crop(self, box: Sequence[float], size: int, flipped: bool) -> Hand:
        """The hand as a crop of `size` pixels shows it, cut at `box` and mirrored if `flipped`."""
        points = to_crop(self.keypoints, box, size, flipped)
        return replace(
            self, keypoints=points, world=self._mirror_world() if flipped else self.world
        )

    def mirrored(self, width: int) -> Hand:
        """The hand in the mirror image of its image, which is `width` pixels wide."""
        points = np.column_stack([width - self.keypoints[:, 0], self.keypoints[:, 1]])
        side = "left" if self.side == "right" else "right"
        return replace(self, keypoints=points, side=side, world=self._mirror_world())

    def _mirror_world(self) -> np.ndarray | None:
        return None if self.world is None else self.world * (-1, 1, 1)

    def members(self) -> dict[str, bytes]:
        """What a sample holds of a hand in its crop."""
        found = {KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, self.keypoints)}
        if self.world is not None:
            found[WORLD_3D.suffix] = encode_array(WORLD_3D, self.world)
        return found


@dataclass(frozen=True)
class FootageDetections:
    """The boxes in one video or folder of images, by frame, the most confident first.

    `frame` int32 (N,), sorted; `box` float64 (N, 4) x0, y0, x1, y1 pixels; `score` float64 (N,);
    `left` bool (N,).
    """

    frame: np.ndarray
    box: np.ndarray
    score: np.ndarray
    left: np.ndarray

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The frames that have boxes, in order, as `Sampling` takes them."""
        return tuple(np.unique(self.frame).tolist())

    def between(self, first: int, last: int) -> FootageDetections:
        """The boxes in the frames from `first` to `last`, both included."""
        rows = slice(*np.searchsorted(self.frame, [first, last + 1]))
        return FootageDetections(
            self.frame[rows], self.box[rows], self.score[rows], self.left[rows]
        )

    def hands(self, number: int) -> list[Hand]:
        """The hands of a frame; their `keypoints` (2, 2) are two corners of the box."""
        start, end = np.searchsorted(self.frame, [number, number + 1])
        hands = []
        for row in range(start, end):
            side = "left" if self.left[row] else "right"
            hands.append(Hand(self.box[row].reshape(2, 2), side, float(self.score[row])))
        return hands


class Header(NamedTuple):
    """What a video's header says: frames per second, number of frames, size of the file in bytes,
    length in seconds.

    A number that is missing or impossible is 0. `stated`: the length is in the file, and was not
    guessed from a part of it. `counted`: the frames are listed one by one. `exact`: frames and
    times after a seek are those that reading from the beginning gives.
    """

    fps: float = 0.0
    frames: int = 0
    size: int = 0
    duration_s: float = 0.0
    stated: bool = False
    counted: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Piece:
    """A stretch of one footage, from `start` up to but without `end`, that is read on its own.

    Of a video, `start` and `end` are seconds since the first frame, and `header` is None where it
    was not read. Of a folder of images they are positions in the order of the image numbers;
    `footage` then holds the images of this piece only, and `numbers` are theirs. `sampling` says
    which frames are looked at, and `frames` about how many these are. `boxes` are those of its
    hands, where they are known beforehand.
    """

    footage: Footage
    sampling: Sampling = Sampling()
    start: float = 0.0
    end: float = math.inf
    header: Header | None = None
    numbers: tuple[int, ...] = ()
    frames: int = 0
    boxes: FootageDetections | None = field(default=None, compare=False)

    @property
    def cut(self) -> bool:
        """Whether the footage goes on before or after this piece."""
        return self.start > 0 or self.end < math.inf
