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
    apply,
    draw,
    transform_points,
)
from .positives import Positives
from .published import published_view
from .schedule import Row
from .store import CropStore


class Seen(NamedTuple):
    """One view of the crop in a row: its parameters, its picture, and keypoints (21, 2).

    image is the view itself, or the whole crop where the device makes the view, or None where it
    has the crops. joints are those in the view, in view sides, or of the crop, in crop sides, or
    None.
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

    made: what is made here: "views"; "published" ones, as the published code has them; "crops",
    where the device makes the views of them; or "draws", where it has the crops too. posed: which
    keypoints are wanted: "none", those in the "view", or those of the "crop" (raises HandclrError
    where a crop has none).
    """

    def __init__(
        self,
        store: CropStore,
        positives: Positives,
        config: AugmentationConfig,
        seed: int,
        made: str = "views",
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
        see = self._see_published if self.made == "published" else self._see
        return see(query, rng), see(positive, rng)

    def _see(self, row: int, rng: np.random.Generator) -> Seen:
        view = draw(self.config, rng)
        image = None if self.made == "draws" else self.store[row]
        if self.made == "views" and image is not None:
            image = apply(view, image)
        joints = None if self.posed == "none" else self._keypoints(row)
        if joints is not None and self.posed == "view":
            joints = transform_points(view, joints)
        return Seen(row, view, image, joints)

    def _see_published(self, row: int, rng: np.random.Generator) -> Seen:
        image, keypoints, size = self.store[row], self._keypoints(row), self.config.size
        seen = published_view(image, keypoints * len(image), size, rng, self.config.geometric)
        view = View(
            size,
            seen.angle_deg,
            translation=(float(seen.translation[0]), float(seen.translation[1])),
        )
        joints = {"none": None, "view": seen.keypoints2d / size, "crop": keypoints}[self.posed]
        return Seen(row, view, seen.image, joints)

    def _keypoints(self, row: int) -> np.ndarray:
        """The keypoints of a crop (21, 2) in its sides."""
        sample = self.store.index[row]
        return sample.keypoints2d / sample.side


def collate_views(items: Sequence[tuple[Seen, Seen]]) -> Views:
    """Batch the items of a PairDataset."""
    seen = [pair[side] for side in (0, 1) for pair in items]
    views = [one.view for one in seen]
    return Views(
        _stack([one.image for one in seen]),
        Geometry(*(field.unflatten(0, (2, -1)) for field in Geometry.of(views))),
        Appearance(*(field.unflatten(0, (2, -1)) for field in Appearance.of(views))),
        torch.tensor([one.row for one in seen]).reshape(2, -1),
        _stack([one.joints for one in seen]),
    )


def _stack(arrays: Sequence[np.ndarray | None]) -> Tensor | None:
    """(2N) arrays as a tensor (2, N, ...), floats as float32; None where there are none."""
    if arrays[0] is None:
        return None
    stacked = torch.from_numpy(np.stack([array for array in arrays if array is not None]))
    stacked = stacked.float() if stacked.is_floating_point() else stacked
    return stacked.unflatten(0, (2, -1))
