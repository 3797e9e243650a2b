"""Fine-tuning of the pose model on labelled crops: the labels, their views, and the loss of a
batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..contract.errors import HandclrError, UsageError
from ..contract.fields import KEYPOINTS_2D, KEYPOINTS_3D
from ..contract.index import ShardIndex
from .augmentation import (
    Appearance,
    AugmentationConfig,
    Geometry,
    Image,
    View,
    apply,
    draw,
    move_pose,
    to_tensor,
)
from .distributed import Ranks
from .encoder import Encoder
from .ground_truth import pose_truth
from .hardware import Autocast, move
from .heads import Head
from .schedule import Row
from .store import CropStore
from .warp import render


@dataclass(frozen=True)
class TrainingLabels:
    """The labelled samples of an index.

    rows (N,) int64 in the index; names (N,) of unique samples, which may come in versions;
    keypoints2d (N, 21, 2) crop sides, keypoints3d (N, 21, 3) metres, float32; valid (N, 21) bool:
    the joint has labels.
    """

    rows: np.ndarray
    names: np.ndarray
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: np.ndarray) -> TrainingLabels:
        """Some of them, by position or by a mask (N,)."""
        return TrainingLabels(*(getattr(self, name)[which] for name in self.__dataclass_fields__))


def read_labels(index: ShardIndex) -> TrainingLabels:
    """Read the labels of all samples with 2D and 3D keypoints. Raises HandclrError where there are
    none.

    A unique sample is what the JSON calls `sample`, else the key.
    """
    rows, names, points, poses, valid = [], [], [], [], []
    for row, sample in enumerate(index):
        if KEYPOINTS_2D in sample and KEYPOINTS_3D in sample:
            rows.append(row)
            names.append(str(sample.info.get("sample", sample.key)))
            points.append(sample.keypoints2d / np.float32(sample.side))
            poses.append(sample.keypoints3d)
            valid.append(sample.valid)
    if not rows:
        raise HandclrError(
            "no sample has keypoints2d.npy and keypoints3d.npy; make labelled shards by handclr"
            " import"
        )
    return TrainingLabels(
        np.array(rows), np.array(names), np.stack(points), np.stack(poses), np.stack(valid)
    )


def hold_out(
    labels: TrainingLabels, share: float, seed: int
) -> tuple[TrainingLabels, TrainingLabels]:
    """What to train on, and a seeded share of the unique samples to validate on, each with all its
    versions.
    """
    held = _drawn(labels.names, share, [seed, 1]) if share else np.zeros(len(labels), bool)
    if held.all():
        raise UsageError(f"--hold-out {share:g}: leaves nothing to train on")
    return labels.take(~held), labels.take(held)


def choose_fraction(labels: TrainingLabels, share: float, seed: int) -> TrainingLabels:
    """A seeded share of the unique samples, each with all its versions (FreiHAND has four of each).

    Not the first n files, which would be one studio.
    """
    return labels.take(_drawn(labels.names, share, seed))


def _drawn(names: np.ndarray, share: float, seed: int | list[int]) -> np.ndarray:
    unique = np.unique(names)
    count = max(1, round(share * len(unique)))
    return np.isin(names, np.random.default_rng(seed).permutation(unique)[:count])


def pose_augmentation(size: int, rotation: float) -> AugmentationConfig:
    """Rotation, +-10 % of scale and +-5 % of shift, colour and a light blur, moving image, 2D and
    3D together.
    """
    return AugmentationConfig(
        size=size,
        rotation=rotation,
        scale=(0.9, 1.1),
        translation=0.05,
        blur_probability=0.2,
        blur_sigma=(0.1, 1.0),
    )


class Shown(NamedTuple):
    """The view of one labelled crop, and where its joints are in it; `row` counts the data set's.

    image is the view itself, or the whole crop where the device makes the view, or None where it
    has the crops.
    """

    row: int
    view: View
    image: Image | None
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    valid: np.ndarray


class Labelled(NamedTuple):
    """A batch: uint8 images (N, H, W, 3) or None, keypoints2d (N, 21, 2) view px, keypoints3d (N,
    21, 3) metres.

    valid (N, 21) bool: the joint has labels. geometry and appearance of the views; rows (N,) int64
    of the data set.
    """

    images: Tensor | None
    geometry: Geometry
    appearance: Appearance
    rows: Tensor
    keypoints2d: Tensor
    keypoints3d: Tensor
    valid: Tensor


class PoseDataset(Dataset[Shown]):
    """Augmented labelled crops; the augmentation depends on (seed, epoch, row) alone.

    made: what is made here: "views"; "crops", where the device makes the views of them; or "draws",
    where it has the crops too.
    """

    def __init__(
        self,
        store: CropStore,
        labels: TrainingLabels,
        config: AugmentationConfig,
        seed: int,
        made: str = "views",
    ) -> None:
        self.store, self.labels, self.config, self.seed, self.made = (
            store,
            labels,
            config,
            seed,
            made,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: Row) -> Shown:
        epoch, row = at
        view = draw(self.config, np.random.default_rng([self.seed, epoch, row]))
        image = None if self.made == "draws" else self.store[int(self.labels.rows[row])]
        if self.made == "views" and image is not None:
            image = apply(view, image)
        moved = move_pose(view, self.labels.keypoints2d[row], self.labels.keypoints3d[row])
        return Shown(row, view, image, *moved, self.labels.valid[row])


def collate_labelled(items: Sequence[Shown]) -> Labelled:
    """Batch the items of a PoseDataset."""
    views = [one.view for one in items]
    images = [one.image for one in items if one.image is not None]
    labels = (
        np.stack([getattr(one, name) for one in items])
        for name in ("keypoints2d", "keypoints3d", "valid")
    )
    return Labelled(
        torch.from_numpy(np.stack(images)) if images else None,
        Geometry.of(views),
        Appearance.of(views),
        torch.tensor([one.row for one in items]),
        *map(torch.from_numpy, labels),
    )


@dataclass
class PoseObjective:
    """The pose loss of a batch, and its gradients in the model.

    model is a PoseNet, or what distributes it, and head its head. size: of the views, px. crops:
    those of the data set's rows on the device, uint8 (N, R, R, 3), where it has them.
    """

    model: nn.Module
    head: Head
    size: int
    device: torch.device
    autocast: Autocast = contextlib.nullcontext
    ranks: Ranks = Ranks()  # noqa: RUF009
    made: str = "views"
    crops: Tensor | None = None

    def __call__(self, batch: Labelled) -> dict[str, Tensor]:
        """Leave the gradients in the model; returns the loss and its parts."""
        batch = move(batch, self.device)
        with self.autocast():
            outputs = self.model(self._images(batch))
        truth = pose_truth(batch.keypoints2d, batch.keypoints3d, self.size, batch.valid)
        losses = self.head.loss(outputs, truth, self.ranks.mean)
        losses["total"].backward()
        return {"loss": losses.pop("total"), **losses}

    def _images(self, batch: Labelled) -> Tensor:
        images = self.crops[batch.rows] if self.crops is not None else batch.images
        assert images is not None
        if self.made == "views":
            return to_tensor(images)
        return render(images, batch.geometry, batch.appearance, self.size)


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: no gradients, and batch norms that stay in evaluation mode while
    training.
    """
    encoder.requires_grad_(False)
    encoder.eval()
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]
