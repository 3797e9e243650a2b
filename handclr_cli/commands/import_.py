"""$ handclr import"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import choices, console, options
from ..contract.claims import Reads, Writes
from ..contract.numbering import SHARD_SIZE
from ..contract.output import write_json
from ..parsing import Group, command

if TYPE_CHECKING:
    from ..datasets.import_job import ImportResult
    from ..datasets.import_settings import ImportSettings

app = typer.Typer(
    cls=Group,
    help="Turn labelled data sets into shards of labelled crops.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CheckSheet = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="PNG",
        help=(
            "Measure how well the labels agree, existing shards included, "
            "and draw a sheet of crops."
        ),
        show_default=False,
    ),
    Writes("png"),
]


@app.callback()
def _root() -> None:
    """Turn labelled data sets into shards of labelled crops."""


@command(app, "freihand")
def freihand(
    root: Annotated[
        str,
        typer.Argument(metavar="ROOT", help="FreiHAND_pub_v2, or the folder that holds it."),
        Reads(deep=True, ends=("/",)),
    ],
    output: options.OutputTar = "-",
    split: Annotated[choices.FreihandSplit, typer.Option(help="Part of the data set.")] = "train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read FreiHAND: right hands, in four versions of a photograph that share their labels.

    handclr import freihand FreiHAND/ > train.tar

    handclr import freihand FreiHAND/ --split eval > eval.tar
    """
    from ..datasets.import_settings import ImportFreihandSettings

    settings = ImportFreihandSettings(
        root=root,
        split=split,
        output=output,
        size=size,
        margin=margin,
        quality=quality,
        check=bool(check),
        workers=workers,
        part=part,
        shard_size=shard_size,
        overwrite=overwrite,
        strict=strict,
    )
    _import(settings, check, report)


@command(app, "dexycb")
def dexycb(
    root: Annotated[
        str,
        typer.Argument(metavar="ROOT", help="The folder of the subjects and of calibration."),
        Reads(deep=True, ends=("/",)),
    ],
    output: options.OutputTar = "-",
    split: Annotated[
        choices.DexycbSplit,
        typer.Option(
            metavar="SPLIT",
            help="s0 (holds out sequences), s1 (subjects), s2 (views) or s3 (grasps), each with "
            "-train, -val or -test; or all.",
        ),
    ] = "s0-train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read DexYCB, or a part of it: right and left hands that hold objects, seen by eight cameras.

    handclr import dexycb DexYCB/ --split s1-train -o train-%06d.tar

    handclr import dexycb DexYCB/ --split s1-test > test.tar
    """
    from ..datasets.import_settings import ImportDexycbSettings

    settings = ImportDexycbSettings(
        root=root,
        split=split,
        output=output,
        size=size,
        margin=margin,
        quality=quality,
        check=bool(check),
        workers=workers,
        part=part,
        shard_size=shard_size,
        overwrite=overwrite,
        strict=strict,
    )
    _import(settings, check, report)


@command(app, "assemblyhands")
def assemblyhands(
    root: Annotated[
        str,
        typer.Argument(metavar="ROOT", help="The folder of annotations and images."),
        Reads(deep=True, ends=("/",)),
    ],
    output: options.OutputTar = "-",
    split: Annotated[
        choices.AssemblyhandsSplit, typer.Option(help="Part of the data set.")
    ] = "train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read the egocentric views of AssemblyHands v1-1: both hands, grey, with the joints that are
    valid.

    handclr import assemblyhands AssemblyHands/ -o train-%06d.tar

    handclr import assemblyhands AssemblyHands/ --split val > val.tar
    """
    from ..datasets.import_settings import ImportAssemblyhandsSettings

    settings = ImportAssemblyhandsSettings(
        root=root,
        split=split,
        output=output,
        size=size,
        margin=margin,
        quality=quality,
        check=bool(check),
        workers=workers,
        part=part,
        shard_size=shard_size,
        overwrite=overwrite,
        strict=strict,
    )
    _import(settings, check, report)


@command(app, "hand100m")
def hand100m(
    annotations: Annotated[
        str,
        typer.Argument(
            metavar="JSON", help="Hand100M_Ego4D_..._v1-1.json or Hand100M_100DOH_..._v1-1.json."
        ),
        Reads(ends=(".json",)),
    ],
    root: Annotated[
        str,
        typer.Option(metavar="FOLDER", help="Folder of its frames: VIDEO/frame_000030.jpg."),
        Reads(deep=True, ends=("/",)),
    ],
    output: options.OutputTar = "-",
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="NPZ",
            help="Write the published pairs, for handclr pretrain --pairs.",
            show_default=False,
        ),
        Writes("npz"),
    ] = None,
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read Hand100M's annotations of frames of Ego4D or 100DOH: both hands, 2D keypoints, mined
    pairs.

    handclr import hand100m Hand100M_Ego4D_50k_v1-1.json --root frames/ -o hands-%06d.tar --pairs
    pairs.npz

    After an array job of --part, the same command without it finds all shards done and writes the
    pairs.
    """
    from ..datasets.import_settings import ImportHand100mSettings

    settings = ImportHand100mSettings(
        annotations=annotations,
        root=root,
        pairs=pairs,
        output=output,
        size=size,
        margin=margin,
        quality=quality,
        check=bool(check),
        workers=workers,
        part=part,
        shard_size=shard_size,
        overwrite=overwrite,
        strict=strict,
    )
    _import(settings, check, report, pairs)


def _import(
    settings: ImportSettings, sheet: str | None, report: str | None, pairs: str | None = None
) -> None:
    options.prepare_output(settings.output)
    options.prepare_files(settings.output, sheet, report, pairs)
    from ..datasets.import_job import run_import

    done = run_import(settings)
    if done.pairs:
        _say_pairs(str(pairs), done)
    _say(f"import {settings.data_set}", done, sheet)
    if report:
        write_json(report, done.report())
    if not done.left + done.right:
        console.warn("no item has a valid hand; the output holds no crops")
    options.skipped_exit(done.broken)


def _say(stage: str, done: ImportResult, sheet: str | None) -> None:
    from ..datasets.checks import agreement

    hands = done.left + done.right
    words = [
        f"{stage}: {console.plural(hands, 'hand')} of {done.items:,} "
        f"in {', '.join(done.of.values())} ({done.left:,} left, {done.right:,} right)"
    ]
    words += [f"{count:,} {reason}" for reason, count in done.skipped.items()]
    if done.there:
        words.append(f"{done.there:,} of {console.plural(done.shards, 'shard')} there already")
    console.say("; ".join(words))
    if done.check:
        console.say(f"{stage}: {agreement(done.check)}")
    if sheet and done.samples:
        _draw(sheet, done)


def _say_pairs(path: str, done: ImportResult) -> None:
    assert done.pairs
    hands, with_positive, lost = done.pairs
    without = f"; {lost:,} positives have no crop" if lost else ""
    console.say(
        f"{path}: {console.plural(hands, 'hand')}, {with_positive:,} with a positive{without}"
    )


def _draw(path: str, done: ImportResult) -> None:
    from ..report.labelled_page import labelled_page
    from ..report.sheets import write_png

    write_png(path, labelled_page(done.samples))
    console.say(f"drew {console.plural(len(done.samples), 'crop')} in {path}")
