"""The headers of many videos, kept in the cache: the plan of a job needs them all in each task.

The cache has some files, its shelves, each with the videos whose paths have one checksum. Tasks
that start at once fill different shelves, and take from the others what was read meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

from ..contract.errors import HandclrError
from ..contract.jsontext import parse_json
from ..contract.kept import cache_folder
from ..contract.output import atomic_write
from ..contract.temporary import lock_file
from ..contract.version import __version__
from .decoding import read_header
from .frames import Header

# Fewer are read in less time than the shelves.
MANY = 500
# A disk over a network answers several as fast as one.
_THREADS = 8
_SHELVES = 64
# Videos of other jobs that a shelf keeps, the newest; each takes about 150 bytes.
_OTHERS = 5000
# So long another task may take with a shelf; it may have been stopped.
_PATIENCE_S = 30.0
_PAUSE_S = 0.2
# Another one where other things are read of a header than before.
_FORMAT = 1

# The size of a file in bytes, and when it was written to, in nanoseconds.
_Stamp = tuple[int, int]
_Entries = dict[str, tuple[_Stamp, Header]]
_Read = Callable[[Sequence[Path]], Iterator[Header]]


def headers_of(paths: Sequence[Path]) -> dict[Path, Header]:
    """The headers of videos, where there are so many that keeping them is worth it; else of none.

    A header that is kept is taken for the same path, size and time of writing. One that cannot be
    read is not kept, as the reason may pass, and neither are any where the cache cannot be written.
    """
    if len(paths) < MANY:
        return {}
    on_shelf: dict[int, list[Path]] = {}
    for path in paths:
        number = crc32(os.fsencode(os.path.abspath(path))) % _SHELVES
        on_shelf.setdefault(number, []).append(path)
    shelves = [_Shelf(number, on_shelf[number]) for number in sorted(on_shelf)]
    random.SystemRandom().shuffle(shelves)
    found: dict[Path, Header] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        _fill(shelves, lambda missing: pool.map(read_header, missing))
    for shelf in shelves:
        found |= shelf.found
    return found


def _fill(shelves: Sequence[_Shelf], read: _Read) -> None:
    """Find the headers of all shelves; those that other tasks fill come last."""
    waiting, until = list(shelves), time.monotonic() + _PATIENCE_S
    while waiting:
        held = [shelf for shelf in waiting if not shelf.fill(read)]
        if len(held) < len(waiting):
            until = time.monotonic() + _PATIENCE_S
        elif time.monotonic() > until:
            for shelf in held:
                shelf.read(read)
            return
        else:
            time.sleep(_PAUSE_S)
        waiting = held


class _Shelf:
    """A file of the cache, and the videos of this job that belong there.

    `found` are their headers, as far as they are known.
    """

    def __init__(self, number: int, paths: Sequence[Path]) -> None:
        self.path = cache_folder() / "headers" / f"{number:02d}"
        self.found: dict[Path, Header] = {}
        self._stamps = {path: _stamp(path) for path in paths}

    def fill(self, read: _Read) -> bool:
        """Find the headers here, or read them and keep them; False where another task does that."""
        self._take(_kept(self.path))
        if not self._missing():
            return True
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock_file(self.path.with_suffix(".lock"), wait=False))
            except BlockingIOError:
                return False
            except OSError:
                self.read(read)
                return True
            kept = _kept(self.path)
            self._take(kept)
            if fresh := self.read(read):
                with contextlib.suppress(HandclrError):
                    self._keep(kept, fresh)
        return True

    def read(self, read: _Read) -> _Entries:
        """Read what is missing; gives what can be kept, as it is the same after as before."""
        missing = self._missing()
        fresh: _Entries = {}
        for path, header in zip(missing, read(missing), strict=True):
            self.found[path] = header
            stamp = self._stamps[path]
            if stamp and header.size == stamp[0] and _stamp(path) == stamp:
                fresh[os.path.abspath(path)] = stamp, header
        return fresh

    def _missing(self) -> list[Path]:
        return [path for path in self._stamps if path not in self.found]

    def _take(self, kept: _Entries) -> None:
        for path in self._missing():
            stamp, header = kept.get(os.path.abspath(path), (None, None))
            if header is not None and stamp == self._stamps[path]:
                self.found[path] = header

    def _keep(self, kept: _Entries, fresh: _Entries) -> None:
        ours = {os.path.abspath(path) for path in self._stamps}
        others = [name for name in kept if name not in ours][-_OTHERS:]
        entries = {name: kept[name] for name in others}
        entries |= {name: entry for name, entry in kept.items() if name in ours}
        text = json.dumps([_made_by(), entries | fresh]).encode()
        with atomic_write(self.path, "cached") as file:
            file.write(_checksum(text) + text)


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _kept(path: Path) -> _Entries:
    """What a shelf holds; nothing where it is not there, damaged, or of another version."""
    try:
        data = path.read_bytes()
        told, text = data[:_DIGITS], data[_DIGITS:]
        if told != _checksum(text):
            return {}
        made_by, entries = parse_json(text)
        if made_by != _made_by():
            return {}
        return {name: _entry(*entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _entry(stamp: Sequence[int], header: Sequence[Any]) -> tuple[_Stamp, Header]:
    size, written = stamp
    return (size, written), Header(*header)


def _made_by() -> list[Any]:
    """What a header depends on besides its file."""
    return [_FORMAT, __version__, version("av")]


def _checksum(data: bytes) -> bytes:
    return sha256(data).hexdigest().encode()


_DIGITS = len(_checksum(b""))
