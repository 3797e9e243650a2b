"""The poses of many samples as arrays: millions of Python objects would take gigabytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from .. import console
from ..choices import PoseKind
from ..contract.errors import HandclrError, NoCropsError
from ..contract.fields import KEYPOINTS_2D, WORLD_3D, Field
from ..contract.naming import Naming
from ..contract.npz import as_keys, repeated_key
from ..contract.provenance import Provenance
from ..contract.sample import Sample
from ..contract.shards import read_samples
from ..hand.plausible import pixel_keypoints
from ..work.skips import Skips
from .pose_store import PoseStore

BATCH = 4096


class PosesRead(NamedTuple):
    """Poses, and the arrays `key`, `video` (sorted) and `video_id` that name them.

    The array `side_score` is there too where a sample says how sure its side is. `origins` are the
    provenances of their shards; `dropped` counts samples without keypoints of all joints,
    `doubtful` those whose side is not sure enough, `skipped` those that cannot be used.
    """

    poses: PoseStore
    names: dict[str, np.ndarray]
    origins: list[Provenance | None]
    dropped: int
    doubtful: int
    skipped: int


def read_poses(
    sources: Sequence[str],
    poses: PoseStore,
    video_from: str | None = None,
    strict: bool = False,
    min_side_score: float = 0.0,
) -> PosesRead:
    """Read the keypoints of all samples, those of the store's kind, into an empty store.

    `video_from` is a field of the JSON or a pattern on keys that names their videos, and goes
    before what samples say themselves. A sample whose side is less sure than `min_side_score` is
    left out. Raises HandclrError where there are no poses, a key comes twice, a sample does not say
    of which video it is or, if strict, for the first that cannot be used.
    """
    naming = Naming.of(video_from, "video_from") if video_from is not None else None
    reader = _Reader(naming, Skips(strict), poses.kind, min_side_score)
    with console.progress("pca", unit="poses") as advance:
        rows = reader.rows(sources, advance)
        while batch := list(itertools.islice(rows, BATCH)):
            reader.keep(batch)
            keypoints, sides, world = zip(*(row.pose for row in batch), strict=True)
            poses.add(keypoints, sides, world)
    names = reader.names()
    return PosesRead(
        poses, names, reader.origins, reader.dropped, reader.doubtful, reader.skips.count
    )


class _Pose(NamedTuple):
    """2D keypoints, the side of the crop, and world landmarks; empty where there is no use."""

    keypoints: np.ndarray
    side: int
    world: np.ndarray


class _Row(NamedTuple):
    key: str
    video: str
    side_score: float | None
    pose: _Pose


_NOTHING = np.empty(0, np.float32)
_NEEDED: dict[PoseKind, tuple[Field, ...]] = {
    "2d": (KEYPOINTS_2D,),
    "world": (WORLD_3D,),
    "both": (KEYPOINTS_2D, WORLD_3D),
}


class _Reader:
    """Reads samples, and keeps their names."""

    def __init__(
        self, naming: Naming | None, skips: Skips, kind: PoseKind, min_side_score: float
    ) -> None:
        self.naming, self.skips = naming, skips
        self.needed, self.min_side_score = _NEEDED[kind], min_side_score
        self._named = 0
        self.origins: list[Provenance | None] = []
        self.dropped = self.doubtful = self._count = 0
        self._side_scores: list[np.ndarray] = []
        self._starts: list[tuple[int, str]] = []
        self._videos: dict[str, int] = {}
        self._keys: list[np.ndarray] = []
        self._video_ids: list[np.ndarray] = []

    def rows(self, sources: Sequence[str], advance: Callable[[], None]) -> Iterator[_Row]:
        """Yield the samples with keypoints; the others, and where each comes from, are noted."""
        for sample in read_samples(sources):
            if not self.origins or sample.origin is not self.origins[-1]:
                self.origins.append(sample.origin)
            if any(field not in sample for field in self.needed):
                self.dropped += 1
                continue
            try:
                if KEYPOINTS_2D in self.needed and not sample.has_pose:
                    self.dropped += 1
                    continue
                pose, sure = self._pose(sample), sample.side_score
            except HandclrError as error:
                self.skips.add(error)
                continue
            self.skips.used()
            if sure is not None and sure < self.min_side_score:
                self.doubtful += 1
                continue
            if not self._starts or sample.source != self._starts[-1][1]:
                self._starts.append((self._count, sample.source))
            self._count += 1
            yield _Row(sample.key, self._video(sample), sure, pose)
            advance()

    def _pose(self, sample: Sample) -> _Pose:
        points, world = _NOTHING, _NOTHING
        if KEYPOINTS_2D in self.needed:
            points = pixel_keypoints(sample)
        if WORLD_3D in self.needed:
            world = sample.world3d
        return _Pose(points, sample.side, world)

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
        # None is NaN.
        self._side_scores.append(np.array([row.side_score for row in rows], np.float64))

    def names(self) -> dict[str, np.ndarray]:
        """The arrays that name the poses; raises where there are none, or a key comes twice."""
        self.skips.check()
        if not self._count:
            self._refuse_nothing()
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
        return {"key": keys, "video": videos, "video_id": video_id, **self._sureness()}

    def _refuse_nothing(self) -> NoReturn:
        if self.doubtful:
            why = f"leaves none of the {self.doubtful:,} samples; ask for less"
            raise HandclrError(why, setting="min_side_score")
        if not self.dropped:
            raise NoCropsError
        suffixes = " and ".join(field.suffix for field in self.needed)
        missing = f"none of the {self.dropped:,} samples has {suffixes}"
        raise HandclrError(f"{missing}; did they go through handclr keypoints?")

    def _sureness(self) -> dict[str, np.ndarray]:
        """The array `side_score`, where a sample says it."""
        scores = np.concatenate(self._side_scores)
        if np.isnan(scores).all():
            return {}
        return {"side_score": np.where(np.isnan(scores), 1.0, scores)}

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
