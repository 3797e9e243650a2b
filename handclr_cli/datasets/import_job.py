"""The job of `handclr import`: a labelled data set to shards of labelled crops."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import console
from ..contract.errors import HandclrError, UsageError
from ..contract.npz import write_npz
from ..contract.numbering import is_numbered, part_of
from ..contract.provenance import Provenance, file_checksum, provenance
from ..contract.sample import Sample
from ..contract.units import Units, even_parts, one_part
from ..work.cores import worker_count
from .assemblyhands import AssemblyHands
from .checks import Check, KeypointCheck, check_unit
from .dexycb import DexYCB
from .freihand import FreiHAND
from .hand100m import CropMaker, Hand100M
from .import_settings import (
    ImportAssemblyhandsSettings,
    ImportDexycbSettings,
    ImportFreihandSettings,
    ImportHand100mSettings,
    ImportSettings,
)
from .importing import ShardMaker, broken
from .labelled import Importer, Invalid, LabelledSet, Made

# With fewer items, starting another process takes longer than it saves.
_ITEMS_PER_WORKER = 200
# Crops that a check keeps.
_TILES = 48


class PairsWritten(NamedTuple):
    """The published pairs that were written.

    The numbers of hands, of hands with a positive, and of positives without a crop.
    """

    hands: int
    with_positive: int
    lost: int


@dataclass(frozen=True)
class ImportResult:
    """What `run_import` did: hands written by side, items, and items skipped by reason.

    `of` names what was imported; `shards` are those of the part, `there` of them were there before;
    `broken` counts the items whose files could not be used. With a check, `check` are its numbers,
    ready for JSON, and `samples` some crops.
    """

    of: dict[str, str]
    items: int
    left: int
    right: int
    skipped: dict[str, int]
    broken: int
    shards: int
    there: int
    check: dict[str, Any] | None = None
    samples: list[Sample] = field(default_factory=list)
    pairs: PairsWritten | None = None

    def report(self) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            **self.of,
            "items": self.items,
            "left": self.left,
            "right": self.right,
            "skipped": self.skipped,
            "check": self.check,
        }


def run_import(settings: ImportSettings) -> ImportResult:
    """Make the missing shards of a labelled data set, and count what became of its items.

    Raises HandclrError where the data set cannot be read, or an item cannot and the settings are
    strict; UsageError where shards that are there were made otherwise.

    >>> from pathlib import Path
    >>> import handclr_cli as handclr
    >>> like = handclr.SynthLayoutSettings(folder=Path("FreiHAND"), layout="freihand", count=1)
    >>> _ = handclr.run_synth_layout(like)
    >>> settings = handclr.ImportFreihandSettings(root="FreiHAND", output="train.tar", workers=0)
    >>> done = handclr.run_import(settings)
    >>> done.items, done.right, done.skipped
    (4, 4, {})
    """
    source = _open(settings)
    maker = _make_shards(settings, source)
    pairs = None
    if isinstance(settings, ImportHand100mSettings) and settings.pairs:
        pairs = _write_pairs(settings.pairs, maker, source)
    return _result(source, maker, pairs)


class _Source(NamedTuple):
    """A data set, how its items become samples, and its provenance.

    `make` takes what `item` gives for a row; `check` is made of the number of rows and of tiles.
    """

    data: LabelledSet | Hand100M
    item: Callable[[int], Any]
    make: Callable[[Any], Made]
    check: Callable[[int, int], Check | KeypointCheck]
    record: Provenance
    of: dict[str, str]


def _open(settings: ImportSettings) -> _Source:
    if isinstance(settings, ImportHand100mSettings):
        return _open_annotations(settings)
    data, split = _open_set(settings)
    check_unit(data, settings.root)
    importer = Importer(
        data, settings.size, settings.margin, settings.quality, measure=settings.check
    )
    record = provenance(f"import {settings.data_set}", settings.arguments(), [settings.root])
    return _Source(data, int, importer.make, Check, record, {"split": split})


def _open_set(settings: ImportSettings) -> tuple[LabelledSet, str]:
    match settings:
        case ImportFreihandSettings():
            return FreiHAND(settings.root, settings.split), settings.split
        case ImportDexycbSettings():
            return DexYCB(settings.root, settings.split), settings.split
        case ImportAssemblyhandsSettings():
            # The set's own 2D labels are large, and needed for a check only.
            data = AssemblyHands(settings.root, settings.split, compare=settings.check)
            return data, settings.split
        case _:
            raise TypeError(f"{type(settings).__name__} are settings of no data set")


def _open_annotations(settings: ImportHand100mSettings) -> _Source:
    path = settings.annotations
    data = Hand100M(path, settings.root)
    if settings.pairs and not data.hands.positive.shape[1]:
        raise HandclrError(
            f"{path} has no positive_sample; leave it out, or find pairs by handclr mine",
            setting="pairs",
        )
    record = provenance("import hand100m", settings.arguments(), [path, settings.root])
    # Files of other sizes and other mining go by the same name.
    record["annotations"] = file_checksum(path)
    make = CropMaker(settings.size, settings.margin, settings.quality).make
    of = {"annotations": os.path.basename(path)}
    return _Source(data, data.__getitem__, make, KeypointCheck, record, of)


def _make_shards(settings: ImportSettings, source: _Source) -> ShardMaker:
    """Make the shards that are missing."""
    data, output = source.data, settings.output
    for note in data.notes:
        console.warn(note)
    numbered = is_numbered(output)
    if settings.part and not numbered:
        raise UsageError(
            f"needs numbered shards, such as {settings.data_set}-%06d.tar", setting="part"
        )
    parts = even_parts(len(data), settings.shard_size) if numbered else one_part(len(data))
    units = Units(output, source.record, parts, settings.overwrite)
    maker = ShardMaker(
        units,
        part_of(settings.part, len(parts)),
        make=source.make,
        item=source.item,
        check=source.check(len(data), _TILES) if settings.check else None,
        root=settings.root,
        strict=settings.strict,
    )
    processes = settings.workers
    if processes is None:
        processes = min(worker_count(None), maker.total // _ITEMS_PER_WORKER)
    with console.progress(source.record["stage"], maker.total, "items") as advance:
        maker.work(processes, advance)
    return maker


def _write_pairs(path: str, maker: ShardMaker, source: _Source) -> PairsWritten:
    data = source.data
    assert isinstance(data, Hand100M)
    present = maker.present(data.key)
    arrays = data.pairs(present)
    write_npz(path, "pairs", arrays, source.record)
    known, kept = data.hands.positive[present] >= 0, arrays["positive"] >= 0
    lost = int(known.sum() - kept.sum()) + data.hands.unknown_positives
    return PairsWritten(len(kept), int(np.count_nonzero(kept.any(axis=1))), lost)


def _result(source: _Source, maker: ShardMaker, pairs: PairsWritten | None) -> ImportResult:
    counts: Counter[str] = maker.counts
    items = there = 0
    for unit in maker.mine:
        items += len(unit.rows)
        there += maker.units.done(unit)
    return ImportResult(
        of=source.of,
        items=items,
        left=counts["left"],
        right=counts["right"],
        skipped={str(reason): counts[reason] for reason in Invalid if counts[reason]},
        broken=broken(counts),
        shards=len(maker.mine),
        there=there,
        check=maker.check.report() if maker.check else None,
        samples=maker.check.samples if maker.check else [],
        pairs=pairs,
    )
