"""The words for footage: what is read, which of it, and what comes of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..contract.errors import HandclrError


class UnreadableError(HandclrError):
    """Footage, or a part of it, that cannot be decoded; it can be skipped.

    `reason` is one of few fixed phrases, to count by; the message is one line: path, reason,
    detail.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, detail: str = "") -> None:
        super().__init__(os.fspath(path), reason, detail)
        self.path, self.reason, self.detail = os.fspath(path), reason, detail

    def line(self) -> str:
        """Path, reason and detail, escaped."""
        return printable(": ".join(part for part in (self.path, self.reason, self.detail) if part))


OnSkip = Callable[[UnreadableError], None]


def printable(name: str) -> str:
    """Write a name in one line: characters that do not print, and bytes that are no UTF-8, as
    escapes.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


@dataclass(frozen=True)
class Footage:
    """One video, or the sorted images of one folder: its name, the head of its keys, its files."""

    name: str
    id: str
    files: tuple[Path, ...]
    is_video: bool


@dataclass(frozen=True)
class Frame:
    """A decoded frame: its number in the footage, its time in seconds (None for images), uint8 (H,
    W, 3) RGB.
    """

    number: int
    time_s: float | None
    image: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """Which frames to keep: about `fps` a second of a video, every N-th of a video or image folder,
    or `numbers`.

    `numbers` are frame numbers, in any order; they go before `every`, and that before `fps`.
    """

    fps: float = 1.0
    every: int | None = None
    numbers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Hand:
    """A hand found in an image: keypoints float64 (21, 2) in its pixels, "left" or "right",
    confidence of that.
    """

    keypoints: np.ndarray
    side: str
    score: float


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
        """The frames that have boxes, in order, for `Sampling`."""
        return tuple(np.unique(self.frame).tolist())

    def between(self, first: int, last: int) -> FootageDetections:
        """Those in the frames from one to another, both included."""
        rows = slice(*np.searchsorted(self.frame, [first, last + 1]))
        return FootageDetections(
            self.frame[rows], self.box[rows], self.score[rows], self.left[rows]
        )

    def hands(self, number: int) -> list[Hand]:
        """The hands of a frame; their `keypoints` (2, 2) are two corners of the box."""
        start, end = np.searchsorted(self.frame, [number, number + 1])
        return [
            Hand(
                self.box[row].reshape(2, 2),
                "left" if self.left[row] else "right",
                float(self.score[row]),
            )
            for row in range(start, end)
        ]


class Header(NamedTuple):
    """What a video says of itself: frames per second, number of frames, bytes; 0 where it does not,
    or nonsense.

    `counted`: the frames were counted when it was written, else their number is made up of duration
    and rate. `exact`: times are as good after a seek as in a row.
    """

    fps: float = 0.0
    frames: int = 0
    size: int = 0
    counted: bool = False
    exact: bool = True

    @property
    def duration_s(self) -> float:
        """Seconds, 0 where they are not known."""
        return self.frames / self.fps if self.fps else 0.0


@dataclass(frozen=True)
class Piece:
    """A stretch of one footage, from `start` up to but without `end`, that is read on its own.

    Of a video they are seconds since its first frame, and `header` is what was seen of it, None
    where nobody looked. Of a folder of images they are positions in the order of their numbers;
    `footage` then holds but the images of this piece, and `numbers` theirs. `boxes` of its hands,
    where these are known beforehand.
    """

    footage: Footage
    start: float = 0.0
    end: float = math.inf
    header: Header | None = None
    numbers: tuple[int, ...] = ()
    boxes: FootageDetections | None = field(default=None, compare=False)

    @property
    def cut(self) -> bool:
        """Whether the footage goes on before or after this piece."""
        return self.start > 0 or self.end < math.inf
