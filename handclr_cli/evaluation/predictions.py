"""The labels of an evaluation, and predictions paired with them: by a model, or from a file by
anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os.path import basename
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import INTRINSICS, KEYPOINTS_2D, KEYPOINTS_3D
from ..contract.index import ShardIndex
from ..contract.npz import as_keys, read_npz, repeated_key
from ..contract.provenance import Provenance
from ..contract.sample import Sample
from ..hand import placement
from ..hand.alignment import root_relative
from ..hand.joints import REFERENCE_BONE, WRIST
from ..hand.square import Box, cut, square_box, to_source

UNIT = "sample"
SCALES = {
    "training": (
        "predictions are in reference bones; metres by the training set's mean bone of"
        " {bone_mm:.2f} mm"
    ),
    "true": "predictions are in reference bones; metres by the true bone of each sample's label",
}
# What extract cuts around the keypoints that it finds.
DETECTED_MARGIN = 1.5
_NO_CAMERA = np.full((3, 3), np.nan)


@dataclass(frozen=True)
class Labels:
    """N labelled samples, as a filter gave them: `rows` int64 (N,) of the index, `keys` bytes (N,).

    `keypoints3d` float32 (N, 21, 3) metres, `valid` bool (N, 21); `units` bytes (N,): what the
    intervals resample, by the field `unit` of the JSON; `intrinsics` (N, 3, 3) of the crop, NaN
    where there are none; `side` int64 (N,) of the crop in pixels; `position` int64 (N,) in the data
    set's own split, -1 where unknown; bool (N,): `left`, `mirrored`, and `seen`, whether there are
    2D keypoints.
    """

    rows: np.ndarray
    keys: np.ndarray
    keypoints3d: np.ndarray
    valid: np.ndarray
    units: np.ndarray
    intrinsics: np.ndarray
    side: np.ndarray
    position: np.ndarray
    left: np.ndarray
    mirrored: np.ndarray
    seen: np.ndarray
    unit: str = UNIT

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def of_both_hands(self) -> bool:
        """Whether there are left hands and right ones."""
        return bool(self.left.any() and not self.left.all())

    @property
    def have_cameras(self) -> bool:
        """Whether all have intrinsics."""
        return bool(np.isfinite(self.intrinsics).all())


@dataclass(frozen=True)
class Predicted:
    """Hands float64 (N, 21, 3) metres; `placed` in the crop's camera frame, or with no position
    that means anything.

    `scale` says what the metres come from, `position` where the position does, or why there is
    none. Of a file, `origin` is the provenance and `unused` the number of its hands that are not
    evaluated.
    """

    keypoints3d: np.ndarray
    placed: bool
    scale: str
    position: str
    origin: Provenance | None = None
    unused: int = 0


def read_labels(index: ShardIndex, unit: str = UNIT) -> Labels:
    """Read the labels of the samples that have keypoints3d.npy; no image is decoded.

    `unit` is the field of the JSON that names what the intervals resample; the key stands in for a
    missing `sample`. Raises HandclrError where no sample has labels, or one lacks another `unit`.
    """
    found: dict[str, list[Any]] = {
        name: [] for name in Labels.__dataclass_fields__ if name != "unit"
    }
    for row, sample in enumerate(index):
        if KEYPOINTS_3D not in sample:
            continue
        info = sample.info
        values = (
            *(row, sample.key, sample.keypoints3d, sample.valid, _unit(sample, unit)),
            *(sample.read(INTRINSICS) if INTRINSICS in sample else _NO_CAMERA, sample.side),
            *(
                int(info.get("index", -1)),
                info.get("hand") == "left",
                bool(info.get("flipped", False)),
            ),
            KEYPOINTS_2D in sample,
        )
        for column, value in zip(found.values(), values, strict=True):
            column.append(value)
    if not found["rows"]:
        raise HandclrError("no sample has keypoints3d.npy; make labelled shards by handclr import")
    arrays = {name: np.array(column) for name, column in found.items() if name != "keys"}
    return Labels(**arrays, keys=as_keys(found["keys"]), unit=unit)


def scaled(hands: np.ndarray, labels: Labels, bone: str, mean_bone: float) -> np.ndarray:
    """Hands (N, 21, 3) or (21, 3) in metres by `mean_bone`, in metres by the `bone` of SCALES:
    float64 (N, 21, 3).
    """
    hands = np.broadcast_to(np.asarray(hands, np.float64), labels.keypoints3d.shape)
    if bone == "training":
        return hands
    start, end = (labels.keypoints3d[:, joint].astype(np.float64) for joint in REFERENCE_BONE)
    return hands * (np.linalg.norm(end - start, axis=-1) / mean_bone)[:, None, None]


def placed(
    hands: np.ndarray, seen: np.ndarray, labels: Labels, bone: str, mean_bone: float
) -> Predicted:
    """Put hands (N, 21, 3), `scaled`, where their 2D predictions (N, 21, 2), in crop sides, show
    them, as predict does.

    Without intrinsics of every sample they stay with the wrist at the origin: a mean over some
    would not be the data set's.
    """
    hands = root_relative(scaled(hands, labels, bone, mean_bone))
    scale = SCALES[bone].format(bone_mm=1000 * mean_bone)
    if not labels.have_cameras:
        without = int(np.isnan(labels.intrinsics).any(axis=(1, 2)).sum())
        return Predicted(
            hands, False, scale, f"none: {without} of {len(labels)} samples have no intrinsics.npy"
        )
    sides = zip(labels.side.tolist(), labels.intrinsics.astype(np.float64), strict=True)
    cuts = [
        placement.Cut(side, (0, 0, side, side), False, camera, placement.GIVEN)
        for side, camera in sides
    ]
    found = placement.placed(hands, seen, cuts)
    where = (
        "the translation whose projection by the crop's intrinsics fits the predicted 2D keypoints"
        " best"
    )
    if nowhere := int((~found.fitted).sum()):
        where += (
            f"; {nowhere} fit nowhere before the camera and stand where their extent looks right"
        )
    return Predicted(found.keypoints3d.astype(np.float64), True, scale, where)


def read_predictions(path: str, labels: Labels) -> Predicted:
    """Read `key` and `keypoints3d` of an NPZ file and put them into the labels' order.

    Raises HandclrError where labelled samples have no prediction or a key comes twice.
    """
    arrays, origin = read_npz(path, "predictions", only=("key", "keypoints3d"))
    keys = arrays["key"]
    rows = _rows(path, keys, labels.keys)
    lacking = rows < 0
    if lacking.any():
        first = labels.keys[lacking][0].decode("utf-8", "replace")
        raise HandclrError(
            f"{path}: {int(lacking.sum())} of {len(labels)} labelled samples have no prediction,"
            f" the first is {first}; predict all of them, under the keys of the shards"
        )
    hands = arrays["keypoints3d"][rows].astype(np.float64)
    there = has_position(hands)
    where = (
        "as given in the predictions"
        if there
        else "none: the predictions have their wrists at the origin"
    )
    scale = f"metres as given in {basename(path)}"
    return Predicted(hands, there, scale, where, origin, len(keys) - len(labels))


def has_position(hands: np.ndarray) -> bool:
    """Whether hands (N, 21, 3) metres are somewhere in a camera frame, not all with the wrist at
    the origin.
    """
    return bool(np.abs(hands[:, WRIST]).max(initial=0) > 1e-6)


@dataclass(frozen=True)
class Evaluated:
    """What handclr evaluate -o wrote: predictions and labels, as in Labels and Predicted."""

    keys: np.ndarray
    keypoints3d: np.ndarray
    truth3d: np.ndarray
    valid: np.ndarray
    units: np.ndarray
    origin: Provenance | None


def read_evaluated(path: str) -> Evaluated:
    """Read an NPZ file of handclr evaluate -o. Raises HandclrError where it holds no truth."""
    arrays, origin = read_npz(path, "predictions")
    if "truth3d" not in arrays:
        raise HandclrError(f"{path}: holds no truth3d; write it with handclr evaluate -o")
    valid = np.asarray(arrays.get("valid", np.ones(arrays["keypoints3d"].shape[:2])), bool)
    units = arrays.get("unit", arrays["key"])
    return Evaluated(arrays["key"], arrays["keypoints3d"], arrays["truth3d"], valid, units, origin)


def read_pair(first: str, second: str) -> tuple[Evaluated, Evaluated]:
    """Read two files of handclr evaluate -o, the second put into the order of the first.

    Raises HandclrError where they are not of the same samples with the same labels.
    """
    a, b = read_evaluated(first), read_evaluated(second)
    _rows(first, a.keys, a.keys)
    rows = _rows(second, b.keys, a.keys)
    alone = int((rows < 0).sum()), len(b.keys) - int((rows >= 0).sum())
    if any(alone):
        raise HandclrError(
            f"{first} and {second} are not of the same samples: {alone[0]} keys are in the first"
            f" only, {alone[1]} in the second only; evaluate both on the same shards"
        )
    b = Evaluated(
        b.keys[rows], b.keypoints3d[rows], b.truth3d[rows], b.valid[rows], b.units[rows], b.origin
    )
    same = (a.valid == b.valid).all() and np.allclose(a.truth3d, b.truth3d, rtol=0, atol=1e-6)
    if not same or (a.units != b.units).any():
        raise HandclrError(
            f"{first} and {second} have other labels under the same keys; evaluate both on the same"
            " shards, with the same --resample-by"
        )
    return a, b


def crop_kind(origins: Sequence[Provenance]) -> str:
    """What the crops were cut by, as the history of a file says: labels, a detector, or nobody
    knows.
    """
    records = _records(origins)
    if any((record.get("arguments") or {}).get("crop") == "detected" for record in records):
        return "detected"
    makers = {str(record.get("stage", "")).split(" ")[0] for record in records}
    kinds = {"ground truth": {"import", "synth"}, "detected": {"extract"}}
    return " and ".join(kind for kind, stages in kinds.items() if makers & stages) or "unknown"


def detected_kind(origins: Sequence[Provenance], labels: Labels) -> str:
    """What `predict_detected` cuts by. Raises HandclrError where the 2D keypoints are not those of
    a detector.
    """
    if not any(record.get("stage") == "keypoints" for record in _records(origins)):
        raise HandclrError(
            "--crop detected: the 2D keypoints are not a detector's; pipe the shards through"
            " handclr keypoints --keep-empty first"
        )
    where, found = crop_kind(origins), int(labels.seen.sum())
    return (
        f"detected: {DETECTED_MARGIN:g} times MediaPipe's keypoints, looked for in the {where}"
        f" crop; found in {found} of {len(labels)}, the others as they were"
    )


def predict_detected(
    model: Callable[[list[np.ndarray]], tuple[np.ndarray, np.ndarray]],
    index: ShardIndex,
    rows: np.ndarray,
    batch: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predict from crops cut again around their 2D keypoints: xyz (n, 21, 3) and uv (n, 21, 2) for
    each batch of rows.

    `model` takes crops and returns xyz and uv, in sides of what it was given; here uv is in sides
    of the crop in the shard. A crop without 2D keypoints stays as it is.
    """
    for first in range(0, len(rows), batch):
        samples = [index[row] for row in rows[first : first + batch].tolist()]
        boxes = [_detected_box(sample) for sample in samples]
        xyz, uv = model(
            [cut(one.image, box, one.side, False) for one, box in zip(samples, boxes, strict=True)]
        )
        back = [
            to_source(at, box, 1, False) / one.side
            for at, box, one in zip(uv, boxes, samples, strict=True)
        ]
        yield xyz, np.stack(back)


def _detected_box(sample: Sample) -> Box:
    return (
        square_box(sample.keypoints2d, DETECTED_MARGIN)
        if KEYPOINTS_2D in sample
        else (0, 0, sample.side, sample.side)
    )


def _records(origins: Sequence[Provenance]) -> list[Provenance]:
    """The stages that made a file, as they describe themselves."""
    return [record for origin in origins for record in (*(origin.get("history") or ()), origin)]


def _unit(sample: Sample, unit: str) -> bytes:
    value = (
        sample.video
        if unit == "video"
        else sample.info.get(unit, sample.key if unit == UNIT else None)
    )
    if value is None:
        raise HandclrError(
            f"{sample.source}: sample {sample.key} has no '{unit}' in its JSON; name another field"
        )
    return str(value).encode("utf-8", "replace")


def _rows(path: str, keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of `wanted` among keys, int64, -1 where not there; raises HandclrError where a key comes
    twice.
    """
    twice = repeated_key(keys)
    if twice is not None:
        raise HandclrError(
            f"{path}: key {twice.decode('utf-8', 'replace')} appears twice; keys must be unique"
        )
    rows = {key: row for row, key in enumerate(keys.tolist())}
    return np.array([rows.get(key, -1) for key in wanted.tolist()], np.int64)
