"""$ handclr import"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.output import atomic_write
from ..contract.provenance import provenance
from ..contract.units import Unit, Units

if TYPE_CHECKING:
    from ..benchmarks.checks import Check
    from ..benchmarks.labelled import Importer, LabelledSet, Made

app = typer.Typer(
    help="Turn labelled data sets into shards of labelled crops.", no_args_is_help=True, rich_markup_mode=None
)
_FREIHAND = ("train", "eval")
_ASSEMBLYHANDS = ("train", "val")
_DEXYCB = ("all", *(f"s{setup}-{part}" for setup in range(4) for part in ("train", "val", "test")))
# With fewer items, starting another process takes longer than it saves.
_ITEMS_PER_WORKER = 200
_TILES = 48
# As many of the broken files are named; all are counted.
_NAMED = 5

CheckSheet = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="PNG",
        help="Measure how the labels agree, shards that are there included, and draw a sheet of crops.",
        show_default=False,
    ),
]


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
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = options.DEFAULT_SHARD_SIZE,
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


@app.command("dexycb")
def dexycb(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="The folder of the subjects and of calibration.")],
    output: options.OutputTar = "-",
    split: Annotated[
        str, typer.Option(help="s0 to s3 (sequences, subjects, views, grasps) -train, -val or -test; or all.")
    ] = "s0-train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = options.DEFAULT_SHARD_SIZE,
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


@app.command("assemblyhands")
def assemblyhands(
    root: Annotated[str, typer.Argument(metavar="ROOT", help="The folder of annotations and images.")],
    output: options.OutputTar = "-",
    split: Annotated[str, typer.Option(help="train or val.")] = "train",
    size: options.CropSize = 224,
    margin: options.Margin = 1.5,
    quality: options.Quality = 95,
    check: CheckSheet = None,
    report: options.Report = None,
    workers: options.Workers = None,
    part: options.Part = None,
    shard_size: options.ShardSize = options.DEFAULT_SHARD_SIZE,
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Read the egocentric views of AssemblyHands v1-1: both hands, grey, with the joints that are valid.

    handclr import assemblyhands AssemblyHands/ -o train-%06d.tar

    handclr import assemblyhands AssemblyHands/ --split val > val.tar
    """
    _run("assemblyhands", _ASSEMBLYHANDS, locals())


def _run(name: str, splits: tuple[str, ...], asked: dict[str, Any]) -> None:
    """Import a data set; `asked` are the options by their names."""
    output, split, part, sheet = (asked[option] for option in ("output", "split", "part", "check"))
    options.choose("--split", split, splits)
    options.prepare_output(output)
    options.prepare_files(output, sheet, asked["report"])
    from ..benchmarks.checks import Check
    from ..benchmarks.labelled import Importer

    data = _open(name, asked["root"], split, compare=bool(sheet))
    for note in data.notes:
        console.warn(note)
    cut = options.arguments(asked, "size", "margin", "quality")
    record = provenance(f"import {name}", {"split": split, **cut}, [asked["root"]])
    units = Units(output, record, len(data), asked["shard_size"], asked["overwrite"])
    if part and not units.numbered:
        raise UsageError(f"--part {part}: needs numbered shards, such as -o {name}-%06d.tar")
    mine = units.units[options.part_of(part, len(units.units))]
    check = Check(len(data), _TILES) if sheet else None
    job = _Job(f"import {name}", Importer(data, **cut, measure=bool(sheet)), units, check, asked["strict"])
    job.work(mine, asked["workers"])
    job.conclude(split, mine, asked["report"], sheet)


def _open(name: str, root: str, split: str, compare: bool) -> LabelledSet:
    if name == "freihand":
        from ..benchmarks.freihand import FreiHAND

        return FreiHAND(root, split)
    if name == "dexycb":
        from ..benchmarks.dexycb import DexYCB

        return DexYCB(root, split)
    from ..benchmarks.assemblyhands import AssemblyHands

    return AssemblyHands(root, split, compare)


class _Job:
    """Makes the units that are missing, counts what became of the items, and says so."""

    def __init__(self, label: str, importer: Importer, units: Units, check: Check | None, strict: bool) -> None:
        self.label, self.importer, self.units, self.check, self.strict = label, importer, units, check, strict
        self.counts: Counter[str] = Counter()
        self.named = 0

    def work(self, mine: list[Unit], workers: int | None) -> None:
        """Write what is missing; with a check also look at what is there, so that it is of all."""
        from ..footage.crew import in_order

        todo = mine if self.check else [unit for unit in mine if not self.units.done(unit)]
        total = sum(len(unit.rows) for unit in todo)
        processes = min(options.worker_count(None), total // _ITEMS_PER_WORKER) if workers is None else workers
        made = in_order(self.importer.make, (row for unit in todo for row in unit.rows), processes)
        with console.progress(self.label, total, "items") as advance:
            for unit in mine:
                if unit not in todo:
                    self.counts += self._found(unit)
                    continue
                with nullcontext() if self.units.done(unit) else self.units.write(unit) as writer:
                    counts: Counter[str] = Counter()
                    for row, one in zip(unit.rows, made, strict=False):
                        counts[self._look(row, one)] += 1
                        if writer and one.sample:
                            writer.write(one.sample)
                        advance()
                    if writer:
                        writer.counts = counts
                self.counts += counts

    def _found(self, unit: Unit) -> Counter[str]:
        """What became of the items of a shard that is there."""
        counts = self.units.counts(unit)
        if broken := _broken(counts):
            told = f"{unit.path}: lacks {broken} of its items, whose files were broken; remove it to have it made again"
            if self.strict:
                raise HandclrError(told)
            console.warn(told)
        return counts

    def _look(self, row: int, made: Made) -> str:
        """Under which word an item is counted: the side of its hand, or the reason why there is none."""
        if self.check:
            self.check.add(row, made)
        if made.invalid is None:
            return made.side
        if made.invalid.broken:
            if self.strict:
                raise HandclrError(f"{made.path}: {made.invalid}; download it again, or import without --strict")
            self.named += 1
            if self.named <= _NAMED:
                console.warn(f"{made.path}: {made.invalid}; skipped")
        return str(made.invalid)

    def conclude(self, split: str, mine: list[Unit], report: str | None, sheet: str | None) -> None:
        """Say what was done, write the report and the sheet, and exit with 3 where files were broken."""
        from ..benchmarks.labelled import Invalid

        total, there = sum(len(unit.rows) for unit in mine), sum(self.units.done(unit) for unit in mine)
        left, right = self.counts["left"], self.counts["right"]
        skipped = {str(reason): self.counts[reason] for reason in Invalid if self.counts[reason]}
        words = [f"{self.label}: {console.plural(left + right, 'hand')} of {total:,} in {split}"]
        words[0] += f" ({left:,} left, {right:,} right)"
        words += [f"{count:,} {reason}" for reason, count in skipped.items()]
        words += [f"{there:,} of {console.plural(len(mine), 'shard')} there already"] if there else []
        console.say("; ".join(words))
        checked = self.check.report() if self.check else None
        if self.check and checked:
            console.say(_checked(self.label, checked))
            if sheet and self.check.samples:
                _draw(sheet, self.check)
        if report:
            found = {"split": split, "items": total, "left": left, "right": right, "skipped": skipped, "check": checked}
            with atomic_write(report) as file:
                file.write(json.dumps(found, indent=2).encode() + b"\n")
        if not left + right:
            console.warn("no item has a valid hand; the output holds no crops")
        options.skipped_exit(_broken(self.counts))


def _broken(counts: Counter[str]) -> int:
    """How many items the files on this disk are to blame for."""
    from ..benchmarks.labelled import Invalid

    return sum(counts[reason] for reason in Invalid if reason.broken)


def _checked(label: str, found: dict[str, Any]) -> str:
    """The numbers of a check in one line."""
    bone, inside, error = found["reference_bone_mm"], found["joints_inside"], found["projection_error_px"]
    if bone is None:
        return f"{label}: nothing to check"
    from_own = "no 2D labels of the set's own to compare with"
    if error:
        from_own = "{median:.2f} px from the set's own 2D labels (95 %: {p95:.2f}, max {max:.2f})".format(**error)
    return (
        f"{label}: reference bone {bone['min']:.1f} to {bone['max']:.1f} mm, median {bone['median']:.1f}; "
        f"{inside:.2%} of the joints inside the image; {from_own}"
    )


def _draw(path: str, check: Check) -> None:
    from ..report.labelled import labelled_page
    from ..report.sheets import write_png

    write_png(path, labelled_page(check.samples))
    console.say(f"drew {console.plural(len(check.samples), 'crop')} in {path}")
