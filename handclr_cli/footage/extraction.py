"""Footage to hand crops: every hand a right hand (paper, Sec. 3.1)."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..choices import LookName
from ..contract.fields import IMAGE, INFO, encode_image, encode_object, legible
from ..contract.sample import Sample, sample_key
from ..contract.shards import ShardWriter, group
from ..contract.tar import StreamCursor
from ..hand.square import cut, mirror, square_box
from ..work.ahead import ahead
from .frames import Frame, Hand, Piece, UnreadableError
from .keypoints import find_centred
from .landmarker import Landmarker
from .looks import Search
from .tracks import Look, towards_right, tracked
from .video import read_piece

OUTSIDE = "box outside the frame"
FRAMES_AHEAD = 4
# With fewer frames, starting another process takes longer than it saves.
FRAMES_PER_WORKER = 100
# What MediaPipe leaks in so many frames is little, and a new process costs less than a percent of
# the time that they take.
FRAMES_PER_PROCESS = 20_000
# Around a crop that is looked at again: the border by which most hands are found.
_BORDER = (1.0, "edge")


@dataclass(frozen=True)
class CropSettings:
    """How hands are cropped.

    `size`: side of the crop in pixels; `margin`: side of the crop over the longer side of the hand;
    `min_score`: least confidence of a hand; `quality`: of the JPEG; `keypoints`: whether a crop
    keeps those that were found in its frame; `pictures`: whether it has a picture.
    """

    size: int = 224
    margin: float = 1.5
    min_score: float = 0.5
    quality: int = 95
    keypoints: bool = False
    pictures: bool = True


@dataclass(frozen=True)
class Skipped:
    """Something that could not be used: a line for people; its name and the reason for a shard."""

    line: str
    name: str
    reason: str


@dataclass(frozen=True)
class Extraction:
    """Cuts the crops out of a piece of footage; each worker process has a landmarker of its own.

    Hands are found by the landmarker `model`, at most `max_hands` in a frame, looking as `Search`
    says, unless the piece has boxes. With `tracks` they are joined to tracks of one side each.
    """

    settings: CropSettings
    model: Path | None
    max_hands: int = 2
    tracks: bool = True
    look: LookName = "tiles"

    def __call__(self, piece: Piece) -> Iterator[list[Sample] | Skipped]:
        """Yield the crops, possibly none, of each frame looked at.

        What cannot be used is yielded between them.
        """
        looks = self._looks(piece)
        if self.tracks and piece.boxes is None:
            looks = tracked(looks, self._opinion)
        for look in looks:
            yield look if isinstance(look, Skipped) else list(crops(piece, look, self.settings))

    def _looks(self, piece: Piece) -> Iterator[Look | Skipped]:
        errors: deque[UnreadableError] = deque()
        find = self._hands_in(piece)
        for frame in ahead(read_piece(piece, errors.append), FRAMES_AHEAD):
            yield from _skipped(piece, errors)
            hands = find(frame)
            if any(_outside(hand, frame) for hand in hands):
                line = f"{piece.footage.files[0]}: frame {frame.number}: {OUTSIDE}"
                yield Skipped(line, f"{piece.footage.name} frame {frame.number}", OUTSIDE)
            yield look_at(frame, hands, self.settings)
        yield from _skipped(piece, errors)

    def _hands_in(self, piece: Piece) -> Callable[[Frame], list[Hand]]:
        """What gives the hands of the piece's frames, which come in order."""
        boxes = piece.boxes
        if boxes is not None:
            return lambda frame: boxes.hands(frame.number)
        return Search(self._landmarker.find, self.look, self.max_hands).hands

    def _opinion(self, pixels: np.ndarray) -> float | None:
        """How much a crop shows a right hand, told by its mirror image.

        The landmarker takes the same poses for those of the other hand again and again, but seldom
        their mirror images.
        """
        hand = find_centred(mirror(pixels), *_BORDER, self._landmarker)
        return None if hand is None else -towards_right(hand)

    def prepare(self) -> None:
        """Make the landmarker now: where memory is too short for it, no footage is to blame."""
        if self.model:
            self._landmarker  # noqa: B018 - made when asked for

    @cached_property
    def _landmarker(self) -> Landmarker:
        assert self.model is not None
        return Landmarker(self.model, self.max_hands, self.settings.min_score)


def _skipped(piece: Piece, errors: deque[UnreadableError]) -> Iterator[Skipped]:
    while errors:
        error = errors.popleft()
        name = piece.footage.name
        if not piece.footage.is_video and os.path.basename(error.path) != os.path.basename(name):
            name = f"{name}/{os.path.basename(error.path)}"
        yield Skipped(str(error), name, error.reason)


def balanced(samples: Iterable[Sample], seed: int) -> Iterator[Sample]:
    """Yield as many left as right hands, in order: the more frequent side is drawn from by `seed`.

    The samples wait in a temporary file, because what to leave out is known only at the end.
    """
    with tempfile.TemporaryFile() as spool:
        writer, sides = ShardWriter(spool, {}), []
        for sample in samples:
            writer.write(sample)
            sides.append(sample.info["hand"])
        writer.close()
        spool.seek(0)
        kept = _draw(np.array(sides, "U5"), seed)
        for keep, sample in zip(kept, group(StreamCursor(spool), "temporary file"), strict=True):
            if keep:
                yield replace(sample, origin=None)


def _draw(sides: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(sides == side) for side in ("left", "right")]
    count = min(map(len, rows))
    kept = np.zeros(len(sides), bool)
    for chosen in rows:
        kept[rng.choice(chosen, count, replace=False)] = True
    return kept


def look_at(frame: Frame, hands: Iterable[Hand], settings: CropSettings) -> Look:
    """Cut out each hand that is confident enough and not wholly outside the frame."""
    height, width = frame.image.shape[:2]
    kept = [hand for hand in hands if hand.score >= settings.min_score]
    kept = [hand for hand in kept if not _outside(hand, frame)]
    pixels = []
    for hand in kept:
        box = square_box(hand.keypoints, settings.margin)
        pixels.append(cut(frame.image, box, settings.size, flip=False))
    return Look(frame.number, frame.time_s, (width, height), kept, pixels)


def crops(piece: Piece, look: Look, settings: CropSettings) -> Iterator[Sample]:
    """Yield the crop of each hand of a look, left ones mirrored."""
    numbers: Counter[str] = Counter()
    for hand, pixels in zip(look.hands, look.pixels, strict=True):
        box = square_box(hand.keypoints, settings.margin)
        flipped = hand.side == "left"
        info = {
            "video": legible(piece.footage.name),
            "frame": look.number,
            "time_s": look.time_s,
            "box": list(box),
            "source_size": list(look.size),
            "hand": hand.side,
            "flipped": flipped,
            "score": round(hand.score, 4),
        }
        if hand.track is not None and hand.side_score is not None:
            info |= {"track": hand.track, "side_score": round(hand.side_score, 4)}
        key = sample_key(piece.footage.id, look.number, hand.side, numbers[hand.side])
        numbers[hand.side] += 1
        sample = Sample(key, {INFO.suffix: encode_object(info)})
        if settings.pictures:
            image = encode_image(mirror(pixels) if flipped else pixels, settings.quality)
            sample.members = {IMAGE.suffix: image, **sample.members}
        if settings.keypoints:
            sample.members |= hand.in_crop(box, settings.size, flipped).members()
        yield sample


def _outside(hand: Hand, frame: Frame) -> bool:
    """Whether nothing of a hand's box is in the frame."""
    height, width = frame.image.shape[:2]
    low, high = hand.keypoints.min(axis=0), hand.keypoints.max(axis=0)
    return bool(np.any(high <= 0) or np.any(low >= (width, height)))
