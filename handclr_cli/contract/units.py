"""Work cut into units, each a fixed slice of the inputs and one shard, so that a job can resume."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, BinaryIO, NamedTuple

from .errors import HandclrError, TruncatedError, UsageError
from .inputs import STDIN, display_name, is_url, open_start, reading
from .jsontext import parse_json
from .kinds import refuse_other_kind
from .numbering import is_numbered, number_of, refuse_to_replace, shards_of
from .output import output_file, remove_output
from .provenance import Provenance, dumps, loads, read_provenance, stages
from .remote import COMMAND
from .shards import PROVENANCE, ShardWriter, metadata_name
from .stores import ends_of_object, is_store
from .tar import BLOCK, MapCursor, StreamCursor, walk, write_member

COUNTS = "__counts__"
SKIPPED = "__skipped__"
# In the counts of a unit: how many units its job has, which tells whether shards are missing.
TOTAL = "shards"
# What is read of an object in a store for its counts, in bytes.
_END = 4 << 20
HANDS = ("left", "right")
# The other counts of a unit, besides the reasons why inputs were skipped.
INPUTS = ("videos", "frames", "no hand", *HANDS, "no keypoints")


class Part(NamedTuple):
    """The plan of a unit: its number, the rows of its inputs, and `made_of`, which identifies it.

    `made_of` is JSON, and the same for the same slice of the same inputs.
    """

    number: int
    rows: range
    made_of: dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One shard to write: its number and path, the rows of its inputs, and its provenance."""

    number: int
    path: str
    rows: range
    record: Provenance = field(default_factory=dict, compare=False)


class UnitWriter(ShardWriter):
    """Writes a shard that ends with what became of its inputs, for the summary of a resumed job.

    `counts` is by name; `skipped` has a line `name: reason` for each input that could not be used.
    `origin` gives the history of a shard without samples.
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


def counts_in(metadata: Mapping[str, bytes]) -> Counter[str]:
    """What became of the inputs of a shard with such metadata; what is no number is left out."""
    found = loads(metadata.get(COUNTS, b"")) or {}
    return Counter({word: count for word, count in found.items() if type(count) is int})


def skipped_in(metadata: Mapping[str, bytes]) -> list[str]:
    """The lines that name the skipped inputs of a shard with such metadata."""
    try:
        lines = parse_json(metadata.get(SKIPPED, b"[]"))
    except ValueError:
        return []
    return list(map(str, lines)) if isinstance(lines, list) else []


def even_parts(count: int, size: int) -> list[Part]:
    """Cut `count` inputs into units of `size`; the cut depends on these two numbers alone."""
    made_of = {"inputs": count, "each": size}
    return [
        Part(number, range(first, min(count, first + size)), made_of)
        for number, first in enumerate(range(0, count, size))
    ]


def one_part(count: int) -> list[Part]:
    """One unit of all inputs, for an output that is one file or `-`; it is always made anew."""
    return [Part(0, range(count), {})]


class Units:
    """The units of a job; with a pattern (`train-%06d.tar`) each is a numbered shard.

    A unit whose shard exists is done. Raises UsageError, which names what differs, where that shard
    was made with another `record` or part. With `overwrite` it is made again instead, and shards
    that no unit replaces are removed when the first new one is complete; UsageError where they are
    among `reads`, the inputs of the job.

    To `-` the units are written one after the other, each as a tar that names its part; `finished`
    is then the pattern of the shards that a later stage makes of them, and those that exist are
    done. Where `parts` is None, they are given to `add`, one by one.
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
        self._pattern, self._record = pattern, record
        self._overwrite, self._finished = overwrite, finished
        self._done: dict[int, str] = {}
        self._others: list[str] = []
        self._shards = finished or (pattern if self.numbered else None)
        self._there = dict(shards_of(self._shards)) if self._shards else {}
        for part in parts or ():
            self.add(part)
        if parts is not None:
            for number in sorted(self._there.keys() - {unit.number for unit in self.units}):
                self._differs(self._there[number], f"is not one of these {len(self.units)} shards")
        refuse_to_replace(self._others, reads)

    def add(self, part: Part) -> Unit:
        """Plan one more unit; raises UsageError where its shard exists and was made otherwise."""
        path = self._pattern % part.number if self.numbered else self._pattern
        record = self._record
        if part.made_of:
            # Through JSON, so that it can be compared with what is read from a shard.
            record = json.loads(dumps({**record, "unit": part.made_of}))
        unit = Unit(part.number, path, part.rows, record)
        self.units.append(unit)
        shard = self._shards % part.number if self._shards else None
        if shard and (part.number in self._there or os.path.exists(shard)):
            if difference := _difference(shard, record):
                self._differs(shard, difference)
            else:
                self._done[part.number] = shard
        return unit

    def _differs(self, path: str, difference: str) -> None:
        if not self._overwrite:
            raise UsageError(
                f"{path}: {difference}; remove the old shards, overwrite them or name others"
            )
        if not self._finished:
            refuse_other_kind(path, "tar")
            self._others.append(path)

    @property
    def resumable(self) -> bool:
        """Whether the shards say which unit they are, and what became of its inputs."""
        return any(unit.record.get("unit") for unit in self.units)

    def done(self, unit: Unit) -> bool:
        """Whether the unit's shard exists, made with the same arguments."""
        return unit.number in self._done

    def missing(self, part: slice = slice(None)) -> list[Unit]:
        """The units of a part that are still to be made, in order."""
        return [unit for unit in self.units[part] if not self.done(unit)]

    def counts(self, unit: Unit) -> Counter[str]:
        """What became of the inputs of a unit that is done; empty where its shard does not say."""
        counts = counts_in(metadata_of(self._done[unit.number]))
        del counts[TOTAL]
        return counts

    @contextlib.contextmanager
    def write(self, unit: Unit) -> Iterator[UnitWriter]:
        """Open a writer for the unit's samples; the shard gets its name when the block ends."""
        with output_file(unit.path, "tar") as file:
            writer = UnitWriter(file, unit.record, keep=bool(unit.record.get("unit")))
            yield writer
            writer.counts.setdefault(TOTAL, len(self.units))
            writer.close()
        if self._others:
            for path in set(self._others) - {unit.path for unit in self.units}:
                remove_output(path)
            self._others = []


def write_nothing(record: Provenance) -> None:
    """Write an empty tar to standard output, for the next command of a part with nothing to do."""
    with output_file(STDIN, "tar") as file:
        ShardWriter(file, {**record, "unit": {"number": None}}).close()


def parts_of_shards(paths: Sequence[str]) -> list[Part] | None:
    """One unit for each shard to read, with the number in its name.

    None where they are not all files with different numbers. Raises HandclrError where one is not a
    tar; a truncated one raises later, when it is read.
    """
    there = [os.path.isfile(path) or _is_remote(path) for path in paths]
    numbers = [number_of(path) if known else None for path, known in zip(paths, there, strict=True)]
    if None in numbers or len(set(numbers)) < len(numbers):
        return None
    return [
        part_of_archive(number or 0, _provenance_if_there(path), row)
        for row, (number, path) in enumerate(zip(numbers, paths, strict=True))
    ]


def _is_remote(path: str) -> bool:
    return is_url(path) and not path.startswith(COMMAND)


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
    """The provenance at the start of a shard, None where there is none.

    Raises HandclrError where the file cannot be read or is not a tar.
    """
    name = display_name(path)
    with reading(path), open_start(path) as file:
        first = next(walk(StreamCursor(file), name), None)
    return (
        read_provenance(bytes(first.data), f"{name}: {PROVENANCE}")
        if first and metadata_name(first) == PROVENANCE
        else None
    )


def metadata_of(path: str) -> dict[str, bytes]:
    """The metadata members behind the samples of a unit's shard, by name, found from its end."""
    if is_store(path):
        # The start of a block in the whole is one in its end, too: both end with one.
        whole: Any = ends_of_object(path, 0, _END)[1]
    else:
        with open(path, "rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    name = COUNTS.encode() + b"\0"
    start = whole.rfind(name)
    # A header is at the start of a block; elsewhere the name is part of some member's data.
    while start > 0 and start % BLOCK:
        start = whole.rfind(name, 0, start)
    if start < 0:
        return {}
    return {
        member.name: bytes(member.data)
        for member in walk(MapCursor(memoryview(whole), start), path)
    }


def _difference(path: str, record: Provenance) -> str:
    """How a shard differs from what `record` would make, in words; empty where it does not."""
    try:
        head = provenance_of(path)
    except HandclrError as error:
        return f"not a finished shard ({error})"
    if head is None:
        return "not a finished shard (it has no provenance)"
    made = [stage for stage in stages(head) if stage.get("stage") == record["stage"]]
    if not made:
        return f"not made by {record['stage']}"
    differing = _differing(made[-1], record)
    return f"made with {', '.join(differing)}" if differing else ""


def _differing(made: Provenance, record: Provenance) -> list[str]:
    """What a stage was made with where that is not so in `record`: arguments first, by name."""
    before, now = made.get("arguments") or {}, record["arguments"]
    arguments = [
        f"{name} {before.get(name, '(not set)')}"
        for name in sorted({**now, **before})
        if before.get(name) != now.get(name)
    ]
    # The history is that of the samples, not of the command; other arguments make other units.
    ignored = {"arguments", "history", *(["unit"] if arguments else [])}
    others = [
        f"{name} {json.dumps(made.get(name))}"
        for name in sorted((made.keys() | record.keys()) - ignored)
        if made.get(name) != record.get(name)
    ]
    return arguments + others
