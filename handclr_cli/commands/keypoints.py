"""$ handclr keypoints"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D, encode_array
from ..contract.inputs import expand_inputs
from ..contract.provenance import provenance
from ..contract.shards import ShardOutput, read_samples


def keypoints(
    shards: options.Shards = None,
    output: options.OutputTar = "-",
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Pass crops without a hand on, without keypoints.")
    ] = False,
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least confidence of a hand.")] = 0.5,
    landmarker: options.Landmarker = None,
    shard_size: options.ShardSize = options.DEFAULT_SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find 21 2D keypoints in every crop.

    handclr extract videos/ | handclr keypoints > hands.tar

    handclr keypoints -o hands-%06d.tar 'crops-{000000..000311}.tar'
    """
    sources = expand_inputs(shards or [])
    options.prepare_output(output)
    record = provenance("keypoints", options.arguments(locals(), "keep_empty", "min_score"), sources)
    console.silence_native_libraries()
    from ..footage.keypoints import find_keypoints
    from ..footage.landmarker import Landmarker
    from ..footage.model_file import checksums, model_file

    model = model_file(landmarker, console.say)
    record["model"] = checksums(model)
    counts: Counter[str] = Counter()
    with (
        Landmarker(model, 2, min_score) as detector,
        ShardOutput(output, record, shard_size, overwrite, sources) as out,
        console.progress("keypoints", unit="crops") as advance,
    ):
        for sample in read_samples(sources):
            counts["in"] += 1
            try:
                hand = find_keypoints(sample.image, detector)
            except HandclrError as error:
                if strict:
                    raise
                counts["skipped"] += 1
                console.warn(f"{error}; skipped")
                continue
            if hand:
                sample.members[KEYPOINTS_2D.suffix] = encode_array(KEYPOINTS_2D, hand.keypoints)
                counts["left"] += hand.side == "left"
            else:
                sample.members.pop(KEYPOINTS_2D.suffix, None)
                counts["empty"] += 1
            if hand or keep_empty:
                out.write(sample)
            advance(1, without_a_hand=counts["empty"])
        if counts["in"] and counts["skipped"] == counts["in"]:
            raise HandclrError("none of the crops can be read; nothing was written")
    console.say(
        f"keypoints: {console.plural(counts['in'], 'crop')} in, {out.samples:,} out, {counts['empty']:,} without a "
        f"hand, {counts['left']:,} look like left hands, {counts['skipped']:,} skipped"
    )
    options.skipped_exit(counts["skipped"])
