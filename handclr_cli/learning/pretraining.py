"""Contrastive pre-training: SimCLR, PeCLR and HandCLR as settings of one procedure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from .augmentation import AugmentationConfig, Geometry, View, apply, draw, to_tensor
from .encoder import Encoder
from .loop import Row, to_device
from .losses import nt_xent, retrieval_top1, undo_geometry
from .projection import ProjectionHead


@dataclass(frozen=True)
class Method:
    """A contrastive method: does the second view show a mined positive, and is T undone in latent space?"""

    mined: bool
    undo: bool


METHODS = {
    "simclr": Method(mined=False, undo=False),
    "peclr": Method(mined=False, undo=True),
    "handclr": Method(mined=True, undo=True),
}


class Views(NamedTuple):
    """Two views of each of N pairs: uint8 images (2, N, H, W, 3), their geometry over 2N, image ids (2, N)."""

    images: Tensor
    geometry: Geometry
    ids: Tensor


def augmentation_of(method: Method, size: int, rotation: float) -> AugmentationConfig:
    """The augmentation T of a method; one that cannot undo a rotation does without it, as SimCLR does here."""
    config = AugmentationConfig(size=size, rotation=rotation)
    return config if method.undo else replace(config, rotation=0.0)


class PairDataset(Dataset[tuple[np.ndarray, list[View], tuple[int, int]]]):
    """Pairs of augmented crops; `pairs` (N, 2) are rows of the index, equal where a crop is its own positive."""

    def __init__(self, index: ShardIndex, pairs: np.ndarray, config: AugmentationConfig, seed: int) -> None:
        self.index, self.pairs, self.config, self.seed = index, pairs, config, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, at: Row) -> tuple[np.ndarray, list[View], tuple[int, int]]:
        epoch, row = at
        first, second = self.pairs[row].tolist()
        rng = np.random.default_rng([self.seed, epoch, row])
        views = [draw(self.config, rng), draw(self.config, rng)]
        image = self.index[first].image
        other = image if second == first else self.index[second].image
        return np.stack([apply(views[0], image), apply(views[1], other)]), views, (first, second)


def collate_views(items: Sequence[tuple[np.ndarray, list[View], tuple[int, int]]]) -> Views:
    """Batch the items of a PairDataset."""
    images = torch.from_numpy(np.stack([images for images, _, _ in items], axis=1))
    views = [views[side] for side in (0, 1) for _, views, _ in items]
    return Views(images, Geometry.of(views), torch.tensor([ids for _, _, ids in items]).T)


class ContrastiveModel(nn.Module):
    """Encoder and projection head; `losses` is the objective of a method on a batch of views."""

    def __init__(self, encoder: Encoder, head: ProjectionHead, method: Method, temperature: float) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.method, self.temperature = method, temperature

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to latent vectors (N, 128)."""
        return self.head(self.encoder(images))

    def losses(self, views: Views, device: torch.device) -> dict[str, Tensor]:
        """The NT-Xent loss between the two views, and how often the positive is the nearest in the batch."""
        images = to_tensor(to_device(views.images, device).flatten(0, 1))
        z = self(images)
        if self.method.undo:
            z = undo_geometry(z, views.geometry.to(device))
        z1, z2 = z.chunk(2)
        ids1, ids2 = to_device(views.ids, device)
        return {"loss": nt_xent(z1, z2, ids1, ids2, self.temperature), "top1": retrieval_top1(z1, z2)}


def own_pairs(index: ShardIndex) -> np.ndarray:
    """Every crop as its own positive: int64 (N, 2)."""
    return np.repeat(np.arange(len(index))[:, None], 2, axis=1)


def mined_pairs(index: ShardIndex, files: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """Rows of the index for every mined pair (arrays of pairs files, one after the other): int64 (P, 2).

    A crop without a positive, or one that is not in the index, is left out. Raises HandclrError where none is
    left, or a crop was mined twice.
    """
    pairs = np.concatenate([_nearest_pairs(index, arrays) for arrays in files])
    if len(np.unique(pairs[:, 0])) < len(pairs):
        raise HandclrError("--pairs: a crop was mined in two of the files; remove parts of another run")
    if not len(pairs):
        raise HandclrError("none of the pairs is in the shards; were they mined from these crops?")
    return pairs


def _nearest_pairs(index: ShardIndex, arrays: dict[str, np.ndarray]) -> np.ndarray:
    rows, nearest = index.rows_of(arrays["key"]), arrays["positive"][:, 0]
    target_rows = index.rows_of(arrays["target"]) if "target" in arrays else rows
    found = np.full(len(nearest), -1, np.int64)
    found[nearest >= 0] = target_rows[nearest[nearest >= 0]]
    usable = (rows >= 0) & (found >= 0)
    return np.stack([rows[usable], found[usable]], axis=1)
