"""$ handclr extract"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..choices import LookName
from ..contract import numbering
from ..contract.claims import Reads, Word

if TYPE_CHECKING:
    from ..footage.extract_job import ExtractResult, ExtractSettings


def extract(
    footage: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOOTAGE",
            help="Videos, images, folders of them, searched in depth, or globs.",
            show_default=False,
        ),
        Reads(deep=True),
    ] = None,
    output: options.OutputTar = "-",
    fps: Annotated[
        float | None,
        typer.Option(min=0.001, help="Frames to look at per second of video.", show_default="1.0"),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Look at every N-th frame or image, in place of --fps.", show_default=False
        ),
    ] = None,
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum confidence of a hand.")
    ] = 0.5,
    max_hands: Annotated[
        int, typer.Option(min=1, max=options.INT32, help="Maximum number of hands in a frame.")
    ] = 2,
    look: Annotated[
        LookName,
        typer.Option(
            help="Where to look for hands. once: in the whole frame; border: where none is found, "
            "again with a border around it; tiles: in overlapping squares of the frame too."
        ),
    ] = "tiles",
    tracks: Annotated[
        bool,
        typer.Option(
            "--tracks/--no-tracks",
            help="Follow a hand from look to look and give it one side, left or right; else each "
            "look decides for itself.",
        ),
    ] = True,
    balance: Annotated[
        bool,
        typer.Option(
            "--balance", help="Keep as many left as right hands of a shard, drawn by --seed."
        ),
    ] = False,
    with_keypoints: Annotated[
        bool,
        typer.Option(
            "--with-keypoints", help="Keep the keypoints found in the frame, mapped into the crop."
        ),
    ] = False,
    detections: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Use the boxes of another detector, CSV or JSON lines.",
            show_default=False,
        ),
        Reads(ends=(".csv", ".jsonl", ".ndjson", ".json")),
    ] = None,
    quality: options.Quality = 95,
    landmarker: options.Landmarker = None,
    workers: options.Finders = None,
    part: options.Part = None,
    skip_done: Annotated[
        str | None,
        typer.Option(
            metavar="SHARDS",
            help="Skip shards already written by the last command of the pipe: hands-%06d.tar.",
            show_default=False,
        ),
        Word(),
    ] = None,
    dry_run: options.DryRun = False,
    shard_size: Annotated[int, typer.Option(min=1, help="Frames looked at per numbered shard.")] = (
        numbering.SHARD_SIZE
    ),
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find hands in footage and crop them, all as right hands.

    handclr extract videos/ | handclr keypoints > hands.tar

    handclr extract --fps 2 -o crops-%06d.tar videos/*.mp4

    An image with the name of a video beside it is taken for its thumbnail and left out.
    """
    console.silence_native_libraries()
    from ..footage.extract_job import ExtractSettings, run_extract

    settings = ExtractSettings(
        footage=footage or (),
        output=output,
        fps=fps,
        every=every,
        size=size,
        margin=margin,
        min_score=min_score,
        max_hands=max_hands,
        look=look,
        tracks=tracks,
        balance=balance,
        with_keypoints=with_keypoints,
        detections=detections,
        quality=quality,
        landmarker=landmarker,
        workers=workers,
        part=part,
        skip_done=skip_done,
        dry_run=dry_run,
        shard_size=shard_size,
        overwrite=overwrite,
        strict=strict,
        seed=seed,
    )
    if not dry_run:
        options.prepare_output(output)
    done = run_extract(settings)
    if dry_run:
        options.list_missing("extract", done.missing, done.shards)
        return
    _summarise(done)
    _warn(done, settings)
    options.skipped_exit(done.skipped)


def _summarise(done: ExtractResult) -> None:
    counts = done.counts
    left, right = counts["left"], counts["right"]
    there = ""
    if done.there:
        there = f"; {done.there:,} of {console.plural(done.shards, 'shard')} there already"
    console.say(
        f"extract: {console.plural(counts['frames'], 'frame')} of "
        f"{console.plural(counts['videos'], 'video')}, {console.plural(left + right, 'crop')} "
        f"({left:,} left, {right:,} right), {counts['no hand']:,} frames without a hand, "
        f"{done.skipped:,} inputs skipped{there}"
    )


def _warn(done: ExtractResult, settings: ExtractSettings) -> None:
    counts = done.counts
    if done.shards and not counts["left"] + counts["right"]:
        every = 1 if settings.detections else settings.every
        if settings.balance and counts["frames"] > counts["no hand"]:
            console.warn("--balance: all hands are of one side; the output holds no crops")
        else:
            options.warn_of_no_hand("crops", settings.min_score, every, settings.look)
    if done.lost:
        names = ", ".join(done.lost)
        console.warn(
            f"footage was lost with the process that worked on it; remove {names} "
            "to have it tried again"
        )
