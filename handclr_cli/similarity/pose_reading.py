"""The poses of many samples as arrays: millions of Python objects would take gigabytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D
from ..contract.npz import as_keys, repeated_key
from ..contract.provenance import Provenance
from ..contract.shards import read_samples
from .embedding import PoseStore

BATCH = 4096


class PosesRead(NamedTuple):
    """Poses, and the arrays `key`, `video` (sorted) and `video_id` that name them.

    `origins` are the provenances of their shards; `dropped` counts samples without keypoints.
    """

    poses: PoseStore
    names: dict[str, np.ndarray]
    origins: list[Provenance | None]
    dropped: int


def read_poses(sources: Sequence[str], normalisation: str) -> PosesRead:
    """Read the 2D keypoints of all samples.

    Raises HandclrError where there are none, or a key comes twice.
    """
    reader, poses = _Reader(), PoseStore(normalisation)
    with console.progress("pca", unit="poses") as advance:
        rows = reader.rows(sources, advance)
        while batch := list(itertools.islice(rows, BATCH)):
            reader.keep(batch)
            sides = [row.side for row in batch]
            poses.add([row.keypoints for row in batch], sides)
    return PosesRead(poses, reader.names(), reader.origins, reader.dropped)


class _Row(NamedTuple):
    key: str
    video: str
    keypoints: np.ndarray
    side: int


class _Reader:
    """Reads samples, and keeps their names."""

    def __init__(self) -> None:
        self.origins: list[Provenance | None] = []
        self.dropped = self._count = 0
        self._starts: list[tuple[int, str]] = []
        self._videos: dict[str, int] = {}
        self._keys: list[np.ndarray] = []
        self._video_ids: list[np.ndarray] = []

    def rows(self, sources: Sequence[str], advance: Callable[[], None]) -> Iterator[_Row]:
        """Yield the samples with keypoints; the others, and where each comes from, are noted."""
        for sample in read_samples(sources):
            if not self.origins or sample.origin is not self.origins[-1]:
                self.origins.append(sample.origin)
            if KEYPOINTS_2D not in sample:
                self.dropped += 1
                continue
            if not self._starts or sample.source != self._starts[-1][1]:
                self._starts.append((self._count, sample.source))
            self._count += 1
            yield _Row(sample.key, sample.video, sample.keypoints2d, sample.side)
            advance()

    def keep(self, rows: Sequence[_Row]) -> None:
        """Keep the names of some rows."""
        numbers = [self._videos.setdefault(row.video, len(self._videos)) for row in rows]
        self._keys.append(as_keys([row.key for row in rows]))
        self._video_ids.append(np.array(numbers, np.int32))

    def names(self) -> dict[str, np.ndarray]:
        """The arrays `key`, `video`, sorted, and `video_id`; raises where a key comes twice."""
        if not self._count:
            missing = f"none of the {self.dropped:,} samples has {KEYPOINTS_2D.suffix}"
            raise HandclrError(f"{missing}; did they go through handclr keypoints?")
        keys = np.concatenate(self._keys)
        twice = repeated_key(keys)
        if twice is not None:
            second = np.flatnonzero(keys == twice)[1]
            source = [name for start, name in self._starts if start <= second][-1]
            why = f"key {twice.decode()} appears twice in the input; keys must be unique"
            raise HandclrError(f"{source}: {why}")
        videos, rank = np.unique(as_keys(list(self._videos)), return_inverse=True)
        video_id = rank.astype(np.int32)[np.concatenate(self._video_ids)]
        return {"key": keys, "video": videos, "video_id": video_id}
