"""The labelled samples of an evaluation, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..contract.errors import HandclrError, NoCropsError
from ..contract.fields import INTRINSICS, KEYPOINTS_2D, KEYPOINTS_3D, WORLD_3D
from ..contract.index import ShardIndex
from ..contract.naming import Naming
from ..contract.npz import as_keys
from ..contract.sample import Sample
from ..hand.placement import given_camera
from ..hand.plausible import require_hands
from ..work.skips import Skips

UNIT = "sample"
# No split is so long, and more does not fit into the table.
_NOWHERE = 2**63 - 1
_NO_CAMERA = np.full((3, 3), np.nan)


@dataclass(frozen=True)
class Labels:
    """N labelled samples, in the order of their shards.

    `rows` int64 (N,) of the index, `keys` bytes (N,); `keypoints3d` float32 (N, 21, 3) metres,
    `valid` bool (N, 21); `units` bytes (N,): what the intervals resample, as `unit` names
    it; `intrinsics` (N, 3, 3) of the crop, NaN where there are none; `side` int64 (N,) of the
    crop in pixels; `position` int64 (N,) in the data set's own split, -1 where unknown; bool (N,):
    `left`, `mirrored`, `sided`, whether these two are known, and `seen`, whether there are 2D
    keypoints.
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
    sided: np.ndarray
    seen: np.ndarray
    unit: str = UNIT

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, which: np.ndarray) -> Labels:
        """Some of them, by position or by a mask (N,)."""
        columns = [each.name for each in fields(self) if each.name != "unit"]
        return replace(self, **{name: getattr(self, name)[which] for name in columns})

    @property
    def of_both_hands(self) -> bool:
        """Whether there are both left and right hands."""
        return bool(self.left.any() and not self.left.all())

    @property
    def have_cameras(self) -> bool:
        """Whether all samples have intrinsics."""
        return bool(np.isfinite(self.intrinsics).all())


def read_labels(
    index: ShardIndex, unit: str = UNIT, skips: Skips | None = None, seen: bool = True
) -> Labels:
    """Read the labels of the samples that have 3D keypoints; no image is decoded.

    `unit`, a field of the JSON or a pattern on keys, names what the intervals resample; the key
    stands in for a missing `sample`, and says a `video` too. Samples with damaged members, or with
    no sound image where it will be `seen`, are left out. Raises HandclrError where no sample has
    labels that can be used, one lacks another `unit`, or the labels are not those of hands in
    metres.
    """
    naming, skips = Naming.of(unit, "resample_by"), Skips() if skips is None else skips
    columns = [each.name for each in fields(Labels) if each.name != "unit"]
    found: dict[str, list[Any]] = {name: [] for name in columns}
    for row, sample in enumerate(index):
        if KEYPOINTS_3D not in sample:
            continue
        try:
            label = _label(row, sample, seen)
        except HandclrError as error:
            skips.add(error)
            continue
        skips.used()
        for name, value in (label | {"units": _unit(sample, naming)}).items():
            found[name].append(value)
    skips.check()
    if not found["rows"]:
        if not len(index):
            raise NoCropsError
        made = "make labelled shards by handclr import or handclr synth labelled"
        why = f"no sample has {KEYPOINTS_3D.suffix}; {made}; handclr predict needs none"
        raise HandclrError(why)
    keys = as_keys(found.pop("keys"))
    arrays = {name: np.array(column) for name, column in found.items()}
    labels = Labels(**arrays, keys=keys, unit=unit)
    require_hands(labels.keypoints3d, labels.valid, lambda row: index.keys[labels.rows[row]])
    return labels


def _label(row: int, sample: Sample, seen: bool) -> dict[str, Any]:
    # Models are told them, or crops are cut by them: a damaged one is not one that is not there.
    for field in (KEYPOINTS_2D, WORLD_3D) if seen else ():
        if field in sample:
            sample.read(field)
    return {
        "rows": row,
        "keys": sample.key,
        "keypoints3d": sample.keypoints3d,
        "valid": sample.valid,
        "intrinsics": given_camera(sample) if INTRINSICS in sample else _NO_CAMERA,
        "side": sample.checked_side() if seen else 0,
        "position": _position(sample),
        "left": sample.hand == "left",
        "mirrored": bool(sample.flipped),
        "sided": sample.hand is not None and sample.flipped is not None,
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


def _unit(sample: Sample, naming: Naming) -> bytes:
    if naming.field == "video":
        value = sample.named_video
    elif naming.field == UNIT:
        value = sample.info.get(UNIT, sample.key)
    else:
        value = naming.find(sample)
    if value is None:
        what = f"has no '{naming.field}' in its JSON" if naming.field else "has a key without it"
        advice = "name another field, or a pattern on keys"
        why = f"{sample.source}: sample {sample.key} {what}; {advice}"
        raise HandclrError(why, setting="resample_by")
    return str(value).encode("utf-8", "replace")
