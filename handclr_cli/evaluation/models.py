"""The hands that a model predicts for labelled crops, of their size and in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol, cast

import numpy as np

from .. import console
from ..choices import Bone, CropSource
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..hand.alignment import root_relative
from ..hand.camera import to_source_axes
from ..work.skips import Skips
from .crops import Model, predict_detected
from .labels import Labels
from .predictions import SCALES, Predicted, place_predictions, scaled

OWN_SCALE = "metres as the landmarker estimates them in each crop"

Batch = tuple[np.ndarray, np.ndarray]


class MeanHand(Protocol):
    """The mean hand of a training set.

    Its mean pose, (21, 3) metres from the wrist, and its mean reference bone in metres.
    """

    @property
    def pose(self) -> np.ndarray: ...

    @property
    def bone(self) -> float: ...


class PoseEstimator(Protocol):
    """What predicts hands, such as learning's PoseModel.

    It gives xyz (n, 21, 3) metres from the wrist, and uv (n, 21, 2) in sides of the crop; NaN for
    a crop of an index that cannot be decoded, or in which it finds no hand. `mean` is that of its
    training set; None where it has none, and its metres are its own. Where it has `own_axes` that
    are true, hands and mean are along the axes of each crop's own camera, else of the source's.
    Crops that are cut again are given to the model itself, which is called.
    """

    @property
    def mean(self) -> MeanHand | None: ...

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[Batch]: ...


class Prediction(NamedTuple):
    """How a model is evaluated: the size of its hands, its crops, and how many of them at once."""

    bone: Bone
    crop: CropSource
    batch: int
    workers: int


def predict_labelled(
    model: PoseEstimator, how: Prediction, index: ShardIndex, labels: Labels, skips: Skips
) -> tuple[Labels, Predicted, np.ndarray | None]:
    """The hands that a model predicts, and the mean pose of its training set at the same scale.

    They are of the labels returned, those whose crops can be decoded. Raises UsageError where the
    model's hands are given a size, or its crops cut again, and it knows no training set.
    """
    mean = model.mean
    if mean is None:
        _refuse_misfits(how)
    parts = []
    with console.progress("evaluate", len(labels), "crops") as advance:
        for part in _batches(model, how, index, labels):
            parts.append(part)
            advance(len(part[0]))
    hands, seen = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    kept = _decoded(index, labels.rows, hands, skips)
    labels, hands, seen = labels.take(kept), hands[kept], seen[kept]
    if mean is None:
        hands, seen, found = filled(hands, seen)
        predicted = place_predictions(hands, seen, labels, OWN_SCALE)
        return labels, replace(predicted, found=int(found.sum())), None
    scale = SCALES[how.bone].format(bone_mm=1000 * mean.bone)
    still = np.broadcast_to(mean.pose, hands.shape)
    if getattr(model, "own_axes", False):
        cameras = labels.intrinsics, labels.side
        hands, still = to_source_axes(hands, *cameras), to_source_axes(still, *cameras)
    hands = scaled(hands, labels, how.bone, mean.bone)
    baseline = scaled(still, labels, how.bone, mean.bone)
    return labels, place_predictions(hands, seen, labels, scale), baseline


class Filled(NamedTuple):
    """Hands of all crops: (N, 21, 3) and (N, 21, 2); of those not `found`, bool (N,), a mean."""

    hands: np.ndarray
    seen: np.ndarray
    found: np.ndarray


def filled(hands: np.ndarray, seen: np.ndarray) -> Filled:
    """Give crops in which no hand was found, whose predictions are NaN, the mean of the others.

    So they stay in the figures: what is not found is not what is easy. Raises HandclrError where no
    hand was found at all.
    """
    found = ~np.isnan(hands).all(axis=(1, 2))
    if not found.any():
        raise HandclrError("no hand was found in any of the labelled crops")
    hands, seen = hands.copy(), seen.copy()
    hands[~found] = root_relative(hands[found]).mean(axis=0)
    seen[~found] = seen[found].mean(axis=0)
    return Filled(hands, seen, found)


def _refuse_misfits(how: Prediction) -> None:
    if how.bone != "training":
        why = "scales models to their labels; these metres are the landmarker's own"
        raise UsageError(f"{why}, which root+bone scales too", setting="bone")
    if how.crop == "detected":
        why = "cuts crops again by the landmarker, which is what is evaluated; leave it out"
        raise UsageError(why, setting="crop")


def _batches(
    model: PoseEstimator, how: Prediction, index: ShardIndex, labels: Labels
) -> Iterator[Batch]:
    if how.crop == "detected":
        return predict_detected(cast(Model, model), index, labels.rows, how.batch)
    return model.predict(index, labels.rows, how.batch, how.workers)


def _decoded(index: ShardIndex, rows: np.ndarray, hands: np.ndarray, skips: Skips) -> np.ndarray:
    """Which rows, bool (N,), have crops that can be decoded: of the others, `hands` are NaN."""
    kept = np.ones(len(rows), bool)
    for at in np.flatnonzero(np.isnan(hands).all(axis=(1, 2))).tolist():
        try:
            _ = index[int(rows[at])].image
        except HandclrError as error:
            kept[at] = False
            skips.add(error)
    if not kept.any():
        raise HandclrError("none of the labelled crops can be decoded")
    return kept
