"""The job of `handclr pca`: the poses of shards to one file of embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, get_args

from ..choices import NormalisationName
from ..contract.errors import HandclrError, UsageError
from ..contract.npz import read_npz, write_npz
from ..contract.provenance import Provenance, after, provenance
from ..contract.settings import Settings
from .embedding import Basis, fit, fit_robust
from .pose_reading import read_poses

DIMENSIONS = 14


@dataclass(frozen=True, kw_only=True)
class PcaSettings(Settings):
    """What `run_pca` embeds, and how; what is None is the basis's own, or as in the paper."""

    recorded: ClassVar = ("dim", "normalize", "robust")

    shards: Sequence[str]
    """Sources of samples with 2D keypoints: tar files, URLs, or - for standard input."""
    output: str = "-"
    """The NPZ file to write; - is standard output."""
    dim: int | None = None
    """Dimensions of the embedding, 1 to 42; 14 in the paper."""
    basis: str | None = None
    """A pose file whose axes are projected on, so that nothing is fitted."""
    normalize: NormalisationName | None = None
    """How keypoints are normalised before they are compared; `pose_vectors` says what each does."""
    robust: bool | None = None
    """Leave outliers out of the fit; they are embedded all the same."""
    video_from: str | None = None
    """A field of the JSON, or a pattern on keys, that names the videos; None: as samples say."""
    strict: bool = False
    """Fail at the first sample that cannot be used."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields, and what names the videos where that is given."""
        found = super().arguments()
        return found | {"video_from": self.video_from} if self.video_from is not None else found


class PcaResult(NamedTuple):
    """What `run_pca` did: poses embedded, their videos, samples without keypoints, and the axes.

    `outliers` counts the poses left out of a robust fit, and is None where no such fit was made.
    `skipped` counts samples that cannot be used.
    """

    poses: int
    videos: int
    dropped: int
    basis: Basis
    outliers: int | None
    skipped: int


def run_pca(settings: PcaSettings) -> PcaResult:
    """Embed the 2D poses of shards, 42 numbers to D by PCA (paper, Sec. 3.2).

    Raises HandclrError where there is no pose, a key comes twice, a sample does not say of which
    video it is, or the poses are too few for the axes; UsageError where the basis was fitted
    otherwise than asked.
    """
    given = _read_basis(settings) if settings.basis else None
    settings = given.settings if given else _as_in_the_paper(settings)
    how = str(settings.normalize), settings.video_from, settings.strict
    read = read_poses(settings.shards, *how)
    outliers = None
    if given:
        basis = given.basis
    elif settings.robust:
        basis, outliers = fit_robust(read.poses, settings.dim or DIMENSIONS)
    else:
        basis = fit(read.poses, settings.dim or DIMENSIONS)
    arrays = {**read.names, "embedding": read.poses.embed(basis), **basis._asdict()}
    write_npz(settings.output, "pose", arrays, _record(settings, given, basis, read.origins))
    videos = len(read.names["video"])
    return PcaResult(len(read.poses), videos, read.dropped, basis, outliers, read.skipped)


class _Given(NamedTuple):
    """Axes that were fitted before, the settings with what they were fitted with, their origin."""

    basis: Basis
    settings: PcaSettings
    origin: Provenance | None


def _as_in_the_paper(settings: PcaSettings) -> PcaSettings:
    return replace(
        settings,
        dim=settings.dim or DIMENSIONS,
        normalize=settings.normalize or "crop",
        robust=bool(settings.robust),
    )


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
    fitted = _fitted_with(origin)
    normalize = fitted.get("normalize", settings.normalize or "crop")
    if normalize not in get_args(NormalisationName):
        unknown = f"made with the normalisation {normalize}, which this version does not know"
        raise HandclrError(f"{path}: {unknown}")
    own = {"dim": len(basis.components), "normalize": normalize}
    robust = bool(fitted.get("robust", False))
    if settings.robust and not robust:
        raise UsageError(
            f"{path} was fitted without it; leave out one of the two", setting="robust"
        )
    for name, value in own.items():
        asked = getattr(settings, name)
        if asked not in (None, value):
            raise UsageError(f"{path} has {value}; leave out one of the two", setting=name)
    return _Given(basis, replace(settings, **own, robust=robust), origin)


def _fitted_with(origin: Provenance | None) -> dict[str, Any]:
    """The arguments of the last `pca` in a provenance; empty where it says nothing of one."""
    record = origin or {}
    for stage in [record, *reversed(record.get("history", []))]:
        if stage.get("stage") == "pca":
            return stage.get("arguments", {})
    return {}
