"""Hand100M, the published annotations of frames of Ego4D and 100DOH.

From them: crops, keypoints and mined pairs.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import (
    IMAGE,
    INFO,
    KEYPOINTS_2D,
    encode_array,
    encode_image,
    encode_object,
)
from ..contract.npz import as_keys
from ..contract.sample import LAST_FRAME, Sample, sample_key, video_id
from ..hand.square import Box, cut, square_box, to_crop
from .hand100m_file import Annotations
from .labelled import WIDEST_CROP, CheckedHand, Invalid, Made, outside, read_image

# Of the published crop: its side over the box's.
PUBLISHED_MARGIN = 1.3
_NUMBER = re.compile(r"([0-9]+)(?:\.[A-Za-z0-9]+)?$")


@dataclass(frozen=True)
class AnnotatedHand:
    """One annotation, all that is needed to make its sample.

    `box` float64 (4,) x0, y0, x1, y1 in pixels of the image at `path`; `keypoints` float32 (21, 2),
    x and y as shares of the published crop, not mirrored; `size` of the image as annotated, 0, 0
    where it is not; `info` for the JSON; `invalid` says why it cannot be used, where it cannot.
    """

    path: Path
    key: str
    left: bool
    box: np.ndarray
    keypoints: np.ndarray
    size: tuple[int, int]
    info: dict[str, Any]
    invalid: Invalid | None = None


@dataclass(frozen=True)
class CropMaker:
    """Makes the samples of annotated hands.

    Crops of `size` px, `margin` times as wide as the keypoints are, as JPEG of `quality`.
    """

    size: int = 224
    margin: float = 1.5
    quality: int = 95

    def make(self, hand: AnnotatedHand) -> Made:
        """The sample of an annotated hand."""
        if hand.invalid:
            return Made(hand.path, invalid=hand.invalid)
        image = read_image(hand.path)
        if isinstance(image, Invalid):
            return Made(hand.path, invalid=image)
        height, width = image.shape[:2]
        if hand.size not in ((0, 0), (width, height)):
            return Made(hand.path, invalid=Invalid.OTHER_SIZE)
        x0, y0, x1, y1 = published_crop(hand.box, width, height)
        if x1 <= x0 or y1 <= y0:
            return Made(hand.path, invalid=Invalid.BAD_LABELS)
        points = (x0, y0) + hand.keypoints.astype(np.float64) * (x1 - x0, y1 - y0)
        if float(np.ptp(points, axis=0).max()) * self.margin > WIDEST_CROP * max(width, height):
            return Made(hand.path, invalid=Invalid.BAD_LABELS)
        if outside(points, width, height):
            return Made(hand.path, invalid=Invalid.OUTSIDE)
        box = square_box(points, self.margin)
        side = "left" if hand.left else "right"
        info = {
            "video": hand.info["video"],
            "frame": hand.info["frame"],
            "time_s": None,
            "box": list(box),
            "source_size": [width, height],
            "hand": side,
            "flipped": hand.left,
            "score": 1.0,
            **hand.info,
        }
        keypoints = to_crop(points, box, self.size, hand.left).astype(np.float32)
        members: dict[str, bytes | memoryview] = {
            IMAGE.suffix: encode_image(cut(image, box, self.size, hand.left), self.quality),
            INFO.suffix: encode_object(info),
            KEYPOINTS_2D.suffix: encode_array(KEYPOINTS_2D, keypoints),
        }
        inside, boxed = _within(points, np.array([0, 0, width, height])), _within(points, hand.box)
        return CheckedHand(hand.path, Sample(hand.key, members), side, inside=inside, boxed=boxed)


def published_crop(box: np.ndarray, width: int, height: int) -> Box:
    """The crop that the published keypoints are shares of: x0, y0, x1, y1 in pixels of the image.

    The box with its corners cut to integers, each side 1.3 times as long (an even number of pixels
    more, rounded down), then a square of the longer one about the centre, then cut at the border of
    the image, so that it may end up oblong. Empty where the box is outside of the image, or has no
    area.
    """
    low, high = np.trunc(box.reshape(2, 2))
    sides = high - low
    if (sides <= 0).any():
        return 0, 0, 0, 0
    longer = (sides + (np.trunc(sides * PUBLISHED_MARGIN) - sides) // 2 * 2).max()
    half, centre = longer // 2, (low + high) / 2
    start = np.maximum(np.trunc(centre - half), 0)
    end = np.minimum(np.trunc(centre + half), (width, height))
    return int(start[0]), int(start[1]), int(end[0]), int(end[1])


class Hand100M:
    """The hands of one annotation file, in its order, whose frames lie under `root`.

    A frame is `<video>/frame_<number>.jpg`; where the annotations name folders above that which
    `root` lacks, these are left out. Keys and `hand_id` are unique; `index` is the place in the
    file. Videos without frames are counted in `notes`. Raises HandclrError where the file cannot be
    read, or `root` has frames of none of the videos.
    """

    def __init__(self, path: str | os.PathLike[str], root: str | os.PathLike[str]) -> None:
        self.hands = Annotations(path)
        self.root = Path(root)
        self.notes: tuple[str, ...] = ()
        folders: dict[str, int] = {}
        video, frame = [], []
        for name in self.hands.files:
            folder, _, file = name.rpartition("/")
            video.append(folders.setdefault(folder, len(folders)))
            frame.append(_frame_number(file))
        self._above = self._find_frames(list(folders))
        self._videos = _video_names(list(folders), os.path.basename(os.path.abspath(root)))
        self._video_ids = [video_id(video) for video in self._videos]
        self._video = np.array(video, np.int64)
        self._frame = np.array(frame, np.int64)
        self._number = self._numbers()
        self._repeated = self._find_repeated()

    def __len__(self) -> int:
        return len(self.hands)

    def __getitem__(self, row: int) -> AnnotatedHand:
        hands = self.hands
        image = hands.image[row]
        parts = hands.files[image].split("/")
        width, height = hands.sizes[image].tolist()
        return AnnotatedHand(
            path=self.root.joinpath(*parts[self._above :]),
            key=self.key(row),
            left=bool(hands.left[row]),
            box=hands.box[row],
            keypoints=hands.keypoints[row],
            size=(width, height),
            info={
                "video": self._videos[self._video[image]],
                "frame": int(self._frame[image]),
                "hand_id": hands.ids[row],
                "index": row,
            },
            invalid=self._fault(row),
        )

    def key(self, row: int) -> str:
        """The key of a hand's sample."""
        image = self.hands.image[row]
        video, frame = self._video_ids[self._video[image]], int(self._frame[image])
        side = "left" if self.hands.left[row] else "right"
        return sample_key(video, frame, side, int(self._number[row]))

    def _fault(self, row: int) -> Invalid | None:
        box, keypoints = self.hands.box[row], self.hands.keypoints[row]
        if not (np.isfinite(box).all() and np.isfinite(keypoints).all()):
            return Invalid.BAD_LABELS
        return Invalid.REPEATED if row in self._repeated else None

    def pairs(self, present: np.ndarray) -> dict[str, np.ndarray]:
        """The published pairs of the hands that are `present`, (N,) bool, as arrays of a file.

        Positives that are not present are left out, and those after them move up.
        """
        rows = np.flatnonzero(present)
        place = np.full(len(self) + 1, -1, np.int32)
        place[rows] = np.arange(len(rows))
        # The last place, which -1 indexes, stays -1.
        positive = place[self.hands.positive[rows]]
        order = np.argsort(positive < 0, axis=1, kind="stable")
        positive = np.take_along_axis(positive, order, axis=1)
        distance = np.take_along_axis(self.hands.distance[rows], order, axis=1)
        distance[positive < 0] = np.inf
        return {
            "key": as_keys([self.key(row) for row in rows.tolist()]),
            "positive": positive,
            "distance": distance,
        }

    def _find_frames(self, folders: Sequence[str]) -> int:
        """How many folders above the videos' to leave out; notes how many videos have no frames."""
        split = [folder.split("/") for folder in folders]
        for above in range(max(map(len, split))):
            missing = []
            for parts in split:
                if len(parts) <= above or not self.root.joinpath(*parts[above:]).is_dir():
                    missing.append(parts[-1])
            if len(missing) < len(split):
                if missing:
                    which = f"{len(missing):,} of {len(split):,} videos have no frames"
                    self.notes = (f"{self.root}: {which}, {missing[0]} first",)
                return above
        raise HandclrError(
            f"{self.root}: holds none of the annotated frames; the first is {self.hands.files[0]}"
        )

    def _numbers(self) -> np.ndarray:
        """For each hand how many of its side come before it in the frame, int64 (N,)."""
        place = self._places()
        order = np.argsort(place, kind="stable")
        ordered = place[order]
        first = np.searchsorted(ordered, ordered)
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.arange(len(order)) - first
        return numbers

    def _places(self) -> np.ndarray:
        """The same number for the hands of one side in one frame, int64 (N,)."""
        image = self.hands.image
        return (self._video[image] * 10**8 + self._frame[image]) * 2 + self.hands.left

    def _find_repeated(self) -> frozenset[int]:
        """The rows with the box and the keypoints of a row before them, in its place."""
        places = self._places()
        several = np.isin(places, places[self._number > 0])
        seen: set[tuple[int, bytes, bytes]] = set()
        repeated = []
        for row in np.flatnonzero(several).tolist():
            labels = self.hands.box[row].tobytes(), self.hands.keypoints[row].tobytes()
            hand = (int(places[row]), *labels)
            if hand in seen:
                repeated.append(row)
            seen.add(hand)
        return frozenset(repeated)


def _video_names(folders: Sequence[str], root: str) -> list[str]:
    """The names of the folders' videos; `root` is that of frames in no folder."""
    names = [folder.rpartition("/")[2] or root for folder in folders]
    named = Counter(names)
    videos = []
    for name, folder in zip(names, folders, strict=True):
        # Two folders of one name are told apart by where they are.
        videos.append(name if named[name] == 1 else folder)
    return videos


def _within(points: np.ndarray, box: np.ndarray) -> int:
    return int(np.all((points >= box[:2]) & (points <= box[2:]), axis=1).sum())


def _frame_number(file: str) -> int:
    match = _NUMBER.search(file)
    if match and int(match[1]) > LAST_FRAME:
        raise HandclrError(f"{file}: its number has more than the eight digits of a frame")
    if not match:
        raise HandclrError(f"{file}: has no number at the end of the name, as frame_000030.jpg has")
    return int(match[1])
