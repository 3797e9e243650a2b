"""Fine-tuning of the pose model on labelled crops: labels, their views, the loss of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..contract.errors import HandclrError, UsageError
from ..contract.fields import KEYPOINTS_2D, KEYPOINTS_3D
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from ..hand.plausible import pixel_keypoints, require_hands
from ..work.skips import Skips
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
from .hardware import Autocast, ViewsMade, move
from .heads import PoseHead
from .schedule import Row
from .store import CropStore
from .warp import render_views


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


def read_training_labels(index: ShardIndex, skips: Skips | None = None) -> TrainingLabels:
    """Read the labels of all samples with 2D and 3D keypoints that can be used.

    A sample is one with others where the JSON gives them the same `sample`; without it, each is
    unique. Raises HandclrError where there are none, or they are not of hands in metres.
    """
    skips = Skips() if skips is None else skips
    rows: list[int] = []
    known: list[tuple[Any, ...]] = []
    for row, sample in enumerate(index):
        if KEYPOINTS_2D not in sample or KEYPOINTS_3D not in sample:
            continue
        try:
            known.append(_label(sample))
        except HandclrError as error:
            skips.add(error)
            continue
        skips.used()
        rows.append(row)
    skips.check()
    if not rows:
        missing = "no sample has keypoints2d.npy and keypoints3d.npy"
        raise HandclrError(f"{missing}; make labelled shards by handclr import")
    names, *labels = zip(*known, strict=True)
    found = TrainingLabels(np.array(rows), np.array(names), *map(np.stack, labels))
    require_hands(found.keypoints3d, found.valid, lambda row: index.keys[rows[row]])
    return found


def _label(sample: Sample) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """The name of a sample, its 2D keypoints in sides of the crop, 3D keypoints and valid joints.

    Raises HandclrError where one is damaged, or the image is, as far as its bytes say.
    """
    points = pixel_keypoints(sample) / np.float32(sample.checked_side())
    name = str(sample.info.get("sample", sample.key))
    return name, points, sample.keypoints3d, sample.valid


def hold_out(
    labels: TrainingLabels, share: float, seed: int
) -> tuple[TrainingLabels, TrainingLabels]:
    """What to train on, and a seeded share of the unique samples, in all versions, held out."""
    held = _drawn(labels.names, share, [seed, 1]) if share else np.zeros(len(labels), bool)
    if held.all():
        raise UsageError("leaves nothing to train on", setting="hold_out")
    return labels.take(~held), labels.take(held)


def choose_fraction(labels: TrainingLabels, share: float, seed: int) -> TrainingLabels:
    """A seeded share of the unique samples, in all versions (FreiHAND has four of each).

    Not the first n of them, which would be of one studio.
    """
    return labels.take(_drawn(labels.names, share, seed))


def _drawn(names: np.ndarray, share: float, seed: int | list[int]) -> np.ndarray:
    unique = np.unique(names)
    count = max(1, round(share * len(unique)))
    return np.isin(names, np.random.default_rng(seed).permutation(unique)[:count])


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


class Shown(NamedTuple):
    """The view of the crop in a row of the data set, and where its joints are in the view.

    image is the view itself, or the whole crop where the device makes the view, or None where the
    device has the crops too.
    """

    row: int
    view: View
    image: Image | None
    keypoints2d: np.ndarray
    keypoints3d: np.ndarray
    valid: np.ndarray


class Labelled(NamedTuple):
    """A batch of N views, with their labels.

    images uint8 (N, H, W, 3) or None; rows (N,) int64 of the data set; keypoints2d (N, 21, 2) px of
    the view; keypoints3d (N, 21, 3) metres; valid (N, 21) bool: the joint has labels.
    """

    images: Tensor | None
    geometry: Geometry
    appearance: Appearance
    rows: Tensor
    keypoints2d: Tensor
    keypoints3d: Tensor
    valid: Tensor


class PoseDataset(Dataset[Shown]):
    """Augmented labelled crops; the augmentation depends on (seed, epoch, row) alone."""

    def __init__(
        self,
        store: CropStore,
        labels: TrainingLabels,
        config: AugmentationConfig,
        seed: int,
        made: ViewsMade = ViewsMade.BY_WORKERS,
    ) -> None:
        self.store, self.labels, self.config = store, labels, config
        self.seed, self.made = seed, made

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: Row) -> Shown:
        epoch, row = at
        view = draw_view(self.config, np.random.default_rng([self.seed, epoch, row]))
        image = None
        if self.made is not ViewsMade.FROM_CACHE:
            image = self.store[int(self.labels.rows[row])]
            image = image if self.made.on_device else apply_view(view, image)
        moved = move_pose(view, self.labels.keypoints2d[row], self.labels.keypoints3d[row])
        return Shown(row, view, image, *moved, self.labels.valid[row])


def collate_labelled(items: Sequence[Shown]) -> Labelled:
    """Batch the items of a PoseDataset."""
    views = [one.view for one in items]
    images = [one.image for one in items if one.image is not None]
    rows = torch.tensor([one.row for one in items])
    points = np.stack([one.keypoints2d for one in items])
    poses = np.stack([one.keypoints3d for one in items])
    valid = np.stack([one.valid for one in items])
    return Labelled(
        torch.from_numpy(np.stack(images)) if images else None,
        Geometry.of(views),
        Appearance.of(views),
        rows,
        torch.from_numpy(points),
        torch.from_numpy(poses),
        torch.from_numpy(valid),
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
            outputs = self.model(self._images(batch))
        truth = pose_truth(batch.keypoints2d, batch.keypoints3d, self.size, batch.valid)
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
