"""Fine-tuning of the pose model on labelled crops, and its predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D, KEYPOINTS_3D
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from .augmentation import AugmentationConfig, apply_pose, draw, to_tensor
from .encoder import Encoder
from .hardware import Autocast, move
from .loop import Row
from .pose import PoseNet, pose_loss, targets


class Labelled(NamedTuple):
    """A batch: uint8 images (N, H, W, 3), keypoints2d (N, 21, 2) view pixels, keypoints3d (N, 21, 3) metres."""

    images: Tensor
    keypoints2d: Tensor
    keypoints3d: Tensor


def pose_augmentation(size: int, rotation: float) -> AugmentationConfig:
    """Rotation, +-10 % of scale and +-5 % of shift, colour and a light blur, moving image, 2D and 3D together."""
    return AugmentationConfig(
        size=size, rotation=rotation, scale=(0.9, 1.1), translation=0.05, blur_probability=0.2, blur_sigma=(0.1, 1.0)
    )


class PoseDataset(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """Augmented labelled crops; the augmentation depends on (seed, epoch, row) alone."""

    def __init__(self, index: ShardIndex, rows: np.ndarray, config: AugmentationConfig, seed: int) -> None:
        self.index, self.rows, self.config, self.seed = index, rows, config, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        epoch, row = at
        sample = self.index[int(self.rows[row])]
        view = draw(self.config, np.random.default_rng([self.seed, epoch, row]))
        return apply_pose(view, sample.image, sample.keypoints2d, sample.keypoints3d)


def collate_labelled(items: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Labelled:
    """Batch the items of a PoseDataset."""
    return Labelled(*(torch.from_numpy(np.stack(parts)) for parts in zip(*items, strict=True)))


def differentiate(model: PoseNet, batch: Labelled, device: torch.device, autocast: Autocast) -> dict[str, Tensor]:
    """Leave the gradients of the pose loss on a batch in the model; returns the loss and its parts."""
    batch = move(batch, device)
    images = to_tensor(batch.images)
    with autocast():
        maps = model(images)
    losses = pose_loss(maps, targets(batch.keypoints2d, batch.keypoints3d, images.shape[-1]))
    losses["total"].backward()
    return {"loss": losses.pop("total"), **losses}


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: no gradients, and batch norms that stay in evaluation mode while training."""
    encoder.requires_grad_(False)
    encoder.eval()
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]


def labelled_rows(index: ShardIndex) -> np.ndarray:
    """Rows of the samples with 2D and 3D keypoints. Raises HandclrError where there are none."""
    rows = [row for row, sample in enumerate(index) if KEYPOINTS_2D in sample and KEYPOINTS_3D in sample]
    if not rows:
        raise HandclrError("no sample has keypoints2d.npy and keypoints3d.npy; make labelled shards by handclr import")
    return np.array(rows)


def choose_fraction(index: ShardIndex, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A seeded subset of the unique samples, each with all its versions (FreiHAND has four of each).

    A sample is what the JSON calls `sample`, else the key. Not the first n files, which would be one studio.
    """
    names = np.array([_unique_name(index[int(row)]) for row in rows])
    unique = np.unique(names)
    count = max(1, round(fraction * len(unique)))
    kept = np.random.default_rng(seed).permutation(unique)[:count]
    return rows[np.isin(names, kept)]


def _unique_name(sample: Sample) -> str:
    return str(sample.info.get("sample", sample.key))
