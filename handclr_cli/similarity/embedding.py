"""The pose embedding (Sec. 3.2).

The 21 2D keypoints of a hand as a 42-vector, normalised, projected on D principal axes; or, with
world landmarks, as vectors of C = 63 or 105 numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..hand.normalise import COORDINATES as IMAGE_COORDINATES
from .pose_store import PoseStore

SAMPLE = 20_000
REACH, LEAST_REACH, RESOLUTION, ROUNDS = 5.0, 0.01, 1e-6, 10


class Basis(NamedTuple):
    """Principal axes (D, C) float64 with orthonormal rows, mean (C,), variance shares (D,)."""

    components: np.ndarray
    mean: np.ndarray
    explained_variance_ratio: np.ndarray

    def embed(self, vectors: np.ndarray) -> np.ndarray:
        """Project normalised (N, C) vectors: float32 (N, D).

        Summed coordinate by coordinate, not by a matrix product, whose last bits depend on the
        shape of the batch: a pose has the same place to the last bit in whatever company it comes.
        """
        total = np.zeros((len(self.components), len(vectors)))
        columns = np.ascontiguousarray((vectors - self.mean).T)
        for axis, column in zip(self.components.T, columns, strict=True):
            total += axis[:, None] * column
        return np.ascontiguousarray(total.T, dtype=np.float32)


def embed(poses: PoseStore, basis: Basis) -> tuple[np.ndarray, float]:
    """Project all poses of a store: float32 (N, D), and the share of their variance that is along
    the axes; about the mean of the basis, also where they have another one.
    """
    embedding = np.empty((len(poses), len(basis.components)), np.float32)
    start, along, every = 0, 0.0, 0.0
    for batch in poses:
        rows = embedding[start : start + len(batch)]
        rows[:] = basis.embed(batch)
        start += len(batch)
        along += float(np.square(rows, dtype=np.float64).sum())
        every += float(np.square(batch - basis.mean).sum())
    return embedding, along / every if every else 1.0


def world_scale(poses: PoseStore, dimensions: int, robust: bool = False) -> float:
    """The factor by which world landmarks vary as much as the 2D keypoints of the same poses.

    The square root of the ratio of the two total variances over at most 20,000 poses, or, if
    robust, over those that neither part takes for outliers. 1 where either has no variance. `poses`
    are of the kind both, their landmarks in metres.
    """
    parts = np.split(poses.sample(SAMPLE), [IMAGE_COORDINATES], axis=1)
    held = np.ones(len(parts[0]), bool)
    if robust:
        for part in parts:
            held &= Bounds.of(part, min(dimensions, part.shape[1])).hold(part)
    seen, landmarks = (part[held].var(axis=0).sum() if held.any() else 0.0 for part in parts)
    return float(np.sqrt(seen / landmarks)) if seen > 0 and landmarks > 0 else 1.0


def fit(batches: Iterable[np.ndarray], dimensions: int) -> Basis:
    """Fit the principal axes of batches of (B, C) vectors, in one pass; see `_Fit.basis`."""
    fitted = _Fit()
    for vectors in batches:
        fitted.add(vectors)
    return fitted.basis(dimensions)


def fit_robust(poses: PoseStore, dimensions: int) -> tuple[Basis, int]:
    """Fit the principal axes of the poses without outliers; returns them and the number left out.

    What an outlier is, `Bounds` finds on a sample of at most 20,000 poses; wrong poses that are
    many and all alike pass for a cluster of right ones. The mean and the shares of variance are
    those of the poses that remain. Raises HandclrError where these are too few for the dimensions.
    """
    bounds, fitted = Bounds.of(poses.sample(SAMPLE), dimensions), _Fit()
    for vectors in poses:
        fitted.add(vectors[bounds.hold(vectors)])
    outliers = len(poses) - fitted.count
    if fitted.count < max(dimensions, 2):
        raise HandclrError(
            f"takes {outliers} of {len(poses)} poses for outliers; leave it out, or pass more",
            setting="robust",
        )
    return fitted.basis(dimensions), outliers


def _incremental_pca(coordinates: int) -> Any:
    from sklearn.decomposition import IncrementalPCA

    return IncrementalPCA(coordinates)


def _full_pca() -> Any:
    from sklearn.decomposition import PCA

    return PCA(svd_solver="full")


def _no_variance() -> np.errstate:
    """A context for scikit-learn, which divides by the variance: equal poses have none to share."""
    return np.errstate(divide="ignore", invalid="ignore")


class _Fit:
    """Principal axes of vectors that come in batches, by scikit-learn's IncrementalPCA.

    All C components are kept until the end, so that nothing is lost from batch to batch and the
    axes are those of one fit to all vectors.
    """

    def __init__(self) -> None:
        self.count = 0
        self._pca: Any = None
        # Until there are as many as scikit-learn begins with.
        self._first: list[np.ndarray] = []
        # Vectors count from one of them, so that a large mean cancels no digits.
        self._origin = np.zeros(0)

    def add(self, vectors: np.ndarray) -> None:
        """Take in (B, C) vectors."""
        if not len(vectors):
            return
        if not self.count:
            self._origin = np.array(vectors[0], np.float64)
        self.count += len(vectors)
        vectors = vectors - self._origin
        if self._pca is None:
            self._first.append(vectors)
            coordinates = vectors.shape[1]
            if self.count < coordinates:
                return
            vectors = np.concatenate(self._first)
            self._pca = _incremental_pca(coordinates)
        with _no_variance():
            self._pca.partial_fit(vectors)

    def basis(self, dimensions: int) -> Basis:
        """The principal axes; each axis' largest entry is positive.

        Raises HandclrError where there were fewer vectors than dimensions, or than two.
        """
        if self.count < 2:
            raise HandclrError(
                f"one pose cannot give axes; {_more_poses()}, or project on the axes of another "
                f"pose file ({console.called('basis', 'pose.npz')})"
            )
        if self.count < dimensions:
            raise HandclrError(
                f"{self.count} poses cannot give {dimensions} dimensions; {_more_poses()}, or ask "
                f"for fewer dimensions ({console.called('dim', self.count - 1)})",
                setting="dim",
            )
        with _no_variance():
            pca = self._pca or _full_pca().fit(np.concatenate(self._first))
        axes = pca.components_[:dimensions]
        strongest = np.abs(axes).argmax(axis=1)
        signs = np.sign(axes[np.arange(dimensions), strongest])
        shares = np.nan_to_num(pca.explained_variance_ratio_[:dimensions])
        return Basis(axes * signs[:, None], self._origin + pca.mean_, shares)


def _more_poses() -> str:
    """How to come by more poses, in words."""
    rates = f"{console.called('fps', 5)}, or all: {console.called('every', 1)}"
    return f"add footage, take more frames of it by handclr extract ({rates})"


class Bounds(NamedTuple):
    """How far ordinary poses reach along each of D axes, and off all of them.

    `centre` and `limit` are (D + 1,). The limit is five times the distance from the median that
    three quarters of the poses keep within, at least a twentieth of the same for the pose as a
    whole: up to a quarter of outliers cannot move it, and a normal distribution ends at 5.75
    standard deviations. Estimators of half of the data (minimum covariance determinant) are no good
    here: poses come in clusters, and they take each but the largest for outliers.
    """

    basis: Basis
    centre: np.ndarray
    limit: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, dimensions: int) -> Bounds:
        """Find the bounds of (N, C) vectors.

        Axes are fitted to what the last bounds held, until that is the same. Raises HandclrError as
        `fit` does.
        """
        held = np.ones(len(vectors), bool)
        for _ in range(ROUNDS):
            bounds = cls._around(vectors, fit([vectors[held]], dimensions))
            before, held = held, bounds.hold(vectors)
            if (held == before).all() or held.sum() < max(dimensions, 2):
                break
        return bounds

    @classmethod
    def _around(cls, vectors: np.ndarray, basis: Basis) -> Bounds:
        places = _places(vectors, basis)
        centre = np.append(np.median(places[:, :-1], axis=0), 0.0)
        reach = np.quantile(np.abs(places - centre), 0.75, axis=0)
        least = max(LEAST_REACH * float(np.linalg.norm(reach)), RESOLUTION)
        return cls(basis, centre, REACH * np.maximum(reach, least))

    def hold(self, vectors: np.ndarray) -> np.ndarray:
        """Whether (N, C) vectors are within all bounds: bool (N,)."""
        return (np.abs(_places(vectors, self.basis) - self.centre) <= self.limit).all(axis=1)


def _places(vectors: np.ndarray, basis: Basis) -> np.ndarray:
    """Coordinates along the axes, and the distance off all of them: (N, D + 1)."""
    apart = vectors - basis.mean
    along = apart @ basis.components.T
    return np.column_stack([along, np.linalg.norm(apart - along @ basis.components, axis=1)])
