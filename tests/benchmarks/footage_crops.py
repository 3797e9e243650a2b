"""Crops with the keypoints of both kinds, those found in the frame and those found in the crop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from handclr_cli.contract.fields import KEYPOINTS_2D
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.sample import Sample
from handclr_cli.hand.square import Box, box_overlap, to_source

LEAST_OVERLAP = 0.3
# A frame, as the JSON of a crop names it.
Place = tuple[str, int]


class Boxed(Protocol):
    """Whatever has a square in a frame."""

    @property
    def box(self) -> Box: ...


One = TypeVar("One", bound=Boxed)
Other = TypeVar("Other", bound=Boxed)


@dataclass(frozen=True)
class Crop:
    """A crop with the keypoints found in the frame and those found in it (None where there are
    none), crop pixels; the `shape` found in the frame is in metres along the axes of the camera.
    """

    key: str
    place: Place
    side: str
    box: Box
    flipped: bool
    size: int
    score: float
    of_frame: np.ndarray
    of_crop: np.ndarray | None
    shape: np.ndarray

    @property
    def apart(self) -> float:
        """Mean distance of the two, over the size of the hand."""
        return np.nan if self.of_crop is None else error(self.of_crop, self.of_frame)

    def in_source(self, points: np.ndarray) -> np.ndarray:
        return to_source(points, self.box, self.size, self.flipped)


def found(
    footage: Sequence[str], sampling: Sequence[object], folder: Path, workers: int
) -> list[Crop]:
    """Run both commands, where that is not done yet."""
    folder.mkdir(parents=True, exist_ok=True)
    frames, crops = folder / "extract.tar", folder / "keypoints.tar"
    if not frames.exists():
        # One look, as MediaPipe alone takes; footage_looks.py measures what more of them find.
        how = (*sampling, "--look", "once", "--with-keypoints", "--workers", workers)
        handclr("extract", *footage, *how, "-o", frames)
    if not crops.exists():
        handclr("keypoints", frames, "--keep-empty", "--workers", workers, "-o", crops)
    first, second = ShardIndex([str(frames)]), ShardIndex([str(crops)])
    if first.keys != second.keys:
        raise SystemExit(f"keypoints gave {len(second):,} of {len(first):,} crops")
    return [_crop(*pair) for pair in zip(first, second, strict=True)]


def _crop(one: Sample, other: Sample) -> Crop:
    info = one.info
    return Crop(
        key=one.key,
        place=(info["video"], info["frame"]),
        side=info["hand"],
        box=tuple(info["box"]),
        flipped=info["flipped"],
        size=one.side,
        score=info["score"],
        of_frame=one.keypoints2d,
        of_crop=other.keypoints2d if KEYPOINTS_2D in other else None,
        shape=one.world3d * ((-1, 1, 1) if info["flipped"] else (1, 1, 1)),
    )


def linked(first: Sequence[One], second: Sequence[Other]) -> Iterator[tuple[One, Other]]:
    """Pairs whose boxes overlap most, the surest first, each in one pair at most."""
    overlaps = {
        (i, j): box_overlap(one.box, other.box)
        for i, one in enumerate(first)
        for j, other in enumerate(second)
    }
    lines, columns = set(range(len(first))), set(range(len(second)))
    for i, j in sorted(overlaps, key=lambda pair: -overlaps[pair]):
        if overlaps[i, j] >= LEAST_OVERLAP and i in lines and j in columns:
            lines.remove(i)
            columns.remove(j)
            yield first[i], second[j]


def error(points: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of keypoints over the size of the hand."""
    return float(np.linalg.norm(points - truth, axis=1).mean() / np.ptp(truth, axis=0).max())


def handclr(*words: object) -> None:
    done = subprocess.run([sys.executable, "-m", "handclr_cli", *map(str, words)])
    if done.returncode not in (0, 3):  # 3: some footage cannot be read
        raise SystemExit(done.returncode)
