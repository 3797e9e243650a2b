"""Work cut into units: each a fixed slice of the inputs and one numbered shard, so that a killed
job goes on.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .errors import HandclrError, TruncatedError, UsageError
from .inputs import STDIN
from .numbering import is_numbered, number_of, refuse_to_replace, shards_of
from .output import binary_output
from .provenance import Provenance, after, dumps, loads
from .shards import PROVENANCE, ShardWriter
from .tar import BLOCK, MapCursor, StreamCursor, walk, write_member

COUNTS = "__counts__"
SKIPPED = "__skipped__"
# In the counts of a unit: how many units its job has, so that what is missing can be told from what
# is there.
TOTAL = "shards"
HANDS = ("left", "right")
# What the counts of a unit say besides that and the reasons why inputs were skipped.
INPUTS = ("videos", "frames", "no hand", *HANDS, "no keypoints")


class Part(NamedTuple):
    """A unit to be: its number, the rows of the inputs, and what tells this slice from any other,
    as JSON.
    """

    number: int
    rows: range
    made_of: dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One shard to write: its number, its path, the rows of the inputs that it is made of, its
    provenance.
    """

    number: int
    path: str
    rows: range
    record: Provenance = field(default_factory=dict, compare=False)


class UnitWriter(ShardWriter):
    """A shard that ends with what became of its inputs, for the summary of a run that finds it
    done.

    `counts` by name; `skipped`, a line for each input that could not be used: its name, a colon,
    the reason. `origin`: what the history of a shard without samples is taken from.
    """

    def __init__(self, file: BinaryIO, record: Provenance, keep: bool) -> None:
        super().__init__(file, record)
        self.counts: Counter[str] = Counter()
        self.skipped: list[str] = []
        self.origin: Provenance | None = None
        self._keep = keep

    def close(self) -> None:
        """Write counts and skipped inputs, and the end-of-archive mark."""
        if self._keep:
            if self.written is None:
                self._note(self.origin)
            write_member(self.file, COUNTS, json.dumps(self.counts, sort_keys=True).encode())
            if self.skipped:
                write_member(self.file, SKIPPED, json.dumps(self.skipped).encode())
        super().close()


def even_parts(count: int, size: int) -> list[Part]:
    """Units of `size` of `count` inputs each: into which an input falls depends on these numbers
    alone.
    """
    slices = enumerate(range(0, count, size))
    return [
        Part(n, range(first, min(count, first + size)), {"inputs": count, "each": size})
        for n, first in slices
    ]


def one_part(count: int) -> list[Part]:
    """One unit of all inputs, that is never done before: a file, or `-`."""
    return [Part(0, range(count), {})]


class Units:
    """The units of a job, each a part of the inputs and, under a pattern (`train-%06d.tar`), a
    numbered shard.

    A shard that is there is done; `record` and the part must be those that it was made with, else
    UsageError names what differs. With `overwrite` such a shard is made again instead, and those
    that no unit replaces go when the first new one is complete, unless they are what the job
    `reads`. To `-` the units are written one after the other, each as a tar that tells its part;
    `finished` is then the pattern of shards that a later stage makes of them, and done is what is
    there. Where the parts are not known beforehand, None, they are to be given to `add`, one by
    one.
    """

    def __init__(
        self,
        pattern: str,
        record: Provenance,
        parts: Iterable[Part] | None,
        overwrite: bool = False,
        finished: str | None = None,
        reads: Iterable[str] = (),
    ) -> None:
        self.numbered = is_numbered(pattern)
        self.units: list[Unit] = []
        self._pattern, self._record, self._overwrite, self._finished = (
            pattern,
            record,
            overwrite,
            finished,
        )
        self._done: dict[int, str] = {}
        self._others: list[str] = []
        self._shards = finished or (pattern if self.numbered else None)
        there = dict(shards_of(self._shards)) if self._shards else {}
        for part in parts or ():
            self.add(part)
        if parts is not None:
            for number in sorted(there.keys() - {unit.number for unit in self.units}):
                self._differs(there[number], f"is not one of these {len(self.units)} shards")
        refuse_to_replace(self._others, reads, pattern)

    def add(self, part: Part) -> Unit:
        """Plan one more unit; raises UsageError where its shard is there and is another."""
        path = self._pattern % part.number if self.numbered else self._pattern
        # As JSON gives it back, so that it can be compared with what a shard says.
        record = (
            json.loads(dumps({**self._record, "unit": part.made_of}))
            if part.made_of
            else self._record
        )
        unit = Unit(part.number, path, part.rows, record)
        self.units.append(unit)
        shard = self._shards % part.number if self._shards else None
        if shard and os.path.exists(shard):
            if difference := _difference(shard, record):
                self._differs(shard, difference)
            else:
                self._done[part.number] = shard
        return unit

    def _differs(self, path: str, difference: str) -> None:
        if not self._overwrite:
            raise UsageError(
                f"{path}: {difference}; remove the old shards, pass --overwrite or name others"
            )
        if not self._finished:
            self._others.append(path)

    @property
    def resumable(self) -> bool:
        """Whether the shards tell which unit they are, and what became of its inputs."""
        return any(unit.record.get("unit") for unit in self.units)

    def done(self, unit: Unit) -> bool:
        """Whether the unit's shard is there, made with the same arguments."""
        return unit.number in self._done

    def missing(self, part: slice = slice(None)) -> list[Unit]:
        """The units of a part that are still to be made, in order."""
        return [unit for unit in self.units[part] if not self.done(unit)]

    def counts(self, unit: Unit) -> Counter[str]:
        """What became of the inputs of a unit that is done; empty where its shard does not say."""
        counts = Counter(loads(metadata_of(self._done[unit.number]).get(COUNTS, b"")))
        del counts[TOTAL]
        return counts

    @contextlib.contextmanager
    def write(self, unit: Unit) -> Iterator[UnitWriter]:
        """A writer for the unit's samples; the shard has its name when the block ends without an
        exception.
        """
        with binary_output(unit.path) as file:
            writer = UnitWriter(file, unit.record, keep=bool(unit.record.get("unit")))
            yield writer
            writer.counts.setdefault(TOTAL, len(self.units))
            writer.close()
        if self._others:
            for path in set(self._others) - {unit.path for unit in self.units}:
                Path(path).unlink(missing_ok=True)
            self._others = []


def write_nothing(record: Provenance) -> None:
    """Write a tar of no unit to standard output: what a part without missing units says to the next
    command.
    """
    with binary_output(STDIN) as file:
        ShardWriter(file, {**record, "unit": {"number": None}}).close()


def parts_of_shards(paths: Sequence[str]) -> list[Part] | None:
    """One unit for each shard to read, of the number in its name; None where they are not all
    numbered files.

    Raises HandclrError for what is no tar; one that is cut off is found out when it is read.
    """
    numbers = [number_of(path) if os.path.isfile(path) else None for path in paths]
    if None in numbers or len(set(numbers)) < len(numbers):
        return None
    return [
        part_of_archive(number or 0, _provenance_if_there(path), row)
        for row, (number, path) in enumerate(zip(numbers, paths, strict=True))
    ]


def _provenance_if_there(path: str) -> Provenance | None:
    try:
        return provenance_of(path)
    except TruncatedError:
        return None


def part_of_archive(number: int, head: Provenance | None, row: int = 0) -> Part:
    """The unit that a later stage makes of a shard with this head."""
    digest = sha256(dumps(head or {}).encode("utf-8", "replace")).hexdigest()
    return Part(number, range(row, row + 1), {"number": number, "of": digest[:16]})


def provenance_of(path: str) -> Provenance | None:
    """The provenance that a shard begins with, None where there is none; raises HandclrError where
    it is no shard.
    """
    try:
        with open(path, "rb") as file:
            first = next(walk(StreamCursor(file), path), None)
    except OSError as error:
        raise HandclrError(f"cannot read {path}: {error.strerror}") from error
    return loads(bytes(first.data)) if first and first.name == PROVENANCE else None


def metadata_of(path: str) -> dict[str, bytes]:
    """What stands behind the samples of a unit's shard, by name, read from its end; empty where
    there is nothing.
    """
    with open(path, "rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    name = COUNTS.encode() + b"\0"
    start = whole.rfind(name)
    # A header is at the start of a block; elsewhere it is a word in somebody's data.
    while start > 0 and start % BLOCK:
        start = whole.rfind(name, 0, start)
    if start < 0:
        return {}
    return {
        member.name: bytes(member.data)
        for member in walk(MapCursor(memoryview(whole), start), path)
    }


def _difference(path: str, record: Provenance) -> str:
    """What a shard was made with where that is not what is asked now, else nothing."""
    try:
        head = provenance_of(path)
    except HandclrError as error:
        return f"not a finished shard ({error})"
    if head is None:
        return "not a finished shard (it has no provenance)"
    stages = [past for past in after({}, [head])["history"] if past.get("stage") == record["stage"]]
    if not stages:
        return f"not made by {record['stage']}"
    made = stages[-1]
    before, now = made.get("arguments", {}), record["arguments"]
    differing = [
        f"--{name.replace('_', '-')} {before.get(name, '(not set)')}"
        for name in {**now, **before}
        if before.get(name) != now.get(name)
    ]
    # Histories are those of the samples, not of the command; and other arguments make other slices.
    for name in (made.keys() | record.keys()) - {
        "arguments",
        "history",
        *(["unit"] if differing else []),
    }:
        if made.get(name) != record.get(name):
            differing.append(f"{name} {json.dumps(made.get(name))}")
    return f"made with {', '.join(sorted(differing))}" if differing else ""
