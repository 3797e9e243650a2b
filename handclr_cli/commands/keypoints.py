"""$ handclr keypoints"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options
from ..contract import numbering


def keypoints(
    shards: options.Shards = None,
    output: options.OutputTar = "-",
    keep_empty: Annotated[
        bool,
        typer.Option(
            "--keep-empty", help="Keep crops in which no hand is found, without keypoints."
        ),
    ] = False,
    only_missing: Annotated[
        bool,
        typer.Option(
            "--only-missing",
            help="Look only at crops without keypoints, and pass the others on unchanged; the "
            "keypoints of extract --with-keypoints are as good.",
        ),
    ] = False,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Minimum confidence of a hand.")
    ] = 0.5,
    landmarker: options.Landmarker = None,
    workers: options.Finders = None,
    part: options.Part = None,
    dry_run: options.DryRun = False,
    shard_size: Annotated[
        int,
        typer.Option(min=1, help="Samples per numbered shard, if the input has no numbered ones."),
    ] = (numbering.SHARD_SIZE),
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find 21 2D keypoints in every crop, and the hand's shape in metres.

    handclr extract videos/ | handclr keypoints > hands.tar

    handclr keypoints -o hands-%06d.tar crops/
    """
    sources = options.sources(shards)
    console.silence_native_libraries()
    from ..footage.keypoints_job import KeypointsSettings, run_keypoints

    settings = KeypointsSettings(
        shards=sources,
        output=output,
        keep_empty=keep_empty,
        only_missing=only_missing,
        min_score=min_score,
        landmarker=landmarker,
        workers=workers,
        part=part,
        dry_run=dry_run,
        shard_size=shard_size,
        overwrite=overwrite,
        strict=strict,
    )
    if not dry_run:
        options.prepare_output(output)
    done = run_keypoints(settings)
    if dry_run:
        options.list_missing("keypoints", done.missing, done.shards)
        return
    counts, there = done.counts, ""
    if only_missing:
        there = f"; {counts['known']:,} had keypoints"
    if counts["there"]:
        there += f"; {console.plural(counts['there'], 'shard')} there already"
    console.say(
        f"keypoints: {console.plural(counts['in'], 'crop')} in, {counts['out']:,} out, "
        f"{counts['no keypoints']:,} without a hand, {counts['look left']:,} look like left hands, "
        f"{counts['skipped']:,} skipped{there}"
    )
    if counts["in"] and counts["no keypoints"] == counts["in"] and not keep_empty:
        options.warn_of_no_hand("crops", min_score)
    options.skipped_exit(counts["skipped"] + counts["unread"])
