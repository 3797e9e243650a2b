"""Predictions for the crops of shards; crops that cannot be decoded are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from .augmentation import View, apply_view
from .guide import Landmarks
from .loading import batches, in_parts
from .posemodel import PoseModel, Poses

Read = Callable[[Sample], Any]
OnSkip = Callable[[HandclrError], None]


def predict_crops(
    model: PoseModel, index: ShardIndex, read: Read, batch: int, workers: int, on_skip: OnSkip
) -> Iterator[tuple[list[int], list[Any], Poses]]:
    """Predict the poses of all samples in order, a batch at a time.

    Yields rows, what `read` made of each sample, and the Poses. A sample that cannot be decoded, or
    that `read` cannot use, is left out and its HandclrError handed to `on_skip`.
    """
    sampler = in_parts(len(index), batch)
    device = next(model.network.parameters()).device
    with batches(_Crops(index, read, model.size), sampler, list, workers, device) as loaded:
        for items in loaded:
            good: list[_Crop] = []
            for item in items:
                if isinstance(item, _Crop):
                    good.append(item)
                else:
                    on_skip(item.error)
            if good:
                poses = model([crop.image for crop in good])
                rows = [crop.row for crop in good]
                yield rows, [crop.value for crop in good], poses


def predict_samples(
    model: PoseModel,
    samples: Iterable[tuple[Sample, Landmarks | None]],
    read: Read,
    batch: int,
    on_skip: OnSkip,
) -> Iterator[tuple[list[Any], Poses]]:
    """Predict the poses of samples as they come, a batch at a time.

    Each comes with what the landmarker found in it, for a guided model. Yields what `read` made of
    each sample, and the Poses; for the others as `predict_crops`.
    """
    view = View(model.size)
    images: list[np.ndarray] = []
    values: list[Any] = []
    hands: list[Landmarks | None] = []
    for sample, hand in samples:
        try:
            value, image = read(sample), apply_view(view, sample.image)
        except HandclrError as error:
            on_skip(error)
            continue
        values.append(value)
        images.append(image)
        hands.append(hand)
        if len(images) == batch:
            yield values, model(images, hands)
            values, images, hands = [], [], []
    if images:
        yield values, model(images, hands)


def some_crops(index: ShardIndex, size: int, count: int) -> np.ndarray:
    """At most `count` crops, evenly spaced among the samples, at the side of a model's input.

    uint8 (n, size, size, 3) RGB. Raises HandclrError where none can be decoded.
    """
    crops = []
    spaced = np.linspace(0, len(index) - 1, min(count, len(index))).round()
    for row in np.unique(spaced.astype(int)).tolist():
        try:
            crops.append(apply_view(View(size), index[row].image))
        except HandclrError:
            continue
    if not crops:
        raise HandclrError("there is no crop in the input to check the export with")
    return np.stack(crops)


class _Crop(NamedTuple):
    """A crop at the model's side, and what was read of its sample."""

    row: int
    image: np.ndarray
    value: Any


class _Skipped(NamedTuple):
    """Why a sample is left out. A HandclrError that is an item itself would end the loading."""

    error: HandclrError


class _Crops(Dataset[Any]):
    """The crops of an index by row, or why they are left out."""

    def __init__(self, index: ShardIndex, read: Read, size: int) -> None:
        self.index, self.read, self.view = index, read, View(size)

    def __getitem__(self, row: int) -> _Crop | _Skipped:
        try:
            sample = self.index[row]
            return _Crop(row, apply_view(self.view, sample.image), self.read(sample))
        except HandclrError as error:
            return _Skipped(error)


def stacked(parts: Sequence[Poses]) -> Poses:
    """Poses of batches as one."""
    none = Poses(np.zeros((0, 21, 3), np.float32), np.zeros((0, 21, 2), np.float32))
    return Poses(*map(np.concatenate, zip(none, *parts, strict=True)))
