"""The pose embedding and the search for positives on arrays in memory, for use from Python."""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from ..choices import NormalisationName
from ..contract.errors import HandclrError
from ..contract.fields import JOINT_COUNT
from ..hand.normalise import pose_vectors
from ..work.cores import cores
from .embedding import Basis, fit
from .neighbours import EmbeddedPoses, Neighbours
from .pool import exact_searcher


class PoseEmbedding(NamedTuple):
    """Embedded poses float32 (N, D), and the axes that they are projected on.

    >>> import numpy as np, handclr_cli as handclr
    >>> keypoints = np.random.default_rng(0).uniform(0, 224, (100, 21, 2))
    >>> embedding, basis = handclr.embed_poses(keypoints, 224, dim=3)
    >>> embedding.shape, basis.components.shape
    ((100, 3), (3, 42))
    """

    embedding: np.ndarray
    basis: Basis


class MinedPositives(NamedTuple):
    """The positives of N poses: their rows int32 (N, K) and distances float32 (N, K).

    The distance is Euclidean in the embedding; where there is no positive, row is -1 and distance
    inf.

    >>> import numpy as np, handclr_cli as handclr
    >>> found = handclr.mine(np.array([[0.0], [0.5], [4.0]]), ["a", "b", "b"], top_k=2)
    >>> found.row.tolist(), found.distance.tolist()
    ([[1, 2], [0, -1], [0, -1]], [[0.5, 4.0], [0.5, inf], [4.0, inf]])
    """

    row: np.ndarray
    distance: np.ndarray


def embed_poses(
    keypoints2d: ArrayLike,
    size: ArrayLike,
    dim: int = 14,
    normalize: NormalisationName = "crop",
    basis: Basis | None = None,
) -> PoseEmbedding:
    """Embed 2D poses by PCA: 42 numbers to `dim` (paper, Sec. 3.2).

    keypoints2d: (N, 21, 2) pixels; size: side of the crop in pixels, one for all or (N,);
    normalize: see `pose_vectors`; basis: axes that were fitted before, so that nothing is fitted.
    Raises HandclrError where the shape is another, a value is not finite, the poses are too few, or
    there is no such size, dimension or normalisation.

    >>> import numpy as np, handclr_cli as handclr
    >>> keypoints = np.random.default_rng(0).uniform(0, 224, (500, 21, 2))
    >>> pose = handclr.embed_poses(keypoints, 224)
    >>> pose.embedding.shape
    (500, 14)
    >>> later = handclr.embed_poses(keypoints[:3], 224, basis=pose.basis)
    >>> bool((later.embedding == pose.embedding[:3]).all())
    True
    """
    points = np.asarray(keypoints2d, np.float64)
    if points.ndim != 3 or points.shape[1:] != (JOINT_COUNT, 2):
        raise HandclrError(f"keypoints2d has the shape {points.shape}, expected (N, 21, 2)")
    if not np.isfinite(points).all():
        raise HandclrError("keypoints2d holds values that are not finite; leave these poses out")
    sides = np.broadcast_to(np.asarray(size, np.float64), len(points))
    if not (sides > 0).all():
        raise HandclrError("must be the side of the crops in pixels", setting="size")
    if not 1 <= dim <= points.shape[1] * 2:
        raise HandclrError(f"must be 1 to {points.shape[1] * 2}", setting="dim")
    if normalize not in get_args(NormalisationName):
        names = ", ".join(get_args(NormalisationName))
        raise HandclrError(f"choose from {names}", setting="normalize")
    vectors = pose_vectors(points, sides, normalize)
    basis = fit([vectors], dim) if basis is None else basis
    return PoseEmbedding(basis.embed(vectors), basis)


def mine(
    embedding: ArrayLike,
    video: ArrayLike,
    top_k: int = 1,
    *,
    distinct_videos: bool = False,
    max_distance: float = np.inf,
    threads: int | None = None,
) -> MinedPositives:
    """Find for every pose the `top_k` nearest poses of any other video, exactly (paper, Eq. 1).

    embedding: (N, D) finite numbers, taken as float32; video: (N,) names or numbers;
    distinct_videos: at most one positive of each video; max_distance: none farther than this;
    threads: of the processor, all by default. Of poses at equal distance the lower row comes first.
    Raises HandclrError where shapes do not fit or a value is not finite.

    >>> import numpy as np, handclr_cli as handclr
    >>> poses = np.array([[0.0, 0.0], [0.1, 0.0], [0.3, 0.0], [5.0, 0.0]])
    >>> found = handclr.mine(poses, ["a", "a", "b", "c"])
    >>> found.row.ravel().tolist()
    [2, 2, 1, 2]
    """
    points = np.ascontiguousarray(embedding, np.float32)
    videos = np.asarray(video)
    if points.ndim != 2 or videos.shape != points.shape[:1]:
        shapes = f"embedding {points.shape} and video {videos.shape}"
        raise HandclrError(f"{shapes} must have the shapes (N, D) and (N,)")
    if not np.isfinite(points).all():
        raise HandclrError("embedding holds values that are not finite; leave these poses out")
    if top_k < 1:
        raise HandclrError("must be at least 1", setting="top_k")
    if not max_distance >= 0:
        raise HandclrError("must be 0 or more", setting="max_distance")
    group = np.unique(videos, return_inverse=True)[1].astype(np.int32).reshape(-1)
    poses = EmbeddedPoses(points, group)
    found = Neighbours.nobody(len(points), top_k, distinct_videos, max_distance)
    if len(points):
        exact_searcher(poses, 0, threads or cores()).search(poses, found, lambda rows: None)
    return MinedPositives(*found.positives())
