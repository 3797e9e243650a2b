"""$ handclr import"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..contract import numbering
from ..contract.errors import HandclrError, UsageError
from ..contract.numbering import is_numbered
from ..contract.output import atomic_write
from ..contract.provenance import Provenance, file_checksum, provenance
from ..contract.units import Units, even_parts, one_part
from ..work import cores

if TYPE_CHECKING:
    import numpy as np

    from ..contract.sample import Sample
    from ..datasets.checks import Check
    from ..datasets.hand100m import Hand100M, KeypointCheck
    from ..datasets.importing import ImportJob
    from ..datasets.labelled import LabelledSet, Made

app = typer.Typer(
    help="Turn labelled data sets into shards of labelled crops.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_FREIHAND = ("train", "eval")
_ASSEMBLYHANDS = ("train", "val")
_DEXYCB = ("all", *(f"s{setup}-{part}" for setup in range(4) for part in ("train", "val", "test")))
# With fewer items, starting another process takes longer than it saves.
_ITEMS_PER_WORKER = 200
_TILES = 48

CheckSheet = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="PNG",
        help=(
            "Measure how the labels agree, shards that are there included, and draw a sheet of"
            " crops."
        ),
        show_default=False,
    ),
]


@app.callback()
def root() -> None:
    """Turn labelled data sets into shards of labelled crops."""


@app.command("freihand", cls=options.Command)
def freihand(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="FreiHAND_pub_v2, or the folder that holds it.")
    ],
    output: options.OutputTar = "-",
    split: Annotated[str, typer.Option(help="train or eval.")] = "train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = numbering.SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read FreiHAND: right hands, in four versions of a photograph that share their labels.

    handclr import freihand FreiHAND/ > train.tar

    handclr import freihand FreiHAND/ --split eval > eval.tar
    """
    _run("freihand", _FREIHAND, locals())


@app.command("dexycb", cls=options.Command)
def dexycb(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="The folder of the subjects and of calibration.")
    ],
    output: options.OutputTar = "-",
    split: Annotated[
        str,
        typer.Option(
            help="s0 to s3 (sequences, subjects, views, grasps) -train, -val or -test; or all."
        ),
    ] = "s0-train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = numbering.SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read DexYCB, or a part of it: right and left hands that hold objects, seen by eight cameras.

    handclr import dexycb DexYCB/ --split s1-train -o train-%06d.tar

    handclr import dexycb DexYCB/ --split s1-test > test.tar
    """
    _run("dexycb", _DEXYCB, locals())


@app.command("assemblyhands", cls=options.Command)
def assemblyhands(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="The folder of annotations and images.")
    ],
    output: options.OutputTar = "-",
    split: Annotated[str, typer.Option(help="train or val.")] = "train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = numbering.SHARD_SIZE,
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
    _run("assemblyhands", _ASSEMBLYHANDS, locals())


@app.command("hand100m", cls=options.Command)
def hand100m(
    annotations: Annotated[
        str,
        typer.Argument(
            metavar="JSON", help="Hand100M_Ego4D_..._v1-1.json or Hand100M_100DOH_..._v1-1.json."
        ),
    ],
    root: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where its frames are: VIDEO/frame_000030.jpg.")
    ],
    output: options.OutputTar = "-",
    pairs: Annotated[
        str | None,
        typer.Option(
            metavar="NPZ",
            help="Write the published pairs, for handclr pretrain --pairs.",
            show_default=False,
        ),
    ] = None,
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = numbering.SHARD_SIZE,
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
    asked = locals()
    if pairs and part:
        raise UsageError(
            "--pairs are of all parts; leave it out, and run once more without --part when all are"
            " done"
        )
    _prepare(asked, pairs)
    from ..datasets.hand100m import CropMaker, Hand100M, KeypointCheck

    data = Hand100M(annotations, root)
    if pairs and not data.hands.positive.shape[1]:
        raise HandclrError(
            f"{annotations}: has no positive_sample; leave --pairs out, or find pairs by handclr"
            " mine"
        )
    cut = options.arguments(asked, "size", "margin", "quality")
    record = provenance("import hand100m", cut, [annotations, root])
    # Files of other sizes and other mining go by the same name.
    record["annotations"] = file_checksum(annotations)
    job = _work(asked, record, data, CropMaker(**cut).make, data.__getitem__, KeypointCheck)
    if pairs:
        _write_pairs(pairs, job.present(data.key), data, record)
    _conclude(job, asked, record["stage"], {"annotations": os.path.basename(annotations)})


def _write_pairs(path: str, present: np.ndarray, data: Hand100M, record: Provenance) -> None:
    from ..contract.npz import write_npz

    arrays = data.pairs(present)
    write_npz(path, "pairs", arrays, record)
    known, kept = data.hands.positive[present] >= 0, arrays["positive"] >= 0
    lost = int(known.sum() - kept.sum()) + data.hands.unknown_positives
    console.say(
        f"{path}: {console.plural(len(kept), 'hand')}, {int(kept.any(axis=1).sum()):,} with a"
        f" positive{f'; {lost:,} positives have no crop' if lost else ''}"
    )


def _run(name: str, splits: tuple[str, ...], asked: dict[str, Any]) -> None:
    """Import a data set; `asked` are the options by their names."""
    split, measure = asked["split"], bool(asked["check"])
    options.choose("--split", split, splits)
    _prepare(asked)
    from ..datasets.checks import Check
    from ..datasets.importing import open_set
    from ..datasets.labelled import Importer

    data = open_set(name, asked["root"], split, compare=measure)
    cut = options.arguments(asked, "size", "margin", "quality")
    record = provenance(f"import {name}", {"split": split, **cut}, [asked["root"]])
    job = _work(asked, record, data, Importer(data, **cut, measure=measure).make, int, Check)
    _conclude(job, asked, record["stage"], {"split": split})


def _prepare(asked: dict[str, Any], *files: str | None) -> None:
    options.prepare_output(asked["output"])
    options.prepare_files(asked["output"], asked["check"], asked["report"], *files)


def _work(
    asked: dict[str, Any],
    record: Provenance,
    data: LabelledSet | Hand100M,
    make: Callable[[Any], Made],
    item: Callable[[int], Any],
    check: type[Check | KeypointCheck],
) -> ImportJob:
    """Make the shards that are missing; `make` takes what `item` gives for a row."""
    from ..datasets.importing import ImportJob

    for note in data.notes:
        console.warn(note)
    output, part, stage = asked["output"], asked["part"], record["stage"]
    if part and not is_numbered(output):
        raise UsageError(
            f"--part {part}: needs numbered shards, such as -o {stage.split()[1]}-%06d.tar"
        )
    parts = (
        even_parts(len(data), asked["shard_size"]) if is_numbered(output) else one_part(len(data))
    )
    units = Units(output, record, parts, asked["overwrite"])
    looks = check(len(data), _TILES) if asked["check"] else None
    job = ImportJob(
        units,
        numbering.part_of(part, len(parts)),
        make,
        item,
        looks,
        asked["root"],
        asked["strict"],
        console.warn,
    )
    workers = asked["workers"]
    processes = (
        min(cores.worker_count(None), job.total // _ITEMS_PER_WORKER)
        if workers is None
        else workers
    )
    with console.progress(stage, job.total, "items") as advance:
        job.work(processes, advance)
    return job


def _conclude(job: ImportJob, asked: dict[str, Any], stage: str, of: dict[str, str]) -> None:
    """Say what was done, write the report and the sheet, and exit with 3 where files were
    broken.
    """
    from ..datasets.importing import agreement, broken
    from ..datasets.labelled import Invalid

    total, there = (
        sum(len(unit.rows) for unit in job.mine),
        sum(job.units.done(unit) for unit in job.mine),
    )
    left, right = job.counts["left"], job.counts["right"]
    skipped = {str(reason): job.counts[reason] for reason in Invalid if job.counts[reason]}
    words = [
        f"{stage}: {console.plural(left + right, 'hand')} of {total:,} in {', '.join(of.values())}"
    ]
    words[0] += f" ({left:,} left, {right:,} right)"
    words += [f"{count:,} {reason}" for reason, count in skipped.items()]
    words += (
        [f"{there:,} of {console.plural(len(job.mine), 'shard')} there already"] if there else []
    )
    console.say("; ".join(words))
    checked = job.check.report() if job.check else None
    if job.check and checked:
        console.say(f"{stage}: {agreement(checked)}")
        if job.check.samples:
            _draw(asked["check"], job.check.samples)
    if asked["report"]:
        found = {
            **of,
            "items": total,
            "left": left,
            "right": right,
            "skipped": skipped,
            "check": checked,
        }
        with atomic_write(asked["report"]) as file:
            file.write(json.dumps(found, indent=2).encode() + b"\n")
    if not left + right:
        console.warn("no item has a valid hand; the output holds no crops")
    options.skipped_exit(broken(job.counts))


def _draw(path: str, samples: list[Sample]) -> None:
    from ..report.labelled_page import labelled_page
    from ..report.sheets import write_png

    write_png(path, labelled_page(samples))
    console.say(f"drew {console.plural(len(samples), 'crop')} in {path}")
