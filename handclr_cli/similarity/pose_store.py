"""Poses as they were read, and the vectors that are compared: 2D keypoints, world landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..choices import PoseKind
from ..hand.normalise import COORDINATES as IMAGE_COORDINATES
from ..hand.normalise import pose_vectors

WORLD_COORDINATES = 63
COORDINATES: dict[PoseKind, int] = {
    "2d": IMAGE_COORDINATES,
    "world": WORLD_COORDINATES,
    "both": IMAGE_COORDINATES + WORLD_COORDINATES,
}


class _Batch(NamedTuple):
    keypoints: np.ndarray
    sizes: np.ndarray
    world: np.ndarray


class PoseStore:
    """Poses as they were read, 172 bytes each, or 424 with world landmarks.

    They are normalised batch by batch as often as they are passed over. Iterating gives float64
    (B, C) vectors, as many as were added at once: of `kind` 2d the normalised keypoints, C = 42; of
    world the landmarks in metres from the wrist, times `world_scale`, C = 63; of both one behind
    the other, C = 105.
    """

    def __init__(
        self, normalisation: str = "crop", kind: PoseKind = "2d", world_scale: float = 1.0
    ) -> None:
        self.normalisation, self.kind, self.world_scale = normalisation, kind, world_scale
        self._batches: list[_Batch] = []

    def add(self, keypoints: ArrayLike, sizes: ArrayLike, world: ArrayLike = ()) -> None:
        """Append a batch: keypoints (B, 21, 2) of crops with sides (B,), both in pixels, and world
        landmarks (B, 21, 3) in metres from the wrist; what the kind has no use for may be empty.
        """
        points, landmarks = np.array(keypoints, np.float32), np.array(world, np.float32)
        self._batches.append(_Batch(points, np.array(sizes, np.int32), landmarks))

    def __len__(self) -> int:
        return sum(len(batch.sizes) for batch in self._batches)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._vectors, self._batches)

    def _vectors(self, batch: _Batch) -> np.ndarray:
        parts = []
        if self.kind != "world":
            parts.append(pose_vectors(batch.keypoints, batch.sizes, self.normalisation))
        if self.kind != "2d":
            world = batch.world.astype(np.float64).reshape(-1, WORLD_COORDINATES)
            parts.append(world * self.world_scale)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def sample(self, count: int) -> np.ndarray:
        """At most `count` vectors (n, C) in the order of the store.

        The same poses always give the same vectors.
        """
        total = len(self)
        if total <= count:
            return np.concatenate([*self])
        rows = np.sort(np.random.default_rng(0).choice(total, count, replace=False))
        starts = np.cumsum([0, *(len(batch.sizes) for batch in self._batches)])
        first = np.searchsorted(rows, starts)
        chosen = []
        for i, batch in enumerate(self):
            chosen.append(batch[rows[first[i] : first[i + 1]] - starts[i]])
        return np.concatenate(chosen)
