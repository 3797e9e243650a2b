"""Footage to hand crops: every hand a right hand (paper, Sec. 3.1)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..contract.fields import IMAGE, INFO, encode_image, encode_object
from ..contract.sample import Sample, sample_key
from ..contract.shards import ShardWriter, group
from ..contract.tar import StreamCursor
from .crops import cut, square_box
from .landmarker import Hand, Landmarker
from .video import Footage, Frame, OnSkip, Sampling, read_frames

SAME_HAND_OVERLAP = 0.5


@dataclass(frozen=True)
class CropSettings:
    """Side of the crop in pixels, crop side over the hand's, least confidence, JPEG quality."""

    size: int = 224
    margin: float = 1.5
    min_score: float = 0.5
    quality: int = 95


def extract_crops(
    footage: Footage, sampling: Sampling, landmarker: Landmarker, settings: CropSettings, on_skip: OnSkip
) -> Iterator[list[Sample]]:
    """Yield the crops of each sampled frame, a list a frame, possibly empty."""
    for frame in read_frames(footage, sampling, on_skip):
        hands = [hand for hand in landmarker.find(frame.image) if hand.score >= settings.min_score]
        yield list(_crops(footage, frame, distinct_hands(hands), settings))


def distinct_hands(hands: list[Hand]) -> list[Hand]:
    """Drop a hand whose bounding box overlaps a more confident one's: the same hand found twice."""
    kept: list[Hand] = []
    for hand in hands:
        if all(_overlap(hand.keypoints, other.keypoints) < SAME_HAND_OVERLAP for other in kept):
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


def _crops(footage: Footage, frame: Frame, hands: list[Hand], settings: CropSettings) -> Iterator[Sample]:
    height, width = frame.image.shape[:2]
    numbers: Counter[str] = Counter()
    for hand in hands:
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
        yield Sample(key, {IMAGE.suffix: image, INFO.suffix: encode_object(info)})


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of the bounding boxes of two sets of points."""
    low = np.maximum(first.min(axis=0), second.min(axis=0))
    high = np.minimum(first.max(axis=0), second.max(axis=0))
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(np.ptp(first, axis=0)) + np.prod(np.ptp(second, axis=0)))
    return shared / (areas - shared) if areas > shared else 0.0
