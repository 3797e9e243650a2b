"""The job of `handclr pca`: the poses of shards to one file of embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, get_args

import numpy as np

from ..choices import NormalisationName, PoseKind
from ..contract.errors import HandclrError, UsageError
from ..contract.npz import read_npz, write_npz
from ..contract.provenance import Provenance, after, provenance
from ..contract.settings import Settings
from .embedding import Basis, embed, fit, fit_robust, world_scale
from .pose_reading import read_poses
from .pose_store import COORDINATES, PoseStore

DIMENSIONS: dict[PoseKind, int] = {"2d": 14, "world": 14, "both": 28}


@dataclass(frozen=True, kw_only=True)
class PcaSettings(Settings):
    """What `run_pca` embeds, and how; what is None is the basis's own, or as in the paper."""

    recorded: ClassVar = ("dim", "normalize", "robust")

    shards: Sequence[str]
    """Sources of samples with keypoints: tar files, URLs, or - for standard input."""
    output: str = "-"
    """The NPZ file to write; - is standard output."""
    dim: int | None = None
    """Dimensions of the embedding, at most 42 of 2d, 63 of world, 105 of both; 14 in the paper."""
    basis: str | None = None
    """A pose file whose axes are projected on, so that nothing is fitted."""
    keypoints: PoseKind | None = None
    """What is embedded: the 2D keypoints as in the paper, MediaPipe's world landmarks, or both."""
    normalize: NormalisationName | None = None
    """How 2D keypoints are normalised before they are compared; see `pose_vectors`."""
    robust: bool | None = None
    """Leave outliers out of the fit; they are embedded all the same."""
    video_from: str | None = None
    """A field of the JSON, or a pattern on keys, that names the videos; None: as samples say."""
    min_side_score: float = 0.0
    """Leave out samples whose side is less sure, by the JSON's `side_score`, 0 to 1."""
    strict: bool = False
    """Fail at the first sample that cannot be used."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields, and those of the others that are not as in the paper."""
        found = super().arguments()
        if self.video_from is not None:
            found |= {"video_from": self.video_from}
        if self.keypoints not in (None, "2d"):
            found |= {"keypoints": self.keypoints}
        if self.min_side_score > 0:
            found |= {"min_side_score": self.min_side_score}
        return found


class PcaResult(NamedTuple):
    """What `run_pca` did: poses embedded, their videos, samples without keypoints, and the axes.

    `held` is the share of the variance of these poses that is along the axes.
    `outliers` counts the poses left out of a robust fit, and is None where no such fit was made.
    `skipped` counts samples that cannot be used, `doubtful` those whose side is not sure enough.
    """

    poses: int
    videos: int
    dropped: int
    basis: Basis
    outliers: int | None
    skipped: int
    doubtful: int
    held: float


def run_pca(settings: PcaSettings) -> PcaResult:
    """Embed the poses of shards, 42 numbers (2D) or more to D by PCA (paper, Sec. 3.2).

    Raises HandclrError where there is no pose, a key comes twice, a sample does not say of which
    video it is, or the poses are too few for the axes; UsageError where the basis was fitted
    otherwise than asked.

    >>> import handclr_cli as handclr
    >>> settings = handclr.PcaSettings(shards=["hands.tar"], output="embedded.npz", dim=10)
    >>> done = handclr.run_pca(settings)
    >>> done.poses, done.videos, done.basis.components.shape
    (48, 12, (10, 42))
    """
    given = _read_basis(settings) if settings.basis else None
    settings = given.settings if given else _as_in_the_paper(settings)
    poses = PoseStore(str(settings.normalize), settings.keypoints or "2d")
    how = settings.video_from, settings.strict, settings.min_side_score
    read = read_poses(settings.shards, poses, *how)
    basis, outliers = _axes(settings, given, poses)
    embedding, held = embed(poses, basis)
    arrays = {**read.names, "embedding": embedding, **basis._asdict()}
    if poses.kind == "both":
        arrays["world_scale"] = np.array(poses.world_scale)
    write_npz(settings.output, "pose", arrays, _record(settings, given, basis, read.origins))
    videos = len(read.names["video"])
    counts = outliers, read.skipped, read.doubtful
    return PcaResult(len(poses), videos, read.dropped, basis, *counts, held)


class _Given(NamedTuple):
    """Axes that were fitted before, the settings with what they were fitted with, their origin."""

    basis: Basis
    world_scale: float
    settings: PcaSettings
    origin: Provenance | None


def _as_in_the_paper(settings: PcaSettings) -> PcaSettings:
    kind = settings.keypoints or "2d"
    dim, most = settings.dim or DIMENSIONS[kind], COORDINATES[kind]
    if dim > most:
        raise UsageError(f"at most {most} where the keypoints are {kind}", setting="dim")
    if kind == "world" and settings.normalize:
        why = "is for 2D keypoints; world landmarks are in metres from the wrist"
        raise UsageError(why, setting="normalize")
    return replace(
        settings,
        dim=dim,
        keypoints=kind,
        normalize=settings.normalize or "crop",
        robust=bool(settings.robust),
    )


def _axes(
    settings: PcaSettings, given: _Given | None, poses: PoseStore
) -> tuple[Basis, int | None]:
    """The axes, given or fitted, and the outliers left out; gives the store its `world_scale`."""
    if given:
        poses.world_scale = given.world_scale
        return given.basis, None
    assert settings.dim is not None
    robust = bool(settings.robust)
    if poses.kind == "both":
        poses.world_scale = world_scale(poses, settings.dim, robust)
    if robust:
        return fit_robust(poses, settings.dim)
    return fit(poses, settings.dim), None


def _record(
    settings: PcaSettings,
    given: _Given | None,
    basis: Basis,
    origins: Sequence[Provenance | None],
) -> Provenance:
    axes = None
    if given:
        axes = {"components": hashlib.sha256(basis.components.tobytes()).hexdigest()}
    arguments = {**settings.arguments(), "basis": given is not None}
    record = provenance("pca", arguments, settings.shards, model=axes)
    return after(record, [given.origin if given else None, *origins])


def _read_basis(settings: PcaSettings) -> _Given:
    """Read the axes, and what they were fitted with: other settings would put them to wrong use."""
    path = str(settings.basis)
    arrays, origin = read_npz(path, "pose")
    basis = Basis(arrays["components"], arrays["mean"], arrays["explained_variance_ratio"])
    scale, fitted = arrays.get("world_scale", np.ones(())), _fitted_with(origin)
    normalize = fitted.get("normalize", settings.normalize or "crop")
    if normalize not in get_args(NormalisationName):
        unknown = f"made with the normalisation {normalize}, which this version does not know"
        raise HandclrError(f"{path}: {unknown}")
    own = {"dim": len(basis.components), "keypoints": _kind(basis, path), "normalize": normalize}
    robust = bool(fitted.get("robust", False))
    if settings.robust and not robust:
        raise UsageError(
            f"{path} was fitted without it; leave out one of the two", setting="robust"
        )
    for name, value in own.items():
        asked = getattr(settings, name)
        if asked not in (None, value):
            raise UsageError(f"{path} has {value}; leave out one of the two", setting=name)
    return _Given(basis, float(scale), replace(settings, **own, robust=robust), origin)


def _kind(basis: Basis, path: str) -> PoseKind:
    """What the axes are of, by how many numbers."""
    numbers = len(basis.mean)
    for kind, count in COORDINATES.items():
        if numbers == count:
            return kind
    raise HandclrError(f"{path}: its axes have {numbers} numbers, which no keypoints of ours have")


def _fitted_with(origin: Provenance | None) -> dict[str, Any]:
    """The arguments of the last `pca` in a provenance; empty where it says nothing of one."""
    record = origin or {}
    for stage in [record, *reversed(record.get("history", []))]:
        if stage.get("stage") == "pca":
            return stage.get("arguments", {})
    return {}
