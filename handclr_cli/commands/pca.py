"""$ handclr pca"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import choices, console, options
from ..contract.claims import Reads, Word, Writes


def pca(
    shards: options.Shards = None,
    output: options.OutputNpz = "-",
    dim: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=105,
            help="Dimensions of the embedding.",
            show_default="14; 28 with --keypoints both",
        ),
    ] = None,
    basis: Annotated[
        str | None,
        typer.Option(
            metavar="NPZ",
            help="Project onto the axes of this pose.npz, and fit nothing.",
            show_default=False,
        ),
        Reads(ends=(".npz",)),
    ] = None,
    keypoints: Annotated[
        choices.PoseKind | None,
        typer.Option(
            help="2d: keypoints in the image, as in the paper; world: MediaPipe's estimate of the "
            "hand's 3D shape; both: the two with equal weight.",
            show_default="2d",
        ),
    ] = None,
    normalize: Annotated[
        choices.NormalisationName | None,
        typer.Option(
            help="How 2D keypoints are normalised. crop: by the crop, as in the paper; root: "
            "relative to the wrist; root-scale: by the hand's size too; box: by their own box.",
            show_default="crop",
        ),
    ] = None,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust", help="Leave outliers out of the fit; they are embedded all the same."
        ),
    ] = False,
    video_from: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD|REGEX",
            help="What names the video in shards of other programs: a field of the JSON, or a "
            "regular expression on keys.",
            show_default=False,
        ),
        Word(),
    ] = None,
    min_side_score: options.MinSideScore = 0.0,
    plot: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw the explained variance.", show_default=False),
        Writes("png"),
    ] = None,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Embed the poses of crops: 42 numbers to 14 by PCA.

    handclr pca hands.tar > pose.npz

    handclr extract new.mp4 | handclr keypoints | handclr pca --basis pose.npz > new.npz

    With --keypoints both, mined pairs are nearer in 3D: 105 numbers become 28, after the world
    landmarks are scaled to vary as much as the 2D keypoints.

    handclr pca --keypoints both hands.tar > pose.npz

    With --basis, --dim, --keypoints, --normalize and --robust are those of the basis. An outlier is
    a pose that is, along an axis or off all of them, five times farther from the middle than three
    quarters of the poses; with --robust, the shares of variance are those of the poses without
    outliers.

    For shards of other programs, whose keys and JSON name no videos:

    handclr pca theirs.tar --video-from '^(.*)/' > pose.npz
    """
    sources = options.sources(shards)
    options.read_once(*sources, basis)
    options.keep_stdout_for("poses", plot=plot)
    options.prepare_output(output)
    options.prepare_files(output, plot)
    from ..similarity.pca_job import PcaSettings, run_pca

    settings = PcaSettings(
        shards=sources,
        output=output,
        dim=dim,
        basis=basis,
        keypoints=keypoints,
        normalize=normalize,
        robust=robust or None,
        video_from=video_from,
        min_side_score=min_side_score,
        strict=strict,
    )
    done = run_pca(settings)
    shares = done.basis.explained_variance_ratio
    if plot:
        from ..report.curves import variance_plot

        variance_plot(shares, plot)
    left_out = f", {done.skipped:,} skipped" if done.skipped else ""
    if min_side_score:
        left_out += f", {done.doubtful:,} of a doubtful side left out"
    if done.outliers is not None:
        left_out += f", {console.plural(done.outliers, 'outlier')} left out of the fit"
    held = f"{shares.sum():.1%} of the variance"
    if basis:
        held = (
            f"{done.held:.1%} of their variance ({shares.sum():.1%} of that of the basis's poses)"
        )
    console.say(
        f"pca: {console.plural(done.poses, 'pose')} of {console.plural(done.videos, 'video')}, "
        f"{len(shares)} dimensions with {held}, "
        f"{done.dropped:,} samples without keypoints dropped{left_out}"
    )
    options.skipped_exit(done.skipped)
