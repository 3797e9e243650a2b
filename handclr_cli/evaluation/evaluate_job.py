"""The jobs of `handclr evaluate`: predictions measured against labels, and two results compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import basename
from typing import Any, ClassVar

import numpy as np

from ..choices import MEDIAPIPE, Bone, CropSource
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..contract.npz import write_npz
from ..contract.provenance import Provenance, after, file_checksum, provenance
from ..contract.settings import Settings
from ..contract.shipped import weights_file
from ..work.cores import worker_count
from ..work.skips import Skips
from . import protocols
from .crops import crop_kind, detected_kind
from .labels import UNIT, Labels, read_labels
from .models import PoseEstimator, Prediction, predict_labelled
from .predictions import Predicted, read_pair, read_predictions
from .scoring import Curve, compare_evaluations, evaluated_arrays, pck_curves, score_predictions


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """What `run_evaluate` measures: a model or a file of predictions, one of the two."""

    recorded: ClassVar = ("resample_by", "bone", "crop", "alone")

    shards: Sequence[str]
    """Sources of labelled samples: tar files, or - for standard input."""
    model: str | None = None
    """The file of the model that predicts, handclr or mediapipe, for the provenance."""
    predictions: str | None = None
    """An NPZ file with the arrays `key` and `keypoints3d`, in place of a model."""
    bone: Bone = "training"
    """The size of the hands a model predicts: the training set's mean bone, or each label's own."""
    crop: CropSource = "given"
    """The crops a model sees: those of the shards, or cut again around a detector's keypoints."""
    alone: bool = False
    """A guided model sees the crops alone, for the provenance."""
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
        found["alone"] = self.alone or None
        own = self.predictions or self.model == MEDIAPIPE
        return {"resample_by": found["resample_by"]} if own else found


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
        workers = worker_count(settings.workers)
        how = Prediction(settings.bone, settings.crop, settings.batch, workers)
        labels, predicted, baseline = predict_labelled(model, how, index, labels, skips)
        official = _protocols(settings, labels, None)
    elif given:
        predicted = given
    scores = score_predictions(predicted, labels, baseline, official, settings.seed)
    report = {"crop": kind, "samples_without_labels": len(index) - labelled, **scores}
    if skips.count:
        report["samples_skipped"] = skips.count
    report["provenance"] = _record(settings, model, [*index.origins, predicted.origin])
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


def _record(
    settings: EvaluateSettings, model: PoseEstimator | None, origins: Sequence[Provenance | None]
) -> Provenance:
    checksums = None
    if settings.model == MEDIAPIPE:
        checksums = dict(getattr(model, "checksums", {}))
    elif settings.model:
        checksums = file_checksum(weights_file(settings.model))
        checksums |= getattr(model, "checksums", {})
    record = provenance(
        "evaluate", settings.arguments(), settings.shards, seed=settings.seed, model=checksums
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
