"""MediaPipe's world landmarks of crops: from what a sample holds, or from looking at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.fields import JOINT_COUNT
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from .frames import Hand
from .keypoints import Finder, Known, find_all, finders
from .model_file import checksums, model_file

_UNFOUND = np.full((JOINT_COUNT, 3), np.nan), np.full((JOINT_COUNT, 2), np.nan)


class WorldPoses:
    """The landmarker as a model of hands in crops, which show right hands.

    A sample that holds keypoints and world landmarks is not looked at. `landmarker` is the
    landmarker's file, None the cached one; `min_score` the least confidence of a hand; `workers`
    the processes that look, None: as many as suit the number of crops.

    >>> import handclr_cli as handclr
    >>> settings = handclr.EvaluateSettings(shards=["hands.tar"], model="mediapipe")
    >>> done = handclr.run_evaluate(settings, handclr.WorldPoses())  # doctest: +SKIP
    >>> done.report["hands_found"]["samples"]  # doctest: +SKIP
    48
    """

    mean, own_axes = None, False

    def __init__(
        self, landmarker: str | None = None, min_score: float = 0.5, workers: int | None = None
    ) -> None:
        self._landmarker, self._min_score, self._workers = landmarker, min_score, workers
        self._looked = False

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the landmarker's networks, if crops were looked at."""
        return checksums(self._model) if self._looked else {}

    def find(
        self, index: ShardIndex, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[Sample, Hand | HandclrError | None]]:
        """Yield samples of an index in order, all or those of `rows`, each with its hand.

        That is None where there is none, and an error where the crop is damaged; its keypoints are
        in crop pixels. Raises HandclrError where crops have to be looked at and the landmarker
        cannot be had.
        """
        chosen = range(len(index)) if rows is None else rows
        unknown = sum(not index[row].has_landmarks for row in chosen)
        self._looked |= unknown > 0
        samples = (index[row] for row in chosen)
        if not unknown:
            yield from ((sample, known_hand(sample)) for sample in samples)
            return
        finder = Finder(self._model, self._min_score)
        with finders(finder, self._workers, unknown) as crew:
            for sample, found in find_all(samples, crew, attrgetter("has_landmarks")):
                yield sample, known_hand(sample) if isinstance(found, Known) else found

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield poses xyz (n, 21, 3) metres from the wrist, and uv (n, 21, 2) crop sides, of rows.

        Both are NaN where no hand is found, or the crop is damaged. `workers` are for models; the
        processes that look are those of the constructor.
        """
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for sample, found in self.find(index, rows.tolist()):
            pose = _UNFOUND
            if isinstance(found, Hand) and found.world is not None:
                pose = found.world, found.keypoints / sample.side
            waiting.append(pose)
            if len(waiting) == batch:
                yield _stacked(waiting)
                waiting = []
        if waiting:
            yield _stacked(waiting)

    @cached_property
    def _model(self) -> Path:
        return model_file(self._landmarker, console.say)


def known_hand(sample: Sample) -> Hand | HandclrError:
    """The hand that a sample holds, or what is wrong with it."""
    try:
        points, world = sample.keypoints2d, sample.world3d
    except HandclrError as error:
        return error
    return Hand(points.astype(np.float64), "right", 1.0, world.astype(np.float64))


def _stacked(poses: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    xyz, uv = zip(*poses, strict=True)
    return np.stack(xyz), np.stack(uv)
