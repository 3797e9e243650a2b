"""The job of `handclr keypoints`: crops to crops with 21 2D keypoints."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, ClassVar, NamedTuple

from .. import console
from ..contract import numbering
from ..contract.errors import DamagedError, HandclrError, UsageError
from ..contract.fields import KEYPOINTS_2D, WORLD_3D
from ..contract.inputs import is_url
from ..contract.numbering import is_numbered
from ..contract.provenance import Provenance, provenance
from ..contract.sample import Sample
from ..contract.settings import Settings
from ..contract.shards import Archive, ShardOutput, ShardWriter, read_archives, unrepeated
from ..contract.units import (
    Part,
    Unit,
    Units,
    UnitWriter,
    counts_in,
    part_of_archive,
    parts_of_shards,
    skipped_in,
)
from ..work.crew import Crew
from .frames import Hand
from .keypoints import CROPS_PER_WORKER, Finder, Known, find_all, finders
from .model_file import checksums, model_file

UNREADABLE = "unreadable crop"
_BYTES_PER_CROP = 12_000


@dataclass(frozen=True, kw_only=True)
class KeypointsSettings(Settings):
    """What `run_keypoints` reads, and where the samples go.

    Raises UsageError where a part, or a dry run, is asked of what is no set of shards.
    """

    recorded: ClassVar = ("keep_empty", "min_score")

    shards: Sequence[str]
    """Sources of crops: tar files, URLs, or - for standard input."""
    output: str = "-"
    """A tar, a pattern of numbered shards (hands-%06d.tar), or - for standard output."""
    keep_empty: bool = False
    """Pass crops without a hand on, without keypoints."""
    only_missing: bool = False
    """Look only at crops that have no 2D keypoints, and pass the others on as they are."""
    min_score: float = 0.5
    """Least confidence of a hand, 0 to 1."""
    landmarker: str | None = None
    """MediaPipe's hand_landmarker.task; None is the cached file, which is fetched once."""
    workers: int | None = None
    """Processes that find hands; 0 is this one, None is chosen by the cores and the work."""
    part: str | None = None
    """Make part I of N, counted from 0, written as I/N."""
    dry_run: bool = False
    """Make nothing; the result names the shards that are missing."""
    shard_size: int = numbering.SHARD_SIZE
    """Samples per numbered shard of an unnumbered stream."""
    overwrite: bool = False
    """Replace numbered shards that were made otherwise."""
    strict: bool = False
    """Fail at the first crop that cannot be read."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields, and whether only those without keypoints are looked at, if so."""
        found = super().arguments()
        return found | {"only_missing": True} if self.only_missing else found

    def __post_init__(self) -> None:
        if not is_numbered(self.output):
            _refuse_part(self)


class KeypointsResult(NamedTuple):
    """What `run_keypoints` did.

    `counts` of crops: "in", "out", "no keypoints", "look left", "known" (passed on with the
    keypoints that they had), "skipped" (by earlier runs too); of shards: "unread", damaged ones
    that were read, and "there", made by an earlier run. `shards` are all of the part. A dry run
    counts nothing; `missing` are the shards that it would make.
    """

    counts: Counter[str]
    shards: int
    missing: list[str]


def run_keypoints(settings: KeypointsSettings) -> KeypointsResult:
    """Find the 2D keypoints of crops: phi of the paper (Sec. 3.2), 21 joints by MediaPipe.

    Numbered shards from numbered shards are made one by one, and are resumable. Raises UsageError
    where older shards do not fit; HandclrError where none of the crops can be read or, with
    `strict`, for the first that cannot.

    >>> import handclr_cli as handclr
    >>> settings = handclr.KeypointsSettings(shards=["crops.tar"], output="hands.tar")
    >>> handclr.run_keypoints(settings).counts["skipped"]  # doctest: +SKIP
    0
    """
    parts = parts_of_shards(settings.shards) if is_numbered(settings.output) else None
    if parts is None:
        _refuse_part(settings)
    record = provenance("keypoints", settings.arguments(), () if parts else settings.shards)
    model = model_file(settings.landmarker, console.say)
    record["model"] = checksums(model)
    finder = Finder(model, settings.min_score)
    if parts:
        return _shard_by_shard(settings, record, finder, parts)
    return _as_a_stream(settings, record, finder)


def _refuse_part(settings: KeypointsSettings) -> None:
    """Raise UsageError where a part or a dry run is asked of what are no numbered shards."""
    for name in ("part", "dry_run"):
        if getattr(settings, name):
            why = "needs numbered shards to read and to write, such as crops/ to hands-%06d.tar"
            raise UsageError(why, setting=name)


def _shard_by_shard(
    settings: KeypointsSettings, record: Provenance, finder: Finder, parts: Sequence[Part]
) -> KeypointsResult:
    units = Units(settings.output, record, parts, settings.overwrite, reads=settings.shards)
    mine = numbering.part_of(settings.part, len(parts))
    chosen, todo = units.units[mine], units.missing(mine)
    if settings.dry_run:
        return KeypointsResult(Counter(), len(chosen), [unit.path for unit in todo])
    sources = [settings.shards[unit.rows[0]] for unit in todo]
    crops = _crops_in(sources) + numbering.SHARD_SIZE * sum(map(is_url, sources))
    with _job(settings, finder, crops) as job:
        for unit, source in zip(todo, sources, strict=True):
            job.try_unit(units, unit, source)
    for unit in chosen:
        if units.done(unit):
            job.find_done(units, unit)
    return KeypointsResult(job.counts, len(chosen), [])


def _as_a_stream(
    settings: KeypointsSettings, record: Provenance, finder: Finder
) -> KeypointsResult:
    stream = _Stream(settings.shards)
    output, overwrite = settings.output, settings.overwrite
    with _job(settings, finder, stream.crops) as job:
        if stream.numbered and is_numbered(output):
            job.write_numbered(Units(output, record, None, overwrite), stream.archives)
        else:
            with ShardOutput(
                output, record, settings.shard_size, overwrite, settings.shards
            ) as out:
                samples = chain.from_iterable(each.samples for each in stream.archives)
                job.write(unrepeated(samples), out)
                if job.counts["skipped"] and job.counts["skipped"] == job.counts["in"]:
                    raise HandclrError("none of the crops can be read; nothing was written")
    return KeypointsResult(job.counts, 0, [])


class _Stream:
    """Archives to read one after the other.

    Of a source that is no file the first crops are read at once, to know whether there are many:
    `crops` is about how many. `numbered`: each archive names the unit that it is, as those do that
    `extract` writes into a pipe for a part of its footage.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.archives: Iterator[Archive] = chain.from_iterable(map(read_archives, sources))
        self.numbered, self.crops = False, _crops_in(sources)
        if self.crops or not sources:
            return
        many = 2 * CROPS_PER_WORKER
        first = next(self.archives)
        head = list(islice(first.samples, many))
        first.samples = chain(head, first.samples)
        self.archives = chain([first], self.archives)
        self.numbered = _says_its_unit(first)
        self.crops = sys.maxsize if self.numbered or len(head) == many else len(head)


def _crops_in(paths: Sequence[str]) -> int:
    """About how many crops the files among the paths hold."""
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) // _BYTES_PER_CROP


def _says_its_unit(archive: Archive) -> bool:
    unit = (archive.origin or {}).get("unit")
    return isinstance(unit, dict) and "number" in unit


@contextmanager
def _job(settings: KeypointsSettings, finder: Finder, crops: int) -> Iterator[_Job]:
    """A job with its processes, as many as suit the number of crops, and its progress."""
    with (
        finders(finder, settings.workers, crops) as crew,
        console.progress("keypoints", unit="crops") as advance,
    ):
        yield _Job(crew, settings, advance)


class _Job:
    """Finds keypoints and writes samples, and counts what became of them."""

    def __init__(
        self,
        crew: Crew[Sequence[Sample], Hand | HandclrError | None],
        settings: KeypointsSettings,
        advance: console.Advance,
    ) -> None:
        self.crew, self.settings, self.advance = crew, settings, advance
        self.counts: Counter[str] = Counter()

    def write(self, samples: Iterable[Sample], writer: ShardWriter | ShardOutput) -> Counter[str]:
        """Write samples with their keypoints; returns what became of these."""
        counts: Counter[str] = Counter()
        for sample, found in find_all(samples, self.crew, self._is_known):
            self.advance(1, without_a_hand=self.counts["no keypoints"] + counts["no keypoints"])
            counts["in"] += 1
            if isinstance(found, HandclrError):
                if self.settings.strict:
                    raise found
                counts["skipped"] += 1
                console.warn(f"{found}; skipped")
                continue
            if isinstance(found, Known):
                counts["known"] += 1
            else:
                _replace(sample, found)
                counts["look left"] += found is not None and found.side == "left"
                counts["no keypoints"] += found is None
            if found or self.settings.keep_empty:
                writer.write(sample)
                counts["out"] += 1
        self.counts += counts
        return counts

    def _is_known(self, sample: Sample) -> bool:
        return self.settings.only_missing and KEYPOINTS_2D in sample

    def write_unit(self, units: Units, unit: Unit, archives: Iterable[Archive]) -> None:
        """Write one numbered shard; what extract noted of its footage goes on with the crops."""
        metadata: dict[str, bytes] = {}

        def samples(writer: UnitWriter) -> Iterator[Sample]:
            for archive in archives:
                # A shard in which no crop shows a hand has a history too.
                writer.origin = archive.origin
                yield from archive.samples
                metadata.update(archive.metadata)

        with units.write(unit) as writer:
            counts = self.write(samples(writer), writer)
            writer.counts.update(counts_in(metadata))
            writer.counts.update({"no keypoints": counts["no keypoints"]})
            if counts["skipped"]:
                writer.counts[UNREADABLE] += counts["skipped"]
            writer.skipped += skipped_in(metadata)

    def try_unit(self, units: Units, unit: Unit, source: str) -> None:
        """Write the shard of a source; where that is damaged, name it and go on."""
        try:
            self.write_unit(units, unit, read_archives(source))
        except DamagedError as error:
            if self.settings.strict:
                raise
            self.counts["unread"] += 1
            console.warn(f"{error}; {unit.path} is not made")

    def write_numbered(self, units: Units, archives: Iterable[Archive]) -> None:
        """Write a shard of its number for each archive of a stream that has none yet."""
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


def _replace(sample: Sample, found: Hand | None) -> None:
    """Put what was found in the place of what a sample had."""
    members = found.members() if found else {}
    for field in (KEYPOINTS_2D, WORLD_3D):
        if field.suffix not in members:
            sample.members.pop(field.suffix, None)
    sample.members |= members
