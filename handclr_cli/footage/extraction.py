"""Footage to hand crops: every hand a right hand (paper, Sec. 3.1)."""

from __future__ import annotations

import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..contract.fields import IMAGE, INFO, KEYPOINTS_2D, encode_array, encode_image, encode_object
from ..contract.sample import Sample, sample_key
from ..contract.shards import ShardWriter, group
from ..contract.tar import StreamCursor
from ..hand.square import cut, overlap, square_box, to_crop
from ..work.ahead import ahead
from .frames import Hand
from .landmarker import Landmarker
from .plan import sampling_of
from .video import Footage, Frame, Piece, Sampling, UnreadableError, read_piece

SAME_HAND_OVERLAP = 0.5
OUTSIDE = "box outside the frame"
FRAMES_AHEAD = 4


@dataclass(frozen=True)
class CropSettings:
    """Side of the crop in pixels, crop side over the hand's, least confidence, JPEG quality,
    landmarks kept or not.
    """

    size: int = 224
    margin: float = 1.5
    min_score: float = 0.5
    quality: int = 95
    keypoints: bool = False


@dataclass(frozen=True)
class Skipped:
    """Something that could not be used: a line for people, and for a shard its name and the reason
    alone.
    """

    line: str
    name: str
    reason: str


@dataclass(frozen=True)
class Extraction:
    """The crops of a piece of footage; called in worker processes, each with a landmarker of its
    own.

    Hands are found by the landmarker `model`, `max_hands` in a frame at most, or are those of the
    piece's boxes.
    """

    sampling: Sampling
    settings: CropSettings
    model: Path | None
    max_hands: int = 2

    def __call__(self, piece: Piece) -> Iterator[list[Sample] | Skipped]:
        """Yield for each frame looked at its crops, possibly none, and what cannot be decoded where
        it is met.
        """
        errors: deque[UnreadableError] = deque()
        sampling = sampling_of(piece, self.sampling)
        for frame in ahead(read_piece(piece, sampling, errors.append), FRAMES_AHEAD):
            yield from _skipped(piece, errors)
            hands = self._hands(piece, frame)
            if any(_outside(hand, frame) for hand in hands):
                line = f"{piece.footage.files[0]}: frame {frame.number}: {OUTSIDE}"
                yield Skipped(line, f"{piece.footage.name} frame {frame.number}", OUTSIDE)
            yield list(crops(piece.footage, frame, hands, self.settings))
        yield from _skipped(piece, errors)

    def _hands(self, piece: Piece, frame: Frame) -> list[Hand]:
        if piece.boxes is not None:
            return piece.boxes.hands(frame.number)
        return distinct_hands(self._landmarker.find(frame.image))

    def prepare(self) -> None:
        """Make the landmarker, so that want of memory for it is not taken for the fault of some
        footage.
        """
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


def distinct_hands(hands: list[Hand]) -> list[Hand]:
    """Drop a hand whose bounding box overlaps a more confident one's: the same hand found twice."""
    kept: list[Hand] = []
    for hand in hands:
        if all(overlap(hand.keypoints, other.keypoints) < SAME_HAND_OVERLAP for other in kept):
            kept.append(hand)
    return kept


def balanced(samples: Iterable[Sample], seed: int) -> Iterator[Sample]:
    """Yield as many left as right hands, in order: a seeded draw of the more frequent side.

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


def crops(
    footage: Footage, frame: Frame, hands: Iterable[Hand], settings: CropSettings
) -> Iterator[Sample]:
    """Yield the crop of each hand of a frame that is sure enough and not wholly outside of it."""
    height, width = frame.image.shape[:2]
    numbers: Counter[str] = Counter()
    for hand in hands:
        if hand.score < settings.min_score or _outside(hand, frame):
            continue
        box = square_box(hand.keypoints, settings.margin)
        flipped = hand.side == "left"
        info = {
            "video": footage.name,
            "frame": frame.number,
            "time_s": frame.time_s,
            "box": list(box),
            "source_size": [width, height],
            "hand": hand.side,
            "flipped": flipped,
            "score": round(hand.score, 4),
        }
        key = sample_key(footage.id, frame.number, hand.side, numbers[hand.side])
        numbers[hand.side] += 1
        image = encode_image(cut(frame.image, box, settings.size, flipped), settings.quality)
        sample = Sample(key, {IMAGE.suffix: image, INFO.suffix: encode_object(info)})
        if settings.keypoints:
            mapped = to_crop(hand.keypoints, box, settings.size, flipped).astype(np.float32)
            sample.members[KEYPOINTS_2D.suffix] = encode_array(KEYPOINTS_2D, mapped)
        yield sample


def _outside(hand: Hand, frame: Frame) -> bool:
    """Whether nothing of a hand's box is in the frame."""
    height, width = frame.image.shape[:2]
    low, high = hand.keypoints.min(axis=0), hand.keypoints.max(axis=0)
    return bool(np.any(high <= 0) or np.any(low >= (width, height)))
