"""$ handclr pca"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.fields import KEYPOINTS_2D
from ..contract.inputs import STDIN, expand_inputs
from ..contract.npz import as_keys, read_npz, repeated_key, write_npz
from ..contract.provenance import Provenance, after, provenance
from ..contract.shards import read_samples

if TYPE_CHECKING:
    import numpy as np

    from ..similarity.embedding import Basis, PoseStore

BATCH = 4096
DEFAULTS: dict[str, Any] = {"dim": 14, "normalize": "crop", "robust": False}


def pca(
    shards: options.Shards = None,
    output: options.OutputNpz = "-",
    dim: Annotated[
        int | None, typer.Option(min=1, max=42, help="Dimensions of the embedding.", show_default="14")
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option(metavar="NPZ", help="Project on the axes of this pose.npz; fit nothing.", show_default=False),
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="crop (the paper's), root (from the wrist), root-scale (by the hand's size too) or box (their own).",
            show_default="crop",
        ),
    ] = None,
    robust: Annotated[
        bool, typer.Option("--robust", help="Leave outliers out of the fit; they are embedded all the same.")
    ] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="PNG", help="Draw the explained variance.", show_default=False)
    ] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Embed the 2D poses of crops: 42 numbers to 14 by PCA.

    handclr pca hands.tar > pose.npz

    handclr extract new.mp4 | handclr keypoints | handclr pca --basis pose.npz > new.npz

    A --basis brings its own --dim, --normalize and --robust. An outlier is a pose that is, along an axis or off all of
    them, five times farther from the middle than three quarters of the poses; with --robust, the shares of variance
    are those of the poses without them.
    """
    sources = expand_inputs(shards or [])
    if [*sources, basis].count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    options.prepare_output(output)
    from ..similarity.embedding import NORMALISATIONS, PoseStore, fit, fit_robust

    if normalize is not None:
        options.choose("--normalize", normalize, NORMALISATIONS)
    asked = {"dim": dim, "normalize": normalize, "robust": robust or None}
    axes, fitted_by, own = _read_basis(basis, asked) if basis else (None, None, asked)
    arguments: dict[str, Any] = {
        name: default if own[name] is None else own[name] for name, default in DEFAULTS.items()
    }
    poses = PoseStore(arguments["normalize"])
    read = _Reading(sources, poses)
    names, outliers = read.names(), None
    if axes is None and robust:
        axes, outliers = fit_robust(poses, arguments["dim"])
    elif axes is None:
        axes = fit(poses, arguments["dim"])
    arrays = {**names, "embedding": poses.embed(axes), **axes._asdict()}
    given_axes = {"components": hashlib.sha256(axes.components.tobytes()).hexdigest()} if basis else None
    record = provenance("pca", {**arguments, "basis": bool(basis)}, sources, model=given_axes)
    write_npz(output, "pose", arrays, after(record, [fitted_by, *read.origins]))
    if plot:
        from ..report.curves import variance_plot

        variance_plot(axes.explained_variance_ratio, plot)
    left_out = "" if outliers is None else f", {console.plural(outliers, 'outlier')} left out of the fit"
    console.say(
        f"pca: {console.plural(len(poses), 'pose')} of {console.plural(len(names['video']), 'video')}, "
        f"{len(axes.components)} dimensions with {axes.explained_variance_ratio.sum():.1%} of the variance, "
        f"{read.dropped:,} samples without keypoints dropped{left_out}"
    )


class _Row(NamedTuple):
    key: str
    video: str
    keypoints: np.ndarray
    side: int


class _Reading:
    """Reads samples into a store of poses, and keeps of them what else is needed, in arrays: millions of Python
    objects would take gigabytes.
    """

    def __init__(self, sources: list[str], poses: PoseStore) -> None:
        self.origins: list[Provenance | None] = []
        self.dropped = self._count = 0
        self._starts: list[tuple[int, str]] = []
        self._videos: dict[str, int] = {}
        self._keys: list[np.ndarray] = []
        self._video_ids: list[np.ndarray] = []
        with console.progress("pca", unit="poses") as advance:
            rows = self._rows(sources, advance)
            while batch := list(itertools.islice(rows, BATCH)):
                self._keep(batch)
                poses.add([row.keypoints for row in batch], [row.side for row in batch])

    def _rows(self, sources: list[str], advance: Callable[[], None]) -> Iterator[_Row]:
        for sample in read_samples(sources):
            if not self.origins or sample.origin is not self.origins[-1]:
                self.origins.append(sample.origin)
            if KEYPOINTS_2D not in sample:
                self.dropped += 1
                continue
            if not self._starts or sample.source != self._starts[-1][1]:
                self._starts.append((self._count, sample.source))
            self._count += 1
            yield _Row(sample.key, sample.video, sample.keypoints2d, sample.side)
            advance()

    def _keep(self, rows: list[_Row]) -> None:
        import numpy as np

        numbers = [self._videos.setdefault(row.video, len(self._videos)) for row in rows]
        self._keys.append(as_keys([row.key for row in rows]))
        self._video_ids.append(np.array(numbers, np.int32))

    def names(self) -> dict[str, np.ndarray]:
        """The arrays `key`, `video`, sorted, and `video_id`; raises HandclrError where a key comes twice."""
        import numpy as np

        if not self._count:
            missing = f"none of the {self.dropped:,} samples has {KEYPOINTS_2D.suffix}"
            raise HandclrError(f"{missing}; did they go through handclr keypoints?")
        keys = np.concatenate(self._keys)
        twice = repeated_key(keys)
        if twice is not None:
            second = np.flatnonzero(keys == twice)[1]
            source = [name for start, name in self._starts if start <= second][-1]
            raise HandclrError(f"{source}: key {twice.decode()} appears twice in the input; keys must be unique")
        videos, rank = np.unique(as_keys(list(self._videos)), return_inverse=True)
        video_id = rank.astype(np.int32)[np.concatenate(self._video_ids)]
        return {"key": keys, "video": videos, "video_id": video_id}


def _read_basis(path: str, asked: dict[str, Any]) -> tuple[Basis, Provenance | None, dict[str, Any]]:
    """The axes, where they come from, and what they were fitted with: other options would put them to wrong use."""
    from ..similarity.embedding import NORMALISATIONS, Basis

    given, fitted_by = read_npz(path, "pose")
    stages = [fitted_by or {}, *reversed((fitted_by or {}).get("history", []))]
    recorded: dict[str, Any] = next((past.get("arguments", {}) for past in stages if past.get("stage") == "pca"), {})
    own = {
        "dim": len(given["components"]),
        "normalize": str(recorded.get("normalize", asked["normalize"] or DEFAULTS["normalize"])),
        "robust": bool(recorded.get("robust", False)),
    }
    if own["normalize"] not in NORMALISATIONS:
        raise HandclrError(f"{path}: made with --normalize {own['normalize']}, which this version does not know")
    if asked["robust"] and not own["robust"]:
        raise UsageError(f"--robust: {path} was fitted without it; leave the option out, or --basis")
    for name in ("dim", "normalize"):
        if asked[name] not in (None, own[name]):
            raise UsageError(f"--{name} {asked[name]}: {path} has {own[name]}; leave the option out, or --basis")
    return Basis(given["components"], given["mean"], given["explained_variance_ratio"]), fitted_by, own
