"""$ handclr keypoints"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..contract import numbering
from ..contract.errors import DamagedError, HandclrError, UsageError
from ..contract.fields import KEYPOINTS_2D, encode_array
from ..contract.inputs import expand_inputs
from ..contract.numbering import is_numbered
from ..contract.provenance import loads, provenance
from ..contract.sample import Sample
from ..contract.shards import Archive, ShardOutput, ShardWriter, read_archives
from ..contract.units import (
    COUNTS,
    SKIPPED,
    Part,
    Unit,
    Units,
    UnitWriter,
    part_of_archive,
    parts_of_shards,
)
from ..work import cores

if TYPE_CHECKING:
    from ..work.crew import Crew

UNREADABLE = "unreadable crop"
# With fewer crops, starting another process takes longer than it saves.
_CROPS_PER_WORKER = 60
_CROPS_PER_PROCESS = 20_000
_BYTES_PER_CROP = 12_000


def keypoints(
    shards: options.Shards = None,
    output: options.OutputTar = "-",
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Pass crops without a hand on, without keypoints.")
    ] = False,
    min_score: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least confidence of a hand.")
    ] = 0.5,
    landmarker: options.Landmarker = None,
    workers: options.Finders = None,
    part: options.Part = None,
    dry_run: options.DryRun = False,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Samples per numbered shard of an unnumbered stream.")
    ] = (numbering.SHARD_SIZE),
    overwrite: options.Overwrite = False,
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Find 21 2D keypoints in every crop.

    handclr extract videos/ | handclr keypoints > hands.tar

    handclr keypoints -o hands-%06d.tar crops/
    """
    sources = expand_inputs(shards or [])
    parts = parts_of_shards(sources) if is_numbered(output) else None
    if (part or dry_run) and parts is None:
        raise UsageError(
            "--part and --dry-run need numbered shards to read and to write: -o hands-%06d.tar"
            " crops/"
        )
    if not dry_run:
        options.prepare_output(output)
    record = provenance(
        "keypoints",
        options.arguments(locals(), "keep_empty", "min_score"),
        () if parts else sources,
    )
    console.silence_native_libraries()
    from ..footage.keypoints import Finder
    from ..footage.model_file import checksums, model_file
    from ..work.crew import Crew

    model = model_file(landmarker, console.say)
    record["model"] = checksums(model)
    units = Units(output, record, parts, overwrite, reads=sources) if parts else None
    mine = numbering.part_of(part, len(parts or ()))
    chosen, todo = (units.units[mine], units.missing(mine)) if units else ([], [])
    if dry_run:
        options.list_missing("keypoints", [unit.path for unit in todo], len(chosen))
        return
    stream = _Stream([] if units else sources)
    crops = (
        _crops_in([sources[row] for unit in todo for row in unit.rows]) if units else stream.crops
    )
    with (
        Crew(
            Finder(model, min_score),
            cores.finder_count(workers, crops, _CROPS_PER_WORKER),
            _CROPS_PER_PROCESS,
        ) as crew,
        console.progress("keypoints", unit="crops") as advance,
    ):
        job = _Job(crew, keep_empty, strict, advance)
        if units:
            for unit in todo:
                job.try_unit(units, unit, sources[unit.rows[0]])
        elif stream.numbered and is_numbered(output):
            job.write_numbered(Units(output, record, None, overwrite), stream.archives)
        else:
            with ShardOutput(output, record, shard_size, overwrite, sources) as out:
                job.write(chain.from_iterable(archive.samples for archive in stream.archives), out)
                if job.counts["skipped"] and job.counts["skipped"] == job.counts["in"]:
                    raise HandclrError("none of the crops can be read; nothing was written")
    for unit in chosen:
        if units and units.done(unit):
            job.find_done(units, unit)
    job.conclude()


class _Stream:
    """Archives to read one after the other, the first crops of which are looked at to know how many
    there are.

    `numbered`: each names the unit that it is, as `extract --part` to a pipe writes them.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.archives: Iterator[Archive] = chain.from_iterable(map(read_archives, sources))
        self.numbered, self.crops = False, _crops_in(sources)
        if self.crops or not sources:
            return
        many = 2 * _CROPS_PER_WORKER
        first = next(self.archives)
        head = list(islice(first.samples, many))
        first.samples = chain(head, first.samples)
        self.archives = chain([first], self.archives)
        self.numbered = _says_its_unit(first)
        self.crops = sys.maxsize if self.numbered or len(head) == many else len(head)


def _crops_in(paths: Sequence[str]) -> int:
    """About how many crops shards hold, 0 where they are no files."""
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) // _BYTES_PER_CROP


def _says_its_unit(archive: Archive) -> bool:
    unit = (archive.origin or {}).get("unit")
    return isinstance(unit, dict) and "number" in unit


class _Job:
    """Finds keypoints and writes samples, counts what became of them, and says so."""

    def __init__(
        self, crew: Crew[Any, Any], keep_empty: bool, strict: bool, advance: console.Advance
    ) -> None:
        self.crew, self.keep_empty, self.strict, self.advance = crew, keep_empty, strict, advance
        self.counts: Counter[str] = Counter()

    def write(self, samples: Iterable[Sample], writer: ShardWriter | ShardOutput) -> Counter[str]:
        """Write samples with their keypoints; returns what became of them."""
        from ..footage.keypoints import find_all

        counts: Counter[str] = Counter()
        for sample, found in find_all(samples, self.crew):
            self.advance(1, without_a_hand=self.counts["no keypoints"] + counts["no keypoints"])
            counts["in"] += 1
            if isinstance(found, HandclrError):
                if self.strict:
                    raise found
                counts["skipped"] += 1
                console.warn(f"{found}; skipped")
                continue
            if found:
                sample.members[KEYPOINTS_2D.suffix] = encode_array(KEYPOINTS_2D, found.keypoints)
                counts["look left"] += found.side == "left"
            else:
                sample.members.pop(KEYPOINTS_2D.suffix, None)
                counts["no keypoints"] += 1
            if found or self.keep_empty:
                writer.write(sample)
                counts["out"] += 1
        self.counts += counts
        return counts

    def write_unit(self, units: Units, unit: Unit, archives: Iterable[Archive]) -> None:
        """Write one numbered shard; what extract says of its footage goes on with the crops."""
        metadata: dict[str, bytes] = {}

        def samples(writer: UnitWriter) -> Iterator[Sample]:
            for archive in archives:
                # Of crops without a hand, too, it is to be known what they were.
                writer.origin = archive.origin
                yield from archive.samples
                metadata.update(archive.metadata)

        with units.write(unit) as writer:
            counts = self.write(samples(writer), writer)
            writer.counts.update(loads(metadata.get(COUNTS, b"")) or {})
            writer.counts.update({"no keypoints": counts["no keypoints"]})
            if counts["skipped"]:
                writer.counts[UNREADABLE] += counts["skipped"]
            writer.skipped += json.loads(metadata.get(SKIPPED, b"[]"))

    def try_unit(self, units: Units, unit: Unit, source: str) -> None:
        """Write the shard of one that is read; where that is damaged, it is named, and the others
        are made.
        """
        try:
            self.write_unit(units, unit, read_archives(source))
        except DamagedError as error:
            if self.strict:
                raise
            self.counts["unread"] += 1
            console.warn(f"{error}; {unit.path} is not made")

    def write_numbered(self, units: Units, archives: Iterable[Archive]) -> None:
        """Write a shard for each archive of a stream, of its number; those that are there are
        passed over.
        """
        read: dict[int, Part] = {}
        for archive in archives:
            number = (archive.origin or {})["unit"]["number"] if _says_its_unit(archive) else -1
            if number is None:  # of a part in which nothing was missing
                continue
            if not isinstance(number, int) or number < 0:
                raise HandclrError(
                    "an archive of the input does not say which unit it is; the first one did"
                )
            part = part_of_archive(number, archive.origin)
            if read.setdefault(number, part) != part:
                raise HandclrError(
                    f"two archives of the input are unit {number}; read one set of shards at a time"
                )
            unit = units.add(part)
            if units.done(unit):
                self.find_done(units, unit)
            else:
                self.write_unit(units, unit, [archive])

    def find_done(self, units: Units, unit: Unit) -> None:
        """Count a shard that is there, and the crops that it lacks."""
        self.counts["there"] += 1
        self.counts["skipped"] += units.counts(unit)[UNREADABLE]

    def conclude(self) -> None:
        """Say what was done, and exit with 3 where crops were skipped, now or by an earlier run."""
        counts, there = self.counts, self.counts["there"]
        console.say(
            f"keypoints: {console.plural(counts['in'], 'crop')} in, {counts['out']:,} out,"
            f" {counts['no keypoints']:,} without a hand, {counts['look left']:,} look like left"
            f" hands, {counts['skipped']:,} skipped"
            + (f"; {console.plural(there, 'shard')} there already" if there else "")
        )
        options.skipped_exit(counts["skipped"] + counts["unread"])
