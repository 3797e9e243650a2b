"""The poses of many samples as arrays: millions of Python objects would take gigabytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D
from ..contract.naming import Naming
from ..contract.npz import as_keys, repeated_key
from ..contract.provenance import Provenance
from ..contract.sample import Sample
from ..contract.shards import read_samples
from ..hand.plausible import pixel_keypoints
from ..work.skips import Skips
from .embedding import PoseStore

BATCH = 4096


class PosesRead(NamedTuple):
    """Poses, and the arrays `key`, `video` (sorted) and `video_id` that name them.

    `origins` are the provenances of their shards; `dropped` counts samples without keypoints,
    `skipped` those that cannot be used.
    """

    poses: PoseStore
    names: dict[str, np.ndarray]
    origins: list[Provenance | None]
    dropped: int
    skipped: int


def read_poses(
    sources: Sequence[str],
    normalisation: str,
    video_from: str | None = None,
    strict: bool = False,
) -> PosesRead:
    """Read the 2D keypoints of all samples.

    `video_from` is a field of the JSON or a pattern on keys that names their videos, and goes
    before what samples say themselves. Raises HandclrError where there are no poses, a key comes
    twice, a sample does not say of which video it is or, if strict, for the first that cannot be
    used.
    """
    naming = Naming.of(video_from, "video_from") if video_from is not None else None
    reader, poses = _Reader(naming, Skips(strict)), PoseStore(normalisation)
    with console.progress("pca", unit="poses") as advance:
        rows = reader.rows(sources, advance)
        while batch := list(itertools.islice(rows, BATCH)):
            reader.keep(batch)
            sides = [row.side for row in batch]
            poses.add([row.keypoints for row in batch], sides)
    names = reader.names()
    return PosesRead(poses, names, reader.origins, reader.dropped, reader.skips.count)


class _Row(NamedTuple):
    key: str
    video: str
    keypoints: np.ndarray
    side: int


class _Reader:
    """Reads samples, and keeps their names."""

    def __init__(self, naming: Naming | None, skips: Skips) -> None:
        self.naming, self.skips = naming, skips
        self._named = 0
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
            try:
                keypoints, side, _ = pixel_keypoints(sample), sample.side, sample.info
            except HandclrError as error:
                self.skips.add(error)
                continue
            self.skips.used()
            if not self._starts or sample.source != self._starts[-1][1]:
                self._starts.append((self._count, sample.source))
            self._count += 1
            yield _Row(sample.key, self._video(sample), keypoints, side)
            advance()

    def _video(self, sample: Sample) -> str:
        """The name of a sample's video; raises where it is not known."""
        found = self.naming.find(sample) if self.naming else None
        if found:
            self._named += 1
            return found
        try:
            return sample.video
        except HandclrError as error:
            advice = "; name a field of its JSON or a pattern on its key that does"
            if self.naming:
                advice = ", and neither does this"
            raise HandclrError(f"{error}{advice}", setting="video_from") from error

    def keep(self, rows: Sequence[_Row]) -> None:
        """Keep the names of some rows."""
        numbers = [self._videos.setdefault(row.video, len(self._videos)) for row in rows]
        self._keys.append(as_keys([row.key for row in rows]))
        self._video_ids.append(np.array(numbers, np.int32))

    def names(self) -> dict[str, np.ndarray]:
        """The arrays `key`, `video`, sorted, and `video_id`; raises where a key comes twice."""
        self.skips.check()
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
        self._tell_videos(keys)
        videos, rank = np.unique(as_keys(list(self._videos)), return_inverse=True)
        video_id = rank.astype(np.int32)[np.concatenate(self._video_ids)]
        return {"key": keys, "video": videos, "video_id": video_id}

    def _tell_videos(self, keys: np.ndarray) -> None:
        """Warn that videos are named as the user says; raises where that names none."""
        if self.naming is None:
            return
        if not self._named:
            why = f"{self.naming.nowhere}, such as {keys[0].decode('utf-8', 'replace')}"
            raise HandclrError(why, setting="video_from")
        videos = f"{console.plural(len(self._videos), 'video')}, such as {next(iter(self._videos))}"
        told = f"{console.plural(self._named, 'crop')} of {self._count:,} are named by it: {videos}"
        if len(self._videos) == self._count > 1:
            told += "; each crop is a video of its own, and positives may be of the same footage"
        console.warn(f"video names were given, not read: {told}")
