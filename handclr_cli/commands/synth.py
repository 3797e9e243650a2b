"""$ handclr synth"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import choices, console, options
from ..contract import numbering
from ..contract.claims import Writes
from ..contract.errors import UsageError
from ..parsing import Group, command

app = typer.Typer(
    cls=Group,
    help="Make footage and labelled sets of procedural hands with known 3D truth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

World = Annotated[
    choices.WorldName,
    typer.Option(
        help="lab: a studio, few people; wild: many people and places; any: wild, from every side."
    ),
]
Size = Annotated[int, typer.Option(min=32, max=1024, help="Side of the crops in pixels.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that render.", show_default="the cores")
]
# What a layout fixes itself, and cannot have otherwise.
_NOT_OF_LAYOUTS = ("first", "size", "margin", "quality", "workers", "shard_size", "overwrite")


@app.callback()
def _root() -> None:
    """Make footage and labelled sets of procedural hands with known 3D truth."""


@command(app, "footage")
def footage(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder for the videos; created if it does not exist."),
        Writes(whole=True),
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
    from ..synth.synth_job import SynthFootageSettings, run_synth_footage

    settings = SynthFootageSettings(
        folder=folder,
        videos=videos,
        frames=frames,
        fps=fps,
        world=world,
        width=width,
        height=height,
        size=size,
        margin=margin,
        quality=quality,
        workers=workers,
        seed=seed,
    )
    done = run_synth_footage(settings)
    there = f", {console.plural(done.there, 'video')} there already" if done.there else ""
    console.say(
        f"synth footage: {console.plural(done.videos, 'video')} "
        f"of {console.plural(frames, 'frame')}, "
        f"{console.plural(done.hands, 'hand')}{there}; {folder}"
    )


@command(app, "labelled")
def labelled(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Folder to make, with --layout.", show_default=False),
        Writes(whole=True),
    ] = None,
    output: options.OutputTar = "-",
    count: Annotated[
        int,
        typer.Option(
            min=1, help="Labelled images; with --layout freihand poses, of four images each."
        ),
    ] = 1000,
    first: Annotated[
        int, typer.Option(min=0, help="Number of the first crop, to make a set in parts.")
    ] = 0,
    world: World = "lab",
    layout: Annotated[
        choices.LayoutName | None,
        typer.Option(
            help="Write DIR in the layout of that data set; of the other options --count, "
            "--world and --seed apply.",
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
    if (layout is None) != (folder is None):
        raise UsageError(
            "--layout and DIR go together: handclr synth labelled --layout freihand DIR"
        )
    if layout and folder:
        if output != "-":
            raise UsageError("--layout writes a folder, name it as DIR", setting="output")
        _refuse_with_layout(context)
        _write_layout(layout, folder, count, world, seed)
        return
    options.prepare_output(output)
    from ..synth.synth_job import SynthLabelledSettings, run_synth_labelled

    settings = SynthLabelledSettings(
        output=output,
        count=count,
        first=first,
        world=world,
        size=size,
        margin=margin,
        quality=quality,
        workers=workers,
        shard_size=shard_size,
        overwrite=overwrite,
        seed=seed,
    )
    made = run_synth_labelled(settings)
    there = f", {console.plural(count - made, 'crop')} there already" if made < count else ""
    console.say(
        f"synth labelled: {console.plural(made, 'crop')} of the {world} world, seed {seed}{there}"
    )


def _refuse_with_layout(context: typer.Context) -> None:
    """Raise UsageError for an option that was given and that no layout takes."""
    for setting in _NOT_OF_LAYOUTS:
        source = context.get_parameter_source(setting)
        if source and source.name != "DEFAULT":
            why = "not with --layout, which takes --count, --world and --seed"
            raise UsageError(why, setting=setting)


def _write_layout(
    layout: choices.LayoutName, folder: Path, count: int, world: choices.WorldName, seed: int
) -> None:
    from ..synth.synth_job import SynthLayoutSettings, run_synth_layout

    settings = SynthLayoutSettings(
        folder=folder, layout=layout, count=count, world=world, seed=seed
    )
    images = run_synth_layout(settings)
    console.say(f"synth labelled: {console.plural(images, 'image')} in {layout}'s layout; {folder}")
