"""A guided model together with the landmarker that guides it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from ..footage.frames import Hand
from ..footage.world_poses import WorldPoses, known_hand

if TYPE_CHECKING:
    from ..learning.guide import Landmarks
    from ..learning.posemodel import MeanPose, PoseModel, Poses

Found = Hand | HandclrError | None


class GuidedModel:
    """A guided PoseModel that is told what the landmarker finds in the crops of an index.

    It is evaluated as the model itself is; where MediaPipe is not installed, crops whose samples
    hold no landmarks are predicted from the picture alone, which is said once.

    >>> import handclr_cli as handclr
    >>> model = handclr.GuidedModel(handclr.load_model("handclr"), handclr.WorldPoses())
    >>> settings = handclr.EvaluateSettings(shards=["labelled.tar"], model="handclr")
    >>> handclr.run_evaluate(settings, model).report["samples"]  # doctest: +SKIP
    183
    """

    own_axes, takes_landmarks = True, True

    def __init__(self, model: PoseModel, poses: WorldPoses) -> None:
        self.model, self.poses = model, poses

    @property
    def mean(self) -> MeanPose:
        """Of the training set."""
        return self.model.mean

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the landmarker's networks, if crops were looked at."""
        return self.poses.checksums

    def __call__(self, crops: list[np.ndarray], hands: Sequence[Landmarks | None]) -> Poses:
        """Predict crops and what is known of them, as the model does."""
        return self.model(crops, hands)

    def find(
        self, index: ShardIndex, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[Sample, Found]]:
        """Yield samples in order with the landmarker's hand, as `WorldPoses.find` does."""
        if importlib.util.find_spec("mediapipe"):
            yield from self.poses.find(index, rows)
            return
        unknown = 0
        for row in range(len(index)) if rows is None else rows:
            sample, found = index[row], None
            if sample.has_landmarks:
                found = known_hand(sample)
            else:
                unknown += 1
            yield sample, found
        if unknown:
            alone = (
                f"{console.plural(unknown, 'crop')} without landmarks predicted from the picture"
            )
            console.warn(f"{alone} alone; pip install mediapipe, and the model sees landmarks too")

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield xyz (n, 21, 3) metres and uv (n, 21, 2) crop sides of rows, NaN of damaged crops.

        `workers` are for models; the processes that look are those of the landmarker.
        """
        waiting: list[tuple[Sample, Found]] = []
        for pair in self.find(index, rows.tolist()):
            waiting.append(pair)
            if len(waiting) == batch:
                yield self._predicted(waiting)
                waiting = []
        if waiting:
            yield self._predicted(waiting)

    def told(
        self, index: ShardIndex, on_skip: Callable[[HandclrError], None]
    ) -> Iterator[tuple[Sample, Landmarks | None]]:
        """Yield the samples of an index with what the model is told of them.

        Those that the landmarker cannot read go to `on_skip`.
        """
        for sample, found in self.find(index):
            if isinstance(found, HandclrError):
                on_skip(found)
            else:
                yield sample, landmarks_of(found, sample)

    def _predicted(self, pairs: Sequence[tuple[Sample, Found]]) -> tuple[np.ndarray, np.ndarray]:
        images, hands, there = [], [], []
        for at, (sample, found) in enumerate(pairs):
            try:
                images.append(sample.image)
            except HandclrError:
                continue
            hands.append(landmarks_of(found, sample))
            there.append(at)
        xyz, uv = (np.full((len(pairs), 21, each), np.nan) for each in (3, 2))
        xyz[there], uv[there] = self.model(images, hands)
        return xyz, uv


def landmarks_of(found: Found, sample: Sample, side: int | None = None) -> Landmarks | None:
    """What a guided model is told of a hand in a crop; `side` is that of one without a picture."""
    if isinstance(found, Hand) and found.world is not None:
        return found.keypoints / (side or sample.side), found.world
    return None


def known_landmarks(
    samples: Iterable[Sample], side: int
) -> Iterator[tuple[Sample, Landmarks | None]]:
    """Yield samples with the landmarks that they hold, of crops of `side` pixels."""
    for sample in samples:
        found = known_hand(sample) if sample.has_landmarks else None
        yield sample, landmarks_of(found, sample, side)
