"""Predictions for the crops of shards; what cannot be decoded is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from .augmentation import View, apply
from .loading import batches
from .posemodel import PoseModel, Poses

Read = Callable[[Sample], Any]
OnSkip = Callable[[HandclrError], None]


def predict_crops(
    model: PoseModel, index: ShardIndex, read: Read, batch: int, workers: int, on_skip: OnSkip
) -> Iterator[tuple[list[int], list[Any], Poses]]:
    """Predict the poses of all samples in order: yields their rows, what `read` made of each, and
    the Poses.

    A sample that cannot be decoded, or that `read` cannot use, is left out and its HandclrError
    handed to `on_skip`.
    """
    rows = range(len(index))
    sampler = [list(rows[first : first + batch]) for first in range(0, len(rows), batch)]
    device = next(model.network.parameters()).device
    with batches(_Crops(index, read, model.size), sampler, list, workers, device) as loaded:
        for items in loaded:
            for _, _, error in items:
                if error is not None:
                    on_skip(error)
            good = [(row, found) for row, found, error in items if error is None]
            if good:
                poses = model([image for _, (image, _) in good])
                yield [row for row, _ in good], [value for _, (_, value) in good], poses


def some_crops(index: ShardIndex, size: int, count: int) -> np.ndarray:
    """At most `count` crops evenly through the samples, at the side of a model's input: uint8 (n,
    size, size, 3) RGB.

    Raises HandclrError where none can be decoded.
    """
    crops = []
    for row in np.unique(
        np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int)
    ).tolist():
        try:
            crops.append(apply(View(size), index[row].image))
        except HandclrError:
            continue
    if not crops:
        raise HandclrError("there is no crop in the input to check the export with")
    return np.stack(crops)


class _Crops(Dataset[Any]):
    """A row, and its crop at the model's side with what was read of it, or the error."""

    def __init__(self, index: ShardIndex, read: Read, size: int) -> None:
        self.index, self.read, self.view = index, read, View(size)

    def __getitem__(
        self, row: int
    ) -> tuple[int, tuple[np.ndarray, Any] | None, HandclrError | None]:
        try:
            sample = self.index[row]
            return row, (apply(self.view, sample.image), self.read(sample)), None
        except HandclrError as error:
            return row, None, error


def stacked(parts: Sequence[Poses]) -> Poses:
    """Poses of batches as one."""
    return Poses(
        np.concatenate([np.zeros((0, 21, 3), np.float32), *(part.xyz for part in parts)]),
        np.concatenate([np.zeros((0, 21, 2), np.float32), *(part.uv for part in parts)]),
    )
