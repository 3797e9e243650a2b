"""Fine-tuning of the pose model on labelled crops: views of them, and the loss of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .augmentation import (
    Appearance,
    AugmentationConfig,
    Geometry,
    Image,
    View,
    apply_view,
    draw_view,
    move_pose,
    to_tensor,
)
from .distributed import Ranks
from .encoder import Encoder
from .ground_truth import pose_truth
from .guide import Guide
from .hardware import Autocast, ViewsMade, move
from .pose_head import PoseHead
from .schedule import Row
from .store import CropStore
from .training_labels import TrainingLabels
from .warp import render_views


def pose_augmentation(size: int, rotation: float) -> AugmentationConfig:
    """The augmentation of fine-tuning: a rotation, +-10 % of scale, +-5 % of shift, a light blur.

    Colours as in pre-training. Image, 2D and 3D move together.
    """
    return AugmentationConfig(
        size=size,
        rotation=rotation,
        scale=(0.9, 1.1),
        translation=0.05,
        blur_probability=0.2,
        blur_sigma=(0.1, 1.0),
    )


# In sides of the view.
GUIDE_NOISE = 0.01


class Shown(NamedTuple):
    """The view of the crop in a row of the labels, and where its joints are in the view.

    image is the view itself, or the whole crop where the device makes the view, or None where the
    device has the crops too. guide: what the landmarker found, points (21, 2) in sides of the view
    and world (21, 3).
    """

    row: int
    view: View
    image: Image | None
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    valid: np.ndarray
    posed: bool
    guide: tuple[np.ndarray, np.ndarray] | None


class Labelled(NamedTuple):
    """A batch of N views, with their labels.

    images uint8 (N, H, W, 3) or None; rows (N,) int64 of the labels; keypoints2d (N, 21, 2) px of
    the view; keypoints3d (N, 21, 3) metres; valid (N, 21) bool: the joint has labels; posed (N,)
    bool: there are 3D labels.
    """

    images: Tensor | None
    geometry: Geometry
    appearance: Appearance
    rows: Tensor
    keypoints2d: Tensor
    keypoints3d: Tensor
    valid: Tensor
    posed: Tensor
    guide: Guide


class PoseDataset(Dataset[Shown]):
    """Augmented labelled crops; the augmentation depends on (seed, epoch, row) alone.

    Of the labels, those with 3D come first. An epoch shows these once, and `flat` times one that
    has 2D labels alone: from epoch to epoch the next ones, in an order drawn by the seed.
    """

    def __init__(
        self,
        store: CropStore,
        labels: TrainingLabels,
        config: AugmentationConfig,
        seed: int,
        made: ViewsMade = ViewsMade.BY_WORKERS,
        flat: int = 0,
    ) -> None:
        self.store, self.labels, self.config = store, labels, config
        self.seed, self.made, self.flat = seed, made, flat
        self._posed = int(labels.posed.sum())
        others = np.arange(self._posed, len(labels))
        self._others = np.random.default_rng([seed, 2]).permutation(others)

    def __len__(self) -> int:
        return self._posed + self.flat

    def __getitem__(self, at: Row) -> Shown:
        epoch, place = at
        rng = np.random.default_rng([self.seed, epoch, place])
        view, row, labels = draw_view(self.config, rng), self._row(epoch, place), self.labels
        image = None
        if self.made is not ViewsMade.FROM_CACHE:
            image = self.store[int(labels.rows[row])]
            image = image if self.made.on_device else apply_view(view, image)
        moved = move_pose(view, labels.keypoints2d[row], labels.keypoints3d[row])
        guide = None
        if labels.guided[row]:
            points, world = move_pose(view, labels.guide2d[row], labels.guide3d[row])
            # Of other hands the landmarker is less sure than of those it was tried on.
            guide = points / view.size + rng.normal(0, GUIDE_NOISE, points.shape), world
        return Shown(row, view, image, *moved, labels.valid[row], bool(labels.posed[row]), guide)

    def _row(self, epoch: int, place: int) -> int:
        """The row of the labels that a place in an epoch shows."""
        if place < self._posed:
            return place
        drawn = epoch * self.flat + place - self._posed
        return int(self._others[drawn % len(self._others)])


def collate_labelled(items: Sequence[Shown]) -> Labelled:
    """Batch the items of a PoseDataset."""
    views = [one.view for one in items]
    images = [one.image for one in items if one.image is not None]
    rows = torch.tensor([one.row for one in items])
    points = np.stack([one.keypoints2d for one in items])
    poses = np.stack([one.keypoints3d for one in items])
    valid = np.stack([one.valid for one in items])
    posed = torch.tensor([one.posed for one in items])
    return Labelled(
        torch.from_numpy(np.stack(images)) if images else None,
        Geometry.of(views),
        Appearance.of(views),
        rows,
        torch.from_numpy(points),
        torch.from_numpy(poses),
        torch.from_numpy(valid),
        posed,
        Guide.of([one.guide for one in items], views[0].size),
    )


@dataclass
class PoseObjective:
    """The pose loss of a batch, and its gradients in the model.

    model is a PoseNet, or a wrapper that distributes it, and head its head. size: of the views, px.
    crops: those of the data set's rows on the device, uint8 (N, R, R, 3), where it has them.
    """

    model: nn.Module
    head: PoseHead
    size: int
    device: torch.device
    autocast: Autocast = contextlib.nullcontext
    ranks: Ranks = Ranks()  # noqa: RUF009
    made: ViewsMade = ViewsMade.BY_WORKERS
    crops: Tensor | None = None

    def __call__(self, batch: Labelled) -> dict[str, Tensor]:
        """Leave the gradients in the model; returns the loss and its parts."""
        batch = move(batch, self.device)
        with self.autocast():
            images = self._images(batch)
            outputs = (
                self.model(images, batch.guide) if self.head.takes_guide else self.model(images)
            )
        labels = batch.keypoints2d, batch.keypoints3d
        truth = pose_truth(*labels, self.size, batch.valid, batch.posed)
        losses = self.head.loss(outputs, truth, self.ranks.mean)
        losses["total"].backward()
        return {"loss": losses.pop("total"), **losses}

    def _images(self, batch: Labelled) -> Tensor:
        images = self.crops[batch.rows] if self.crops is not None else batch.images
        assert images is not None
        if self.made.on_device:
            return render_views(images, batch.geometry, batch.appearance, self.size)
        return to_tensor(images)


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: no gradients, and batch norms in evaluation mode throughout."""
    encoder.requires_grad_(False)
    encoder.eval()
    # The loop sets the whole network to training mode: this part of it alone must not follow, and
    # a subclass would have to be known wherever an encoder is built.
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]
