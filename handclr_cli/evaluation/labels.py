"""The labelled samples of an evaluation, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import INTRINSICS, KEYPOINTS_2D, KEYPOINTS_3D
from ..contract.index import ShardIndex
from ..contract.npz import as_keys
from ..contract.sample import Sample
from ..hand.placement import given_camera
from ..hand.plausible import require_hands

UNIT = "sample"
# No split is so long, and more does not fit into the table.
_NOWHERE = 2**63 - 1
_NO_CAMERA = np.full((3, 3), np.nan)


@dataclass(frozen=True)
class Labels:
    """N labelled samples, in the order of their shards.

    `rows` int64 (N,) of the index, `keys` bytes (N,); `keypoints3d` float32 (N, 21, 3) metres,
    `valid` bool (N, 21); `units` bytes (N,): what the intervals resample, by the field `unit` of
    the JSON; `intrinsics` (N, 3, 3) of the crop, NaN where there are none; `side` int64 (N,) of the
    crop in pixels; `position` int64 (N,) in the data set's own split, -1 where unknown; bool (N,):
    `left`, `mirrored`, and `seen`, whether there are 2D keypoints.
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
        """Whether there are both left and right hands."""
        return bool(self.left.any() and not self.left.all())

    @property
    def have_cameras(self) -> bool:
        """Whether all samples have intrinsics."""
        return bool(np.isfinite(self.intrinsics).all())


def read_labels(index: ShardIndex, unit: str = UNIT) -> Labels:
    """Read the labels of the samples that have 3D keypoints; no image is decoded.

    `unit` is the field of the JSON that names what the intervals resample; the key stands in for a
    missing `sample`. Raises HandclrError where no sample has labels, one lacks another `unit`, or
    the labels are not those of hands in metres.
    """
    found: dict[str, list[Any]] = {
        field.name: [] for field in fields(Labels) if field.name != "unit"
    }
    for row, sample in enumerate(index):
        if KEYPOINTS_3D in sample:
            for name, value in _label(row, sample, unit).items():
                found[name].append(value)
    if not found["rows"]:
        raise HandclrError(
            f"no sample has {KEYPOINTS_3D.suffix}; make labelled shards by handclr import"
        )
    keys = as_keys(found.pop("keys"))
    arrays = {name: np.array(column) for name, column in found.items()}
    labels = Labels(**arrays, keys=keys, unit=unit)
    require_hands(labels.keypoints3d, labels.valid, lambda row: index.keys[labels.rows[row]])
    return labels


def _label(row: int, sample: Sample, unit: str) -> dict[str, Any]:
    info = sample.info
    return {
        "rows": row,
        "keys": sample.key,
        "keypoints3d": sample.keypoints3d,
        "valid": sample.valid,
        "units": _unit(sample, unit),
        "intrinsics": given_camera(sample) if INTRINSICS in sample else _NO_CAMERA,
        "side": sample.side,
        "position": _position(sample),
        "left": info.get("hand") == "left",
        "mirrored": bool(info.get("flipped", False)),
        "seen": KEYPOINTS_2D in sample,
    }


def _position(sample: Sample) -> int:
    value = sample.info.get("index", -1)
    try:
        position = int(value)
    except (TypeError, ValueError, OverflowError):
        position = _NOWHERE
    if not -1 <= position < _NOWHERE:
        where = f"{sample.source}: sample {sample.key}"
        raise HandclrError(f"{where}: 'index' in its JSON is no position in a split")
    return position


def _unit(sample: Sample, unit: str) -> bytes:
    value = sample.info.get(unit)
    if unit == "video":
        value = sample.video
    elif unit == UNIT:
        value = sample.info.get(unit, sample.key)
    if value is None:
        raise HandclrError(
            f"{sample.source}: sample {sample.key} has no '{unit}' in its JSON; name another field"
        )
    return str(value).encode("utf-8", "replace")
