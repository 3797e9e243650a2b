"""What is in a shard, counted from its headers; of a damaged one, what is before the damage."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import BinaryIO, cast

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import IMAGE, INFO
from ..contract.index import mapped
from ..contract.inputs import is_url, open_source
from ..contract.jsontext import parse_json
from ..contract.npz import as_keys
from ..contract.pictures import image_size
from ..contract.provenance import Provenance, loads
from ..contract.sample import KEY, Sample
from ..contract.shards import HISTORY, PROVENANCE, group, metadata_name, not_the_first
from ..contract.tar import Cursor, MapCursor, Member, sample_name, walk
from ..contract.units import COUNTS, SKIPPED
from ..work.pulse import beat

# The size of one crop in so many is read, as each costs a page from the disk.
MEASURED = 50
_CROPS = (IMAGE.suffix, *IMAGE.others)
_SIDES = {"l": "left", "r": "right"}


@dataclass
class Census:
    """What is in one tar."""

    source: str
    """The name of its file."""
    size: int = 0
    """The bytes of that file, in the census of its first tar; 0 in those of the others."""
    members: Counter[str] = field(default_factory=Counter)
    """How many samples have a member, by its suffix."""
    sides: Counter[str] = field(default_factory=Counter)
    """How many samples are of each hand, where the key or the JSON says so."""
    videos: set[str] = field(default_factory=set)
    """The videos of the samples, where the key or the JSON names them."""
    crops: Counter[tuple[int, int]] = field(default_factory=Counter)
    """How many crops are of each (width, height), of those that were measured: one in 50."""
    origins: list[Provenance] = field(default_factory=list)
    """The provenances of the samples, each once."""
    counts: dict[str, int] | None = None
    """What became of the inputs, in a numbered shard."""
    skipped: list[str] = field(default_factory=list)
    """The inputs that were skipped, each with the reason, in a numbered shard."""
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, "S1"))
    """The keys of the samples, bytes (N,)."""
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """The positions of the samples in the file, int64 (N,)."""
    readable: int = 0
    """How many of the samples, from the first, can be read: the one that damage cuts cannot."""
    problems: list[str] = field(default_factory=list)
    """What is wrong, without the name of the file."""

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.keys)

    def read(self, members: Iterable[Member]) -> None:
        """Count the members of the tar; after a HandclrError, those before it are counted."""
        keys: list[str] = []
        starts: list[int] = []
        try:
            self._read(members, keys, starts)
            self.readable = len(keys)
        finally:
            self.keys, self.starts = as_keys(keys), np.array(starts, np.int64)

    def _read(self, members: Iterable[Member], keys: list[str], starts: list[int]) -> None:
        key, told = "", True
        seen: set[str] = set()
        for number, member in enumerate(members):
            beat()
            if name := metadata_name(member):
                self.readable = len(keys)
                if name == PROVENANCE and number:
                    raise not_the_first("")
                self._note(name, bytes(member.data))
                key = ""
                continue
            named = sample_name(member.name)
            if named is None:
                continue
            stem, suffix = named
            if stem != key:
                # Only here is it known that the sample before has no more members.
                self.readable = len(keys)
                key, seen = stem, set()
                told = self._by_key(key)
                keys.append(key)
                starts.append(member.start)
            if suffix in seen:
                raise HandclrError(f"sample {key} has two members .{suffix}")
            seen.add(suffix)
            self.members[suffix] += 1
            if suffix == INFO.suffix and not told:
                self._by_info(loads(bytes(member.data)) or {})
            picture = suffix == IMAGE.suffix or (suffix in _CROPS and IMAGE.suffix not in seen)
            if picture and len(keys) % MEASURED == 1:
                self._measure(key, suffix, member)

    def _by_key(self, key: str) -> bool:
        """Count the side and the video in a key; False where it does not contain them."""
        match = KEY.fullmatch(key)
        if match is None:
            return False
        self.sides[_SIDES[match["hand"]]] += 1
        self.videos.add(match["video"])
        return True

    def _by_info(self, info: Provenance) -> None:
        if info.get("hand") in _SIDES.values():
            self.sides[str(info["hand"])] += 1
        if "video" in info:
            self.videos.add(str(info["video"]))

    def _measure(self, key: str, suffix: str, member: Member) -> None:
        try:
            self.crops[image_size(member.data)] += 1
        except HandclrError:
            self.problems.append(f"sample {key}: its {suffix} is not a JPEG or PNG image")

    def _note(self, name: str, data: bytes) -> None:
        """Read a metadata member; those of other programs are ignored."""
        if name in (PROVENANCE, HISTORY):
            origin = loads(data)
            if origin and origin not in self.origins:
                self.origins.append(origin)
        elif name == COUNTS:
            found = loads(data) or {}
            self.counts = {word: count for word, count in found.items() if type(count) is int}
        elif name == SKIPPED:
            with contextlib.suppress(ValueError):
                lines = parse_json(data)
                self.skipped += map(str, lines) if isinstance(lines, list) else []


def census(cursor: Cursor, source: str) -> list[Census]:
    """Count each tar of a stream up to the first damage, which is a problem of the last tar."""
    found: list[Census] = []
    try:
        for _, members in groupby(walk(cursor, ""), key=lambda member: member.archive):
            found.append(Census(source))
            found[-1].read(members)
    except HandclrError as error:
        if not found:
            found.append(Census(source))
        found[-1].problems.append(str(error).removeprefix(": "))
    except OSError as error:  # from a failing disk or `pipe:` command
        found = found or [Census(source)]
        found[-1].problems.append(f"cannot be read: {error.strerror or error}")
    found = found or [Census(source)]
    found[0].size = cursor.position
    return found


def scan(path: str) -> list[Census]:
    """Count each tar in a file; of a file that cannot be opened, that is the problem."""
    try:
        with open_source(path) as file:
            source = cast(BinaryIO, _Beating(file)) if is_url(path) else file
            return census(MapCursor(mapped(source)), path)
    except (HandclrError, OSError) as error:
        return [Census(path, problems=[str(error).removeprefix(f"cannot read {path}: ")])]


class _Beating:
    """A stream that is copied before it is read: a large one over a slow line takes long."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Read on."""
        beat()
        return self._file.read(size)


def random_samples(
    censuses: Sequence[Census], count: int, seed: int, views: Mapping[str, memoryview] | None = None
) -> Iterator[Sample]:
    """Draw `count` samples, each equally likely, and yield them in the order of the tars.

    Of a damaged tar they are among those before the one that is cut. `views` are the bytes of the
    sources that cannot be opened again, by name.
    """
    ends = np.cumsum([one.readable for one in censuses])
    total = int(ends[-1]) if len(ends) else 0
    rows = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False))
    owners = np.searchsorted(ends, rows, side="right")
    for row, owner in zip(rows.tolist(), owners.tolist(), strict=True):
        one = censuses[owner]
        view = (views or {}).get(one.source)
        if view is None:
            with open_source(one.source) as file:
                view = mapped(file)
        start = int(one.starts[row - int(ends[owner]) + one.readable])
        yield next(group(MapCursor(view, start), one.source))
