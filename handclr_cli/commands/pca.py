"""$ handclr pca"""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.fields import IMAGE, KEYPOINTS_2D, image_size
from ..contract.inputs import expand_inputs
from ..contract.npz import as_keys, read_npz, write_npz
from ..contract.provenance import Provenance, after, provenance
from ..contract.sample import Sample
from ..contract.shards import read_samples


def pca(
    shards: options.Shards = None,
    output: options.OutputNpz = "-",
    dim: Annotated[int, typer.Option(min=1, max=42, help="Dimensions of the embedding.")] = 14,
    basis: Annotated[
        str | None,
        typer.Option(metavar="NPZ", help="Project on the axes of this pose.npz; fit nothing.", show_default=False),
    ] = None,
    normalize: Annotated[
        str,
        typer.Option(help="Of the keypoints: crop (the paper's), root, root-scale or box; a --basis brings its own."),
    ] = "crop",
    plot: Annotated[
        str | None, typer.Option(metavar="PNG", help="Draw the explained variance.", show_default=False)
    ] = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Embed the 2D poses of crops: 42 numbers to 14 by PCA.

    handclr pca hands.tar > pose.npz

    handclr extract new.mp4 | handclr keypoints | handclr pca --basis pose.npz > new.npz
    """
    sources = expand_inputs(shards or [])
    options.prepare_output(output)
    import numpy as np

    from ..similarity.embedding import NORMALISATIONS, Basis, fit, pose_vectors

    if normalize not in NORMALISATIONS:
        raise UsageError(f"--normalize {normalize}: choose from {', '.join(NORMALISATIONS)}")
    origins: list[Provenance | None] = []
    given = None
    if basis:
        given, fitted_by = read_npz(basis, "pose")
        origins.append(fitted_by)
        normalize = _normalisation_of(fitted_by, normalize)
        if normalize not in NORMALISATIONS:
            raise HandclrError(f"{basis}: made with --normalize {normalize}, which this version does not know")
        dim = len(given["components"])
    keys, videos, keypoints, sizes = [], [], [], []
    dropped = 0
    with console.progress("pca", unit="poses") as advance:
        for sample in read_samples(sources):
            if not origins or sample.origin is not origins[-1]:
                origins.append(sample.origin)
            if KEYPOINTS_2D not in sample:
                dropped += 1
                continue
            keys.append(sample.key)
            videos.append(sample.video)
            keypoints.append(sample.keypoints2d)
            sizes.append(_side(sample))
            advance()
    if not keys:
        raise HandclrError(
            f"none of the {dropped:,} samples has {KEYPOINTS_2D.suffix}; did they go through handclr keypoints?"
        )
    vectors = pose_vectors(np.stack(keypoints), np.array(sizes), normalize)
    axes = Basis(given["components"], given["mean"], given["explained_variance_ratio"]) if given else fit(vectors, dim)
    names, video_id = np.unique(as_keys(videos), return_inverse=True)
    arrays = {
        "key": as_keys(keys),
        "video": names,
        "video_id": video_id.astype(np.int32),
        "embedding": axes.embed(vectors),
        **axes._asdict(),
    }
    given_axes = {"components": hashlib.sha256(axes.components.tobytes()).hexdigest()} if basis else None
    record = provenance("pca", {"dim": dim, "normalize": normalize, "basis": bool(basis)}, sources, model=given_axes)
    write_npz(output, "pose", arrays, after(record, origins))
    if plot:
        from ..report.curves import variance_plot

        variance_plot(axes.explained_variance_ratio, plot)
    console.say(
        f"pca: {console.plural(len(keys), 'pose')} of {console.plural(len(names), 'video')}, {dim} dimensions with "
        f"{axes.explained_variance_ratio.sum():.1%} of the variance, {dropped:,} samples without keypoints dropped"
    )


def _normalisation_of(fitted_by: Provenance | None, asked: str) -> str:
    """The basis' own normalisation: another one would put its axes to wrong use."""
    return str((fitted_by or {}).get("arguments", {}).get("normalize", asked))


def _side(sample: Sample) -> int:
    """The side of a crop in pixels, from the header of its JPEG; 224 where there is no image."""
    jpg = sample.members.get(IMAGE.suffix)
    where = f"{sample.source}: sample {sample.key}: jpg"
    width, height = (224, 224) if jpg is None else image_size(jpg, where)
    if width != height:
        raise HandclrError(f"{where}: not square: {width}x{height} pixels")
    return width
