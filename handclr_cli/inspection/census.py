"""What is in a shard, counted from its headers: a damaged one gives what stands before
the damage.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import BinaryIO

import numpy as np

from ..contract.errors import HandclrError, TruncatedError
from ..contract.fields import IMAGE, INFO, image_size
from ..contract.inputs import open_source
from ..contract.npz import as_keys
from ..contract.provenance import Provenance, loads
from ..contract.sample import KEY, Sample
from ..contract.shards import HISTORY, PROVENANCE, group
from ..contract.tar import Cursor, MapCursor, Member, walk
from ..contract.units import COUNTS, SKIPPED

# The sizes of the others would cost a page from the disk each.
MEASURED = 50
_SIDES = {"l": "left", "r": "right"}


@dataclass
class Census:
    """What is in one tar.

    `source`: its file, whose `size` in bytes the first tar has. `members`: samples that have each,
    by suffix. `sides` and `videos`: of the samples whose key or JSON tells. `crops`: (width,
    height) of every 50th. `origins`: the provenances of its samples. `counts`, `skipped`: what a
    numbered shard says of its inputs. `keys` bytes (N,) and `starts` int64 (N,) of the samples.
    `problems`: what is wrong, without the name of the file.
    """

    source: str
    size: int = 0
    members: Counter[str] = field(default_factory=Counter)
    sides: Counter[str] = field(default_factory=Counter)
    videos: set[str] = field(default_factory=set)
    crops: Counter[tuple[int, int]] = field(default_factory=Counter)
    origins: list[Provenance] = field(default_factory=list)
    counts: dict[str, int] | None = None
    skipped: list[str] = field(default_factory=list)
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, "S1"))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    problems: list[str] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.keys)

    def read(self, members: Iterable[Member]) -> None:
        """Count the members of the tar; what was counted before a HandclrError stays."""
        keys: list[str] = []
        starts: list[int] = []
        try:
            self._read(members, keys, starts)
        finally:
            self.keys, self.starts = as_keys(keys), np.array(starts, np.int64)

    def _read(self, members: Iterable[Member], keys: list[str], starts: list[int]) -> None:
        key, told = "", True
        seen: set[str] = set()
        for number, member in enumerate(members):
            folder, _, name = member.name.rpartition("/")
            stem, dot, suffix = name.partition(".")
            if name[:2] == "__" and name[-2:] == "__":
                if name == PROVENANCE and number:
                    raise TruncatedError(
                        "an archive ends without its end mark; did a producer fail?"
                    )
                self._note(name, bytes(member.data))
                key = ""
                continue
            if not dot:
                continue
            stem, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
            if stem != key:
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
            if suffix == IMAGE.suffix and len(keys) % MEASURED == 1:
                self._measure(key, member)

    def _by_key(self, key: str) -> bool:
        """Count the side and the video of a key that tells them."""
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

    def _measure(self, key: str, member: Member) -> None:
        try:
            self.crops[image_size(member.data)] += 1
        except HandclrError:
            self.problems.append(f"sample {key}: its jpg is not a JPEG image")

    def _note(self, name: str, data: bytes) -> None:
        """Read a metadata member; what is of another program is passed over."""
        if name in (PROVENANCE, HISTORY):
            origin = loads(data)
            if origin and origin not in self.origins:
                self.origins.append(origin)
        elif name == COUNTS:
            found = loads(data) or {}
            self.counts = {word: count for word, count in found.items() if type(count) is int}
        elif name == SKIPPED:
            with contextlib.suppress(ValueError, RecursionError):
                lines = json.loads(data)
                self.skipped += map(str, lines) if isinstance(lines, list) else []


def census(cursor: Cursor, source: str) -> list[Census]:
    """Count each tar of a stream; where one is damaged its `problems` say so, and nothing follows
    it.
    """
    found: list[Census] = []
    try:
        for _, members in groupby(walk(cursor, ""), key=lambda member: member.archive):
            found.append(Census(source))
            found[-1].read(members)
    except HandclrError as error:
        if not found:
            found.append(Census(source))
        found[-1].problems.append(str(error).removeprefix(": "))
    except OSError as error:  # a disk that fails, or a `pipe:` command
        found = found or [Census(source)]
        found[-1].problems.append(f"cannot be read: {error.strerror or error}")
    found = found or [Census(source)]
    found[0].size = cursor.position
    return found


def scan(path: str) -> list[Census]:
    """Count each tar in a file, by its memory map; one that cannot be opened has that as its
    problem.
    """
    try:
        with open_source(path) as file:
            return census(MapCursor(mapped(file)), path)
    except (HandclrError, OSError) as error:
        return [Census(path, problems=[str(error).removeprefix(f"cannot read {path}: ")])]


def random_samples(
    censuses: Sequence[Census], count: int, seed: int, views: Mapping[str, memoryview] | None = None
) -> Iterator[Sample]:
    """Draw samples from all tars alike, in their order; `views` are the bytes of sources that are
    no files.
    """
    ends = np.cumsum([one.samples for one in censuses])
    total = int(ends[-1]) if len(ends) else 0
    rows = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False))
    owners = np.searchsorted(ends, rows, side="right")
    for row, owner in zip(rows.tolist(), owners.tolist(), strict=True):
        one = censuses[owner]
        view = (views or {}).get(one.source)
        if view is None:
            with open_source(one.source) as file:
                view = mapped(file)
        start = int(one.starts[row - int(ends[owner]) + one.samples])
        yield next(group(MapCursor(view, start), one.source))


def mapped(file: BinaryIO) -> memoryview:
    """The bytes of a file, mapped; a pipe is copied to a file without a name first."""
    try:
        state = os.fstat(file.fileno())
    except (AttributeError, OSError):  # no file of the system's
        state = None
    if state is None or not stat.S_ISREG(state.st_mode):
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool, 1 << 20)
            spool.flush()
            return mapped(spool)
    if state.st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
