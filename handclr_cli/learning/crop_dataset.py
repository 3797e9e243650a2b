"""The crops of shards as a data set of torch, for anybody's own training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.fields import FIELDS, IMAGE, INFO, INTRINSICS, KEYPOINTS_2D, VALID, Field
from ..contract.index import ShardIndex
from ..contract.inputs import expand_inputs
from ..contract.sample import Sample
from .augmentation import View, apply_view

_OTHERS = [field for field in FIELDS if field is not IMAGE]
_BY_NAME = {"image": IMAGE} | {field.suffix.removesuffix(".npy"): field for field in _OTHERS}


class CropDataset(Dataset[dict[str, Any]]):
    """Samples of shards by position, ready for a DataLoader; any number of worker processes.

    shards: files, folders, patterns or brace ranges; fields: what each item holds beside its "key",
    of "image" uint8 (3, S, S) RGB, "keypoints2d" float32 (21, 2) pixels of it, "keypoints3d"
    float32 (21, 3) metres, "world3d" float32 (21, 3) metres from the wrist, "intrinsics" float32
    (3, 3), "valid" uint8 (21,), "json" a dict; size: side of the images in pixels, to which the
    crops, keypoints2d and intrinsics are scaled, None for the crops' own; transform: called with
    the item, for what the DataLoader is to get in its place. Raises HandclrError where a field is
    unknown, a shard is damaged, or a sample lacks a field.

    >>> import tempfile, handclr_cli as handclr
    >>> from torch.utils.data import DataLoader
    >>> shard = f"{tempfile.mkdtemp()}/hands.tar"
    >>> made = handclr.SynthLabelledSettings(output=shard, count=4, size=64, workers=1)
    >>> _ = handclr.run_synth_labelled(made)
    >>> crops = handclr.CropDataset(shard, fields=("image", "keypoints2d"), size=32)
    >>> batch = next(iter(DataLoader(crops, batch_size=4)))
    >>> tuple(batch["image"].shape), tuple(batch["keypoints2d"].shape)
    ((4, 3, 32, 32), (4, 21, 2))
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        fields: Sequence[str] = ("image",),
        size: int | None = None,
        transform: Callable[[dict[str, Any]], Any] | None = None,
    ) -> None:
        named = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
        unknown = [name for name in fields if name not in _BY_NAME]
        if unknown:
            known = ", ".join(_BY_NAME)
            raise HandclrError(f"there is no {unknown[0]} in a sample; choose from {known}")
        self.sources = expand_inputs([os.fspath(name) for name in named])
        self.fields, self.size, self.transform = tuple(fields), size, transform
        self.index = ShardIndex(self.sources)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Any:
        sample = self.index[range(len(self))[row]]
        scale = 1.0 if self.size is None else self.size / sample.side
        item: dict[str, Any] = {"key": sample.key}
        for name in self.fields:
            item[name] = self._read(sample, _BY_NAME[name], scale)
        return item if self.transform is None else self.transform(item)

    def __getstate__(self) -> dict[str, Any]:
        # The mapped files stay with this process; another one maps them again.
        return {**self.__dict__, "index": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.index = ShardIndex(self.sources)

    def _read(self, sample: Sample, field: Field, scale: float) -> Any:
        if field is IMAGE:
            image = sample.image
            if self.size is not None and self.size != len(image):
                image = apply_view(View(self.size), image)
            return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if field is VALID:
            return torch.from_numpy(sample.valid.astype(np.uint8))
        value = sample.read(field)
        if field is INFO:
            return value
        if field is KEYPOINTS_2D:
            value = value * np.float32(scale)
        elif field is INTRINSICS:
            value = np.diag([scale, scale, 1.0]).astype(np.float32) @ value
        return torch.from_numpy(value)
