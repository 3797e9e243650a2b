"""$ handclr import"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options
from ..contract.provenance import provenance
from ..contract.shards import ShardOutput

app = typer.Typer(
    help="Turn labelled data sets into shards of labelled crops.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def root() -> None:
    """Turn labelled data sets into shards of labelled crops."""


@app.command("freihand")
def freihand(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="FreiHAND_pub_v2, or the folder that holds it.")],
    output: options.OutputTar = "-",
    split: Annotated[str, typer.Option(help="train or eval.")] = "train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    shard_size: options.ShardSize = options.DEFAULT_SHARD_SIZE,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read FreiHAND: 3D and 2D keypoints, intrinsics, crops by the true keypoints.

    handclr import freihand FreiHAND/ > train.tar

    handclr import freihand FreiHAND/ --split eval > eval.tar
    """
    options.prepare_output(output)
    options.choose("--split", split, ("train", "eval"))
    from ..benchmarks.crops import freihand_sample
    from ..benchmarks.freihand import FreiHAND

    data = FreiHAND(root, split)
    record = provenance("import freihand", options.arguments(locals(), "split", "size", "margin", "quality"), [root])
    with (
        ShardOutput(output, record, shard_size, overwrite) as out,
        console.progress("import freihand", len(data), "images") as advance,
    ):
        for item in data:
            out.write(freihand_sample(item, split, size, margin, quality))
            advance()
    console.say(
        f"import freihand: {console.plural(out.samples, 'image')} of {console.plural(data.samples, 'unique sample')}, "
        f"{data.versions} version(s) each"
    )
