"""$ handclr extract"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.provenance import provenance
from ..contract.sample import Sample
from ..contract.shards import ShardOutput


def extract(
    footage: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOOTAGE",
            help="Videos, images, or folders of them, searched in depth.",
            show_default=False,
        ),
    ] = None,
    output: options.OutputTar = "-",
    fps: Annotated[float, typer.Option(min=0.001, help="Frames to look at per second of video.")] = 1.0,
    every: Annotated[
        int | None,
        typer.Option(min=1, help="Look at every N-th frame or image instead.", show_default=False),
    ] = None,
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least confidence of a hand.")] = 0.5,
    max_hands: Annotated[int, typer.Option(min=1, help="Hands to find in a frame at most.")] = 2,
    balance: Annotated[bool, typer.Option("--balance", help="As many left as right hands, drawn by --seed.")] = False,
    quality: options.Quality = 95,
    landmarker: options.Landmarker = None,
    shard_size: options.ShardSize = options.DEFAULT_SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find hands in footage and crop them, all as right hands.

    handclr extract videos/ | handclr keypoints > hands.tar

    handclr extract --fps 2 -o crops-%06d.tar videos/*.mp4
    """
    if not footage:
        raise UsageError("no footage: name videos, images, or folders of them")
    options.prepare_output(output)
    record = provenance(
        "extract",
        options.arguments(locals(), "fps", "every", "size", "margin", "min_score", "max_hands", "balance", "quality"),
        footage,
        seed=seed,
    )
    console.silence_native_libraries()
    from ..footage.extraction import CropSettings, balanced, extract_crops
    from ..footage.landmarker import Landmarker
    from ..footage.model_file import checksums, model_file
    from ..footage.video import Sampling, UnreadableError, find_footage

    items = find_footage(footage)
    model = model_file(landmarker, console.say)
    record["model"] = checksums(model)
    settings = CropSettings(size, margin, min_score, quality)
    counts: Counter[str] = Counter()

    def skip(error: UnreadableError) -> None:
        if strict:
            raise HandclrError(str(error))
        counts["skipped"] += 1
        console.warn(f"{error}; skipped")

    def crops() -> Iterator[Sample]:
        with (
            Landmarker(model, max_hands, min_score) as detector,
            console.progress("extract", len(items), "videos") as advance,
        ):
            for item in items:
                frames = 0
                for samples in extract_crops(item, Sampling(fps, every), detector, settings, skip):
                    frames += 1
                    counts["crops"] += len(samples)
                    counts["without"] += not samples
                    advance(0, crops=counts["crops"])
                    yield from samples
                counts["frames"] += frames
                counts["videos"] += frames > 0
                advance(1, crops=counts["crops"])
        if not counts["frames"] and counts["skipped"]:
            raise HandclrError("none of the footage can be read; nothing was written")

    with ShardOutput(output, record, shard_size, overwrite) as out:
        for sample in balanced(crops(), seed) if balance else crops():
            counts[sample.info["hand"]] += 1
            out.write(sample)
    console.say(
        f"extract: {console.plural(counts['frames'], 'frame')} of {console.plural(counts['videos'], 'video')}, "
        f"{console.plural(out.samples, 'crop')} ({counts['left']:,} left, {counts['right']:,} right), "
        f"{counts['without']:,} frames without a hand, {counts['skipped']:,} inputs skipped"
    )
    if not counts["crops"]:
        console.warn("no hand was found; the output holds no crops")
    elif not out.samples:
        console.warn("--balance: all hands are of one side; the output holds no crops")
    options.skipped_exit(counts["skipped"])
