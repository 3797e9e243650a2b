"""Pairs of views of crops, drawn by the data processes and batched for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .augmentation import (
    Appearance,
    AugmentationConfig,
    Geometry,
    Image,
    View,
    apply_view,
    draw_view,
    transform_points,
)
from .hardware import ViewsMade
from .positives import Positives
from .published import published_view
from .schedule import Row
from .store import CropStore


class Seen(NamedTuple):
    """One view of the crop in a row: its parameters, its image, and keypoints (21, 2).

    image is the view itself, or the whole crop where the device makes the view, or None where the
    device has the crops too. joints are those in the view, in view sides, or those of the crop, in
    crop sides, or None.
    """

    row: int
    view: View
    image: Image | None
    joints: np.ndarray | None


class Views(NamedTuple):
    """Two views of each of N pairs; every tensor begins with (2, N).

    images (2, N, H, W, 3) uint8 or None; rows (2, N) int64 say which crop each shows; joints (2, N,
    21, 2) view or crop sides, or None.
    """

    images: Tensor | None
    geometry: Geometry
    appearance: Appearance
    rows: Tensor
    joints: Tensor | None


class PairDataset(Dataset[tuple[Seen, Seen]]):
    """Pairs of views; what is drawn depends on (seed, epoch, row) alone.

    posed: which keypoints an item has: "none", those in the "view", or those of the "crop". With
    any, or with views made as published, raises HandclrError where a crop has no keypoints.
    """

    def __init__(
        self,
        store: CropStore,
        positives: Positives,
        config: AugmentationConfig,
        seed: int,
        made: ViewsMade = ViewsMade.BY_WORKERS,
        posed: Literal["none", "view", "crop"] = "none",
    ) -> None:
        self.store, self.positives, self.config, self.seed = store, positives, config, seed
        self.made, self.posed = made, posed

    def __len__(self) -> int:
        return len(self.positives)

    def __getitem__(self, at: Row) -> tuple[Seen, Seen]:
        epoch, row = at
        rng = np.random.default_rng([self.seed, epoch, row])
        query, positive = self.positives.draw(row, rng)
        see = self._see_published if self.made is ViewsMade.AS_PUBLISHED else self._see
        return see(query, rng), see(positive, rng)

    def _see(self, row: int, rng: np.random.Generator) -> Seen:
        view = draw_view(self.config, rng)
        image = None
        if self.made is not ViewsMade.FROM_CACHE:
            image = self.store[row]
            image = image if self.made.on_device else apply_view(view, image)
        joints = None if self.posed == "none" else self._keypoints(row)
        if joints is not None and self.posed == "view":
            joints = transform_points(view, joints)
        return Seen(row, view, image, joints)

    def _see_published(self, row: int, rng: np.random.Generator) -> Seen:
        image, keypoints, size = self.store[row], self._keypoints(row), self.config.size
        seen = published_view(image, keypoints * len(image), size, rng, self.config.geometric)
        right, down = seen.translation
        view = View(size, seen.angle_deg, translation=(float(right), float(down)))
        joints = {"none": None, "view": seen.keypoints2d / size, "crop": keypoints}[self.posed]
        return Seen(row, view, seen.image, joints)

    def _keypoints(self, row: int) -> np.ndarray:
        """The keypoints of a crop (21, 2) in its sides."""
        sample = self.store.index[row]
        return sample.keypoints2d / sample.side


def collate_views(items: Sequence[tuple[Seen, Seen]]) -> Views:
    """Batch the items of a PairDataset."""
    seen = [first for first, _ in items]
    seen += [second for _, second in items]
    images = _stack([one.image for one in seen])
    views = [one.view for one in seen]
    rows = torch.tensor([one.row for one in seen]).reshape(2, -1)
    joints = _stack([one.joints for one in seen])
    geometry = Geometry(*map(_by_side, Geometry.of(views)))
    return Views(images, geometry, Appearance(*map(_by_side, Appearance.of(views))), rows, joints)


def _by_side(field: Tensor) -> Tensor:
    """A field of first and then second views, (2N, ...) as (2, N, ...)."""
    return field.unflatten(0, (2, -1))


def _stack(arrays: Sequence[np.ndarray | None]) -> Tensor | None:
    """(2N) arrays as a tensor (2, N, ...), floats as float32; None where there are none."""
    if arrays[0] is None:
        return None
    stacked = torch.from_numpy(np.stack([array for array in arrays if array is not None]))
    return _by_side(stacked.float() if stacked.is_floating_point() else stacked)
