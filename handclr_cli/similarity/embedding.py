"""The pose embedding: 21 2D keypoints as a 42-vector, normalised, projected on D principal axes (Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..contract.errors import HandclrError

WRIST, MIDDLE_MCP = 0, 9


class Basis(NamedTuple):
    """Principal axes (D, 42) float64 with orthonormal rows, the mean (42,), variance shares (D,)."""

    components: np.ndarray
    mean: np.ndarray
    explained_variance_ratio: np.ndarray

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Project normalised (N, 42) vectors: float32 (N, D)."""
        return ((vectors - self.mean) @ self.components.T).astype(np.float32)


def _crop(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return points / size[:, None, None]


def _root(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    return _crop(points - points[:, WRIST : WRIST + 1], size)


def _root_scale(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    rooted = points - points[:, WRIST : WRIST + 1]
    palm = np.linalg.norm(rooted[:, MIDDLE_MCP], axis=-1)
    return rooted / np.maximum(palm, 1e-6 * size)[:, None, None]


def _box(points: np.ndarray, size: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    side = (high - low).max(axis=2, keepdims=True)
    return (points - (low + high) / 2) / np.maximum(side, 1e-6 * size[:, None, None])


NORMALISATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "crop": _crop,
    "root": _root,
    "root-scale": _root_scale,
    "box": _box,
}


def pose_vectors(keypoints: np.ndarray, sizes: np.ndarray, normalisation: str = "crop") -> np.ndarray:
    """Normalise keypoints (N, 21, 2) of crops with sides (N,), both in pixels, to float64 (N, 42).

    crop: shares of the crop's side, as in the paper. root: the same, relative to the wrist. root-scale:
    relative to the wrist, over the distance from wrist to middle MCP. box: centred in and over the longer
    side of the keypoints' bounding box.
    """
    normalise = NORMALISATIONS[normalisation]
    return normalise(np.asarray(keypoints, np.float64), np.asarray(sizes, np.float64)).reshape(-1, 42)


def fit(vectors: np.ndarray, dimensions: int) -> Basis:
    """Fit the principal axes of (N, 42) vectors; each axis' largest entry is positive.

    Raises HandclrError where there are fewer vectors than dimensions, or than two.
    """
    if len(vectors) < 2:
        raise HandclrError("one pose cannot give axes; pass more crops, or the axes of others by --basis")
    if len(vectors) < dimensions:
        raise HandclrError(f"{len(vectors)} poses cannot give {dimensions} dimensions; pass a smaller --dim")
    from sklearn.decomposition import PCA

    with np.errstate(invalid="ignore"):  # equal poses have no variance to share
        fitted = PCA(n_components=dimensions, svd_solver="covariance_eigh").fit(vectors)
    strongest = np.abs(fitted.components_).argmax(axis=1)
    signs = np.sign(fitted.components_[np.arange(dimensions), strongest])
    ratios = np.nan_to_num(fitted.explained_variance_ratio_)
    return Basis(fitted.components_ * signs[:, None], fitted.mean_, ratios)
