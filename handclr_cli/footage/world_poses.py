"""MediaPipe's world landmarks of crops: from what a sample holds, or from looking at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D, WORLD_3D
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from .frames import Hand
from .keypoints import Finder, Known, find_all, finders
from .model_file import checksums, model_file


class WorldPoses:
    """The landmarker as a model of hands in crops, which show right hands.

    A sample that holds keypoints and world landmarks is not looked at. `landmarker` is the
    landmarker's file, None the cached one; `min_score` the least confidence of a hand; `workers`
    the processes that look, None: as many as suit the number of crops.
    """

    def __init__(self, landmarker: str | None, min_score: float, workers: int | None) -> None:
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
        unknown = sum(not is_known(index[row]) for row in chosen)
        self._looked |= unknown > 0
        samples = (index[row] for row in chosen)
        if not unknown:
            yield from ((sample, known_hand(sample)) for sample in samples)
            return
        finder = Finder(self._model, self._min_score)
        with finders(finder, self._workers, unknown) as crew:
            for sample, found in find_all(samples, crew, is_known):
                yield sample, known_hand(sample) if isinstance(found, Known) else found

    @cached_property
    def _model(self) -> Path:
        return model_file(self._landmarker, console.say)


def is_known(sample: Sample) -> bool:
    """Whether a sample holds what the landmarker finds."""
    return WORLD_3D in sample and KEYPOINTS_2D in sample


def known_hand(sample: Sample) -> Hand | HandclrError:
    """The hand that a sample holds, or what is wrong with it."""
    try:
        points, world = sample.keypoints2d, sample.world3d
    except HandclrError as error:
        return error
    return Hand(points.astype(np.float64), "right", 1.0, world.astype(np.float64))
