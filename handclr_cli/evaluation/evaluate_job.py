"""The jobs of `handclr evaluate`: predictions measured against labels, and two results compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from os.path import basename
from typing import Any, ClassVar, Protocol

import numpy as np

from .. import console
from ..choices import Bone, CropSource
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..contract.npz import write_npz
from ..contract.provenance import Provenance, after, file_checksum, provenance
from ..contract.settings import Settings
from ..work.cores import worker_count
from ..work.skips import Skips
from . import protocols
from .crops import crop_kind, detected_kind, predict_detected
from .labels import UNIT, Labels, read_labels
from .predictions import Predicted, place_predictions, read_pair, read_predictions, scaled
from .scoring import Curve, compare_evaluations, evaluated_arrays, pck_curves, score_predictions

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
    a crop of an index that cannot be decoded.
    """

    @property
    def mean(self) -> MeanHand: ...

    def __call__(self, crops: list[np.ndarray], /) -> Batch: ...

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[Batch]: ...


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """What `run_evaluate` measures: a model or a file of predictions, one of the two."""

    recorded: ClassVar = ("resample_by", "bone", "crop")

    shards: Sequence[str]
    """Sources of labelled samples: tar files, or - for standard input."""
    model: str | None = None
    """The file of the model that predicts, for the provenance."""
    predictions: str | None = None
    """An NPZ file with the arrays `key` and `keypoints3d`, in place of a model."""
    bone: Bone = "training"
    """The size of the hands a model predicts: the training set's mean bone, or each label's own."""
    crop: CropSource = "given"
    """The crops a model sees: those of the shards, or cut again around a detector's keypoints."""
    resample_by: str = UNIT
    """What names that which the intervals resample: a field of the JSON, or a pattern on keys."""
    output: str | None = None
    """The NPZ file to write predictions, truth and errors to."""
    freihand: str | None = None
    """The folder to write FreiHAND's pred.json and scores.txt to."""
    dexycb: str | None = None
    """The text file to write DexYCB's results to."""
    batch: int = 128
    """Crops in a batch."""
    workers: int | None = None
    """Processes that decode images; one for each core where it is None."""
    seed: int = 0
    """The same seed draws the same resamples."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields as plain types; predictions have a size and crops of their own."""
        found = super().arguments()
        return {"resample_by": found["resample_by"]} if self.predictions else found


@dataclass(frozen=True)
class EvaluateResult:
    """What `run_evaluate` found: the report, ready for JSON, and what it was made of.

    `baseline` (N, 21, 3) metres is what the mean pose of the training set predicts, or None;
    `skipped` counts labelled samples that cannot be used.
    """

    report: dict[str, Any]
    predicted: Predicted
    labels: Labels
    baseline: np.ndarray | None
    skipped: int = 0

    def curves(self) -> dict[str, Curve]:
        """PCK curves by name, as `scoring.pck_curves`."""
        return pck_curves(self.predicted, self.labels, self.baseline)


def run_evaluate(settings: EvaluateSettings, model: PoseEstimator | None = None) -> EvaluateResult:
    """Measure a model, or predictions of any program, on labelled samples.

    Raises UsageError unless there is either a model or predictions; HandclrError where labels or
    predictions are missing or a protocol asked for cannot be applied.

    >>> import handclr_cli as handclr
    >>> settings = handclr.EvaluateSettings(shards=["hands.tar"], model="model.pt", workers=0)
    >>> done = handclr.run_evaluate(settings, handclr.load_model("model.pt"))
    >>> done.report["samples"], "mpjpe_mm" in done.report["model"]["root"]
    (48, True)
    """
    if (model is None) == (settings.predictions is None):
        raise UsageError("give a model or predictions, one of the two")
    index = ShardIndex(settings.shards)
    skips = Skips()
    labels = read_labels(index, settings.resample_by, skips, seen=model is not None)
    labelled = len(labels) + skips.count
    given = read_predictions(settings.predictions, labels) if settings.predictions else None
    kind = _crop_kind(settings, index, labels, given)
    official = _protocols(settings, labels, given)
    baseline = None
    if model:
        labels, predicted, baseline = _predict(model, settings, index, labels, skips)
        official = _protocols(settings, labels, None)
    elif given:
        predicted = given
    scores = score_predictions(predicted, labels, baseline, official, settings.seed)
    report = {"crop": kind, "samples_without_labels": len(index) - labelled, **scores}
    if skips.count:
        report["samples_skipped"] = skips.count
    report["provenance"] = _record(settings, [*index.origins, predicted.origin])
    _write(settings, predicted, labels, report)
    return EvaluateResult(report, predicted, labels, baseline, skips.count)


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """What `run_compare` compares: two NPZ files that `run_evaluate` wrote."""

    first: str
    """The file called a in the report."""
    second: str
    """The file called b in the report."""
    seed: int = 0
    """The same seed draws the same resamples."""


def run_compare(settings: CompareSettings) -> dict[str, Any]:
    """Compare two evaluations sample by sample; the report is ready for JSON.

    Raises HandclrError where they are not of the same samples with the same labels.

    >>> import handclr_cli as handclr
    >>> model = handclr.load_model("model.pt")
    >>> for name in ("first.npz", "second.npz"):
    ...     settings = handclr.EvaluateSettings(shards=["hands.tar"], output=name, workers=0)
    ...     _ = handclr.run_evaluate(settings, model)
    >>> both = handclr.CompareSettings(first="first.npz", second="second.npz")
    >>> report = handclr.run_compare(both)
    >>> report["a"], report["b"], report["samples"]
    ('first.npz', 'second.npz', 48)
    """
    files = settings.first, settings.second
    a, b = read_pair(*files)
    record = provenance("evaluate", {"compare": True}, files, seed=settings.seed)
    return {
        "a": basename(settings.first),
        "b": basename(settings.second),
        **compare_evaluations(a, b, settings.seed),
        "provenance": after(record, [a.origin, b.origin]),
    }


def _crop_kind(
    settings: EvaluateSettings, index: ShardIndex, labels: Labels, given: Predicted | None
) -> str:
    if given:
        return crop_kind([given.origin] if given.origin else [])
    if settings.crop == "detected":
        return detected_kind(index.origins, labels)
    return crop_kind(index.origins)


def _protocols(settings: EvaluateSettings, labels: Labels, given: Predicted | None) -> list[str]:
    """The data sets' protocols asked for, all of which can be applied."""
    placed = given.placed if given else labels.have_cameras
    asked = [name for name in protocols.SCORES if getattr(settings, name)]
    for name in asked:
        protocols.require(name, placed, labels.valid, labels.position)
    if "dexycb" in asked and not labels.sided.all():
        unknown = f"{int((~labels.sided).sum())} of {len(labels)} samples do not say their hand"
        why = f"{unknown}, by which left ones are mirrored back"
        raise HandclrError(why, setting="dexycb")
    return asked


def _predict(
    model: PoseEstimator,
    settings: EvaluateSettings,
    index: ShardIndex,
    labels: Labels,
    skips: Skips,
) -> tuple[Labels, Predicted, np.ndarray]:
    """The hands that a model predicts, and the mean pose of its training set at the same scale.

    They are of the labels returned, those whose crops can be decoded.
    """
    predict = partial(model.predict, workers=worker_count(settings.workers))
    if settings.crop == "detected":
        predict = partial(predict_detected, model)
    parts = []
    with console.progress("evaluate", len(labels), "crops") as advance:
        for part in predict(index, labels.rows, settings.batch):
            parts.append(part)
            advance(len(part[0]))
    hands, seen = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    kept = _decoded(index, labels.rows, hands, skips)
    labels, hands, seen = labels.take(kept), hands[kept], seen[kept]
    mean, bone = model.mean, settings.bone
    predicted = place_predictions(hands, seen, labels, bone, mean.bone)
    return labels, predicted, scaled(mean.pose, labels, bone, mean.bone)


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


def _record(settings: EvaluateSettings, origins: Sequence[Provenance | None]) -> Provenance:
    model = file_checksum(settings.model) if settings.model else None
    record = provenance(
        "evaluate", settings.arguments(), settings.shards, seed=settings.seed, model=model
    )
    return after(record, origins)


def _write(
    settings: EvaluateSettings, predicted: Predicted, labels: Labels, report: dict[str, Any]
) -> None:
    hands, position = predicted.keypoints3d, labels.position
    if settings.freihand:
        scores = report["official"]["freihand"]
        protocols.write_freihand_results(settings.freihand, hands, scores, position)
    if settings.dexycb:
        protocols.write_dexycb_results(settings.dexycb, hands, position, labels.mirrored)
    if settings.output:
        arrays = evaluated_arrays(predicted, labels)
        write_npz(settings.output, "predictions", arrays, report["provenance"])
