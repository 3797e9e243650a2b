"""$ handclr synth"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console, options
from ..contract import numbering
from ..contract.errors import UsageError
from ..contract.provenance import provenance
from ..contract.shards import ShardOutput
from ..work import cores

app = typer.Typer(
    help="Make footage and labelled sets of procedural hands with known 3D truth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_WORLDS = ("lab", "wild")
_LAYOUTS = ("freihand", "dexycb", "assemblyhands")
# With fewer, starting another process takes longer than it saves.
_CROPS_PER_WORKER = 8

World = Annotated[str, typer.Option(help="lab: a studio, few people; wild: everything else.")]
Size = Annotated[int, typer.Option(min=32, max=1024, help="Side of the crops in pixels.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that render.", show_default="the cores")
]


@app.callback()
def root() -> None:
    """Make footage and labelled sets of procedural hands with known 3D truth."""


@app.command("footage", cls=options.Command)
def footage(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for the videos; made if it is not there.")
    ],
    videos: Annotated[int, typer.Option(min=1, help="Videos to make.")] = 50,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each video.")] = 60,
    fps: Annotated[float, typer.Option(min=1.0, max=240.0, help="Frames per second.")] = 12.0,
    world: World = "wild",
    width: Annotated[
        int, typer.Option(min=64, max=1920, help="Width of the video in pixels, even.")
    ] = 480,
    height: Annotated[
        int, typer.Option(min=64, max=1920, help="Height of the video in pixels, even.")
    ] = 360,
    size: Size = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    workers: Workers = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Film procedural hands: DIR/*.mp4, and the 2D and 3D truth of every frame in DIR/truth/*.tar.

    handclr synth footage wild/ --videos 100

    handclr extract wild/ --fps 12 | handclr keypoints > hands.tar

    Truth has the keys that extract gives to the same hands, as long as the folder keeps its name.
    Run the same command again to go on after an interruption.
    """
    options.choose("--world", world, _WORLDS)
    if width % 2 or height % 2:
        raise UsageError(f"--width {width} --height {height}: the video's format needs even sides")
    from ..synth.production import Crops, Film
    from ..work.crew import in_order

    names = ("frames", "fps", "world", "width", "height", "size", "margin", "quality")
    record = provenance("synth footage", options.arguments(locals(), *names), seed=seed)
    film = Film(
        folder, world, seed, frames, fps, (width, height), Crops(size, margin, quality), record
    )
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    todo = [index for index in range(videos) if not film.done(index)]
    hands = 0
    with console.progress("synth footage", len(todo), "videos") as advance:
        for made in in_order(film.make, todo, min(cores.worker_count(workers), len(todo))):
            hands += made
            advance(1, hands=hands)
    there = (
        f", {console.plural(videos - len(todo), 'video')} there already"
        if len(todo) < videos
        else ""
    )
    console.say(
        f"synth footage: {console.plural(len(todo), 'video')} of {console.plural(frames, 'frame')},"
        f" {console.plural(hands, 'hand')}{there}; {folder}"
    )


@app.command("labelled", cls=options.Command)
def labelled(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder to make, with --layout.", show_default=False),
    ] = None,
    output: options.OutputTar = "-",
    count: Annotated[
        int,
        typer.Option(
            min=1, help="Labelled images; with --layout freihand poses, of four images each."
        ),
    ] = 1000,
    world: World = "lab",
    layout: Annotated[
        str | None,
        typer.Option(
            help=(
                "Write DIR as freihand, dexycb or assemblyhands lie on disk, without options of"
                " crops and shards."
            ),
            show_default=False,
        ),
    ] = None,
    size: Size = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    workers: Workers = None,
    shard_size: options.ShardSize = numbering.SHARD_SIZE,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make labelled crops: keypoints2d, keypoints3d, intrinsics.

    handclr synth labelled --count 2000 > train.tar

    handclr synth labelled --count 500 --seed 1 > test.tar

    handclr synth labelled --layout dexycb dexycb/
    """
    options.choose("--world", world, _WORLDS)
    if (layout is None) != (folder is None):
        raise UsageError(
            "--layout and DIR go together: handclr synth labelled --layout freihand DIR"
        )
    if layout is not None and folder is not None:
        options.choose("--layout", layout, _LAYOUTS)
        if output != "-":
            raise UsageError(f"--output {output}: --layout writes a folder, name it as DIR")
        _write_layout(layout, folder, world, seed, count)
        return
    options.prepare_output(output)
    from ..synth.production import Crops, Portraits
    from ..work.crew import in_order

    names = ("count", "world", "size", "margin", "quality")
    record = provenance("synth labelled", options.arguments(locals(), *names), seed=seed)
    portraits = Portraits(world, seed, Crops(size, margin, quality))
    with (
        ShardOutput(output, record, shard_size, overwrite) as out,
        console.progress("synth labelled", count, "crops") as advance,
    ):
        for sample in in_order(
            portraits.make,
            range(count),
            min(cores.worker_count(workers), max(1, count // _CROPS_PER_WORKER)),
        ):
            out.write(sample)
            advance()
    console.say(
        f"synth labelled: {console.plural(out.samples, 'crop')} of the {world} world, seed {seed}"
    )


def _write_layout(layout: str, folder: Path, world: str, seed: int, count: int) -> None:
    from ..synth.layouts import LAYOUTS
    from ..synth.production import scene_maker

    with console.progress("synth labelled", None, "images") as advance:
        images = LAYOUTS[layout](folder, scene_maker(world, seed), count, advance)
    console.say(f"synth labelled: {console.plural(images, 'image')} in {layout}'s layout; {folder}")
