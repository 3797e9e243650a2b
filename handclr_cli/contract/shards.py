"""Tar shards of samples, read and written as streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from types import TracebackType
from typing import BinaryIO

from .errors import DamagedError, TruncatedError, UsageError
from .inputs import STDIN, display_name, open_source, reading
from .kinds import refuse_other_kind
from .numbering import SHARD_SIZE, is_numbered, refuse_to_replace, shards_of
from .output import output_file, remove_output
from .provenance import Provenance, after, dumps, read_provenance
from .sample import Sample
from .tar import END_OF_ARCHIVE, Cursor, Member, StreamCursor, sample_name, walk, write_member

PROVENANCE = "__handclr__"
HISTORY = "__history__"


def read_archives(source: str) -> Iterator[Archive]:
    """Yield the archives of one source in order; see `archives` for the errors."""
    name = display_name(source)
    file = open_source(source)
    # A failed `pipe:` command may raise at the end of its output, or only when it is closed.
    close = (lambda: None) if source == STDIN else file.close
    try:
        with reading(source):
            for archive in archives(StreamCursor(file), name):
                archive.samples = _naming(archive.samples, name)
                yield archive
    except BaseException:
        with contextlib.suppress(OSError):
            close()
        raise
    with reading(source):
        close()


def _naming(samples: Iterable[Sample], name: str) -> Iterator[Sample]:
    with reading(name):
        yield from samples


def read_samples(sources: Iterable[str]) -> Iterator[Sample]:
    """Yield the samples of shards in order; see `archives` for the errors."""
    for source in sources:
        for archive in read_archives(source):
            yield from archive.samples


@dataclass
class Archive:
    """One tar of a stream: its provenance and its samples.

    Take the samples before the next archive. `metadata` holds, by name, the metadata members that
    were read so far, except the provenance.
    """

    origin: Provenance | None
    samples: Iterator[Sample]
    metadata: dict[str, bytes]


def archives(cursor: Cursor, source: str) -> Iterator[Archive]:
    """Yield the tars that a stream consists of; `source` is its name in messages.

    Keys are as in `sample_name`; names in double underscores are metadata. Raises TruncatedError
    where the stream, or an archive before the last, ends without its end-of-archive mark;
    DamagedError where it is damaged, or a key comes again in an archive after others.
    """
    for _, members in groupby(walk(cursor, source), key=lambda member: member.archive):
        yield (archive := _archive(members, source))
        for _ in archive.samples:  # samples that were not taken are still checked
            pass


def group(cursor: Cursor, source: str) -> Iterator[Sample]:
    """Yield the samples of a stream: consecutive members with the same key; see `archives`."""
    for archive in archives(cursor, source):
        yield from archive.samples


def metadata_name(member: Member) -> str | None:
    """The name of a metadata member without its folder, such as `__handclr__`; None of others."""
    base = member.name.rpartition("/")[2]
    return base if base.startswith("__") and base.endswith("__") else None


def not_the_first(what: str) -> TruncatedError:
    """The error for a provenance that comes after other members of one archive."""
    return TruncatedError(
        f"{what}an archive ends without its end mark, or was packed with {PROVENANCE} not first"
    )


def _archive(members: Iterator[Member], source: str) -> Archive:
    first = next(members)
    origin = (
        read_provenance(bytes(first.data), f"{source}: {first.name}")
        if metadata_name(first) in (PROVENANCE, HISTORY)
        else None
    )
    metadata: dict[str, bytes] = {}
    return Archive(origin, _samples(chain([first], members), source, metadata), metadata)


def _samples(members: Iterable[Member], source: str, found: dict[str, bytes]) -> Iterator[Sample]:
    """The samples of one archive; its metadata goes into `found`."""
    origin: Provenance | None = None
    sample: Sample | None = None
    keys = set[str]()
    for number, member in enumerate(members):
        metadata = metadata_name(member)
        named = None if metadata else sample_name(member.name)
        if sample and (metadata or (named and named[0] != sample.key)):
            yield sample
            sample = None
        if metadata:
            origin = _note(member, metadata, number, source, found, origin)
        if named is None:
            continue
        key, suffix = named
        if sample is None:
            _refuse_returning(key, keys, source)
            sample = Sample(key, {}, origin, source, member.start)
        if suffix in sample.members:
            raise DamagedError(f"{source}: sample {key} has two members .{suffix}")
        sample.members[suffix] = member.data
    if sample:
        yield sample


def _note(
    member: Member,
    name: str,
    number: int,
    source: str,
    found: dict[str, bytes],
    origin: Provenance | None,
) -> Provenance | None:
    """Keep a metadata member in `found`; returns the provenance of the samples behind it."""
    if name == PROVENANCE and number:
        raise not_the_first(f"{source}: ")
    if name in (PROVENANCE, HISTORY):
        return read_provenance(bytes(member.data), f"{source}: {member.name}")
    found[name] = bytes(member.data)
    return origin


def _refuse_returning(key: str, seen: set[str], source: str) -> None:
    """Add a key to those seen before; raises DamagedError where it is one of them."""
    if key in seen:
        advice = "keys must be unique, and the members of one adjacent, as in a tar sorted by name"
        raise DamagedError(f"{source}: key {key} comes again after others; {advice}")
    seen.add(key)


def unrepeated(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield samples of several archives that become one; raises DamagedError for a key's second."""
    keys = set[str]()
    for sample in samples:
        _refuse_returning(sample.key, keys, sample.source)
        yield sample


class ShardWriter:
    """Writes one tar: provenance, samples, and with `close` the end-of-archive mark."""

    def __init__(self, file: BinaryIO, record: Provenance) -> None:
        self.file, self.record = file, record
        self.written: str | None = None
        self._noted: Provenance | None = None

    def write(self, sample: Sample) -> None:
        """Append a sample, its members in alphabetical order.

        Where its origin is not that of the sample before it, the new history is written first.
        """
        self._note(sample.origin)
        for suffix in sorted(sample.members):
            write_member(self.file, f"{sample.key}.{suffix}", sample.members[suffix])

    def close(self) -> None:
        """Write the end-of-archive mark."""
        if self.written is None:
            self._note(None)
        self.file.write(END_OF_ARCHIVE)
        self.file.flush()

    def _note(self, origin: Provenance | None) -> None:
        if self.written is not None and origin is self._noted:
            return
        self._noted = origin
        text = dumps(after(self.record, [origin]))
        if text != self.written:
            name = PROVENANCE if self.written is None else HISTORY
            write_member(self.file, name, text.encode("utf-8", "replace"))
            self.written = text


class ShardOutput:
    """Where a filter writes: standard output, one file, or numbered shards (`crops-%06d.tar`).

    A context manager. A file gets its name when it is complete; after an exception only those
    numbered shards exist that were completed before it. With `overwrite`, an older numbered set is
    removed when the first new shard is complete, so that the two are never mixed. Raises UsageError
    where an older set exists and is not to be overwritten, or is among `reads`, the inputs of the
    job.
    """

    def __init__(
        self,
        path: str,
        record: Provenance,
        shard_size: int = SHARD_SIZE,
        overwrite: bool = False,
        reads: Iterable[str] = (),
    ) -> None:
        self.pattern, self.record, self.shard_size = path, record, shard_size
        self.sharded = is_numbered(path)
        self.samples = self.shards = 0
        self._stack = contextlib.ExitStack()
        self._writer: ShardWriter | None = None
        self._older = [name for _, name in shards_of(path)] if self.sharded else []
        if self._older and not overwrite:
            raise UsageError(f"{self._older[0]} exists; remove the old shards or overwrite them")
        for name in self._older:
            refuse_other_kind(name, "tar")
        refuse_to_replace(self._older if self.sharded else [path], reads)

    def __enter__(self) -> ShardOutput:
        self._open()
        return self

    def write(self, sample: Sample) -> None:
        """Append a sample; in a numbered set the next shard begins when one is full."""
        if self.sharded and self.samples and self.samples % self.shard_size == 0:
            self._finish()
            self._open()
        assert self._writer is not None
        self._writer.write(sample)
        self.samples += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, trace)
            return
        self._finish()

    def _open(self) -> None:
        path = self.pattern % self.shards if self.sharded else self.pattern
        self._stack = contextlib.ExitStack()
        self._writer = ShardWriter(self._stack.enter_context(output_file(path, "tar")), self.record)

    def _finish(self) -> None:
        assert self._writer is not None
        with self._stack:
            self._writer.close()
        for name in self._older:
            if name != self.pattern % self.shards:
                remove_output(name)
        self._older = []
        self.shards += 1
